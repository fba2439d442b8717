package restores

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"thaw/bench/lab"
	"thaw/bench/result"
	"thaw/bench/scenario"
)

// All returns the scenarios, in the order in which they are run.
func All() []scenario.Scenario {
	return []scenario.Scenario{restoreScenario(), burstScenario(), tracerScenario(), workingSetScenario(), tiersScenario()}
}

// The metrics that both have.
var (
	// firstResponse is the time from the start of the restore to the first response.
	firstResponse = result.Metric{Name: "first-response", Unit: "ns"}
	// bytesRead is what the machine read from its disks, the work of others included.
	bytesRead = result.Metric{Name: "bytes-read", Unit: "B"}
)

// one observes a single value.
func one(m result.Metric, v float64) result.Observation {
	return result.Observation{Metric: m, Values: []float64{v}}
}

// nanoseconds turns seconds into the unit of our metrics.
func nanoseconds(s float64) float64 { return s * 1e9 }

// newLab makes a lab in the scenario's folder. If a part is missing that it needs, there is a plan without trials instead, which says
// what and how to get it.
func newLab(ctx context.Context, env *scenario.Env) (*lab.Lab, *scenario.Plan, error) {
	parts, err := lab.FindParts(env.CRIU)
	if errors.Is(err, lab.ErrPartMissing) {
		return nil, &scenario.Plan{LeftOut: true, Notes: []string{fmt.Sprintf("Left out: %v.", err)}}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	dir, err := filepath.Abs(env.Dir)
	if err != nil {
		return nil, nil, err
	}
	l, err := lab.New(ctx, lab.Config{Parts: parts, Dir: dir, Progress: steps(env.Step)})
	return l, nil, err
}

// steps tells the steps of a lab as those of a scenario.
type steps func(name string)

// Step implements [lab.Progress].
func (s steps) Step(name string) func(string, error) {
	s(name)
	return func(string, error) {}
}
