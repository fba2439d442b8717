package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"thaw/bench/result"
	"thaw/checkpoint"
)

// Progress is told how far a run is. Calls come from one goroutine.
type Progress interface {
	// Step says that a step of the scenario's preparation begins.
	Step(scenario, name string)
	// Trial says that trial n of total of the scenario, in the given repetition, begins.
	Trial(scenario, name string, repetition, n, total int)
}

// Options say how to run scenarios.
type Options struct {
	// Repetitions is how often each trial is run. Default: 10, or 1 if Quick is set.
	Repetitions int
	// Quick runs tiny sizes.
	Quick bool
	// Filter leaves out the trials whose name (params/subject) it does not match. nil: none.
	Filter *regexp.Regexp
	// Dir is the folder below which files are made. Default: that for temporary files.
	Dir string
	// CRIU is the path of CRIU; empty if there is none.
	CRIU string
	// Progress may be nil.
	Progress Progress
}

func (o *Options) setDefaults() {
	if o.Repetitions <= 0 {
		o.Repetitions = 10
		if o.Quick {
			o.Repetitions = 1
		}
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
}

type silent struct{}

func (silent) Step(string, string)                 {}
func (silent) Trial(string, string, int, int, int) {}

var (
	// ErrNothing is returned if the filter leaves nothing to run.
	ErrNothing = errors.New("no trial matches the filter")
	// ErrLeftOut is returned if none of the scenarios can be run here. It comes with their notes.
	ErrLeftOut = errors.New("nothing can be run here")
)

// Run runs the scenarios, one after the other, and returns the document without its host.
func Run(ctx context.Context, scenarios []Scenario, opts *Options) (*result.Document, error) {
	o := *opts
	o.setDefaults()
	d := &result.Document{Settings: result.Settings{Repetitions: o.Repetitions, Quick: o.Quick}}
	if o.Filter != nil {
		d.Settings.Filter = o.Filter.String()
	}
	var leftOut []string
	for i := range scenarios {
		s := &scenarios[i]
		d.Settings.Scenarios = append(d.Settings.Scenarios, s.Name)
		plan, err := runScenario(ctx, s, &o, d)
		if err != nil {
			return nil, fmt.Errorf("scenario %s: %w", s.Name, err)
		}
		if plan.LeftOut {
			leftOut = append(leftOut, plan.Notes...)
		}
	}
	switch {
	case len(d.Series) > 0:
	case len(leftOut) > 0:
		return nil, fmt.Errorf("%w: %s", ErrLeftOut, strings.Join(leftOut, " "))
	default:
		return nil, ErrNothing
	}
	d.Finish()
	d.Goals = []result.Goal{}
	if o.Quick {
		return d, nil // its numbers are none to be judged
	}
	for i := range scenarios {
		d.Goals = append(d.Goals, Judge(d, &scenarios[i])...)
	}
	return d, nil
}

func runScenario(ctx context.Context, s *Scenario, o *Options, d *result.Document) (_ *Plan, err error) {
	start := time.Now()
	dir, err := os.MkdirTemp(o.Dir, "uffdbench-*")
	if err != nil {
		return nil, err
	}
	// A container that could not be cleaned up leaves mounts, one of them of the root file system: never delete across them.
	defer func() { err = errors.Join(err, checkpoint.RemoveAll(dir)) }()
	env := &Env{Quick: o.Quick, Dir: dir, CRIU: o.CRIU, filter: o.Filter, step: func(name string) { o.Progress.Step(s.Name, name) }}
	plan, err := s.Prepare(ctx, env)
	if err != nil {
		return nil, err
	}
	if plan.Close != nil {
		defer func() { err = errors.Join(err, plan.Close()) }()
	}
	reps := o.Repetitions
	if !o.Quick {
		reps *= max(plan.Passes, 1)
	}
	if err := repeat(ctx, s.Name, matching(plan.Trials, o.Filter), reps, o.Progress, d); err != nil {
		return nil, err
	}
	if s.Derive != nil {
		s.Derive(d)
	}
	d.Scenarios = append(d.Scenarios, result.Scenario{
		Name: s.Name, Summary: s.Summary, Charts: s.Charts, Notes: plan.Notes, Seconds: time.Since(start).Seconds(),
	})
	return plan, nil
}

func matching(trials []Trial, filter *regexp.Regexp) []Trial {
	if filter == nil {
		return trials
	}
	var out []Trial
	for _, t := range trials {
		if filter.MatchString(t.name()) {
			out = append(out, t)
		}
	}
	return out
}

// repeat runs the trials as often as asked for.
func repeat(ctx context.Context, scenario string, trials []Trial, reps int, progress Progress, d *result.Document) error {
	n, total := 0, 0
	for i := range trials {
		total += trials[i].repetitions(reps)
	}
	for rep := range reps {
		for _, i := range order(trials, rep) {
			t := &trials[i]
			if !t.takesPart(rep, reps) {
				continue
			}
			n++
			progress.Trial(scenario, t.name(), rep+1, n, total)
			runtime.GC() // so that no trial pays for the one before it
			seen, err := t.Run(ctx)
			if err != nil {
				return fmt.Errorf("%s, repetition %d: %w", t.name(), rep+1, err)
			}
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			d.Add(scenario, t.Params, t.Subject, seen)
		}
	}
	return nil
}

// order returns the numbers of the trials: as they are at first, so that reports list them as their plan does, and shuffled
// for each further repetition. What a trial leaves behind, such as free memory that the host has not taken back yet, helps or
// hurts the one after it; that must not always be the same one. Groups stay together.
func order(trials []Trial, rep int) []int {
	random := rand.New(rand.NewPCG(1, uint64(rep)))
	out := make([]int, len(trials))
	for i := range out {
		out[i] = i
	}
	if rep > 0 {
		out = random.Perm(len(trials))
	}
	var groups []string
	for _, i := range out {
		if g := trials[i].Group; !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	slices.SortStableFunc(out, func(a, b int) int {
		return slices.Index(groups, trials[a].Group) - slices.Index(groups, trials[b].Group)
	})
	return out
}
