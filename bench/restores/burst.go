package restores

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"

	"thaw/bench/lab"
	"thaw/bench/result"
	"thaw/bench/scenario"
)

var (
	// firstResponses are the times from the start of the burst to the first response of each of its restores.
	firstResponses = result.Metric{Name: firstResponse.Name, Unit: "ns", Many: true}
	// coreTime is a first response times the cores over the restores: had the restores been run one after the other on each core,
	// each would have taken so long.
	coreTime = result.Metric{Name: "core-time", Unit: "ns", Many: true}
	// toComplete is the time until all processes have all their memory.
	toComplete = result.Metric{Name: "to-complete", Unit: "ns"}
	// bytesToResponse is what of bytesRead was read until the last first response.
	bytesToResponse = result.Metric{Name: "bytes-to-response", Unit: "B"}
)

// Which snapshots a burst restores.
const (
	oneSnapshot        = "one"
	differentSnapshots = "different" // most of whose pages are the same
)

func burstScenario() scenario.Scenario {
	thaw := func(m result.Metric, figure result.Figure) scenario.Side {
		return scenario.Side{Subject: string(lab.Thaw), Metric: m.Name, Figure: figure}
	}
	single := func(m result.Metric) *scenario.Side {
		s := thaw(m, result.Middle)
		s.Params = result.P("restores", "1")
		return &s
	}
	sixteen := result.P("snapshots", oneSnapshot, "restores", "16")
	chart := func(title string, m result.Metric, cache lab.Cache) result.Chart {
		return result.Chart{Kind: result.OverParam, Title: title + ", page cache " + string(cache), Metric: m.Name, X: "restores",
			Only: result.P("cache", string(cache))}
	}
	return scenario.Scenario{
		Name: "burst",
		Summary: "Restores of one snapshot at the same time, and of different snapshots that share most pages, through one thawd: how long each takes until its " +
			"first response, and what the machine reads from its disks until all memory is there.",
		Charts: []result.Chart{
			chart("Median first response", firstResponse, lab.Warm),
			chart("Median first response", firstResponse, lab.Dropped),
			chart("Bytes read from disk", bytesRead, lab.Dropped),
		},
		Goals: []scenario.Goal{
			{Name: "p99 x cores / restores, over a single restore", Case: sixteen, Each: []string{"cache"}, Ours: thaw(coreTime, result.P99),
				Floor: single(firstResponses), FloorIs: "the median first response of a single restore", Want: 2},
			{Name: "bytes read, over a single restore's", Case: sixteen.With("cache", string(lab.Dropped)), Ours: thaw(bytesRead, result.Middle),
				Floor: single(bytesRead), FloorIs: "what a single restore reads", Want: 1.1},
		},
		Prepare: prepareBurst,
	}
}

// A wave is one kind of burst.
type wave struct {
	snapshots string
	restores  int
	caches    []lab.Cache
	modes     []lab.Mode
	most      int // repetitions; 0: no bound
}

// few is how often bursts are run that take long: all scenarios together have to end within 20 minutes on two cores.
const few = 3

var (
	thawOnly   = []lab.Mode{lab.Thaw}
	burstModes = []lab.Mode{lab.Thaw, lab.CRIUEager, lab.CRIULazy}
)

func waves(env *scenario.Env) []wave {
	both := lab.Caches()
	return scenario.Pick(env, []wave{
		{oneSnapshot, 1, both, burstModes, 0},
		{oneSnapshot, 4, both, burstModes, 0},
		{oneSnapshot, 16, both, burstModes, 0},
		{oneSnapshot, 64, both, thawOnly, few},
		{differentSnapshots, 4, both, thawOnly, few},
		{differentSnapshots, 16, both, burstModes, few},
		{differentSnapshots, 64, both, thawOnly, few},
	}, []wave{
		{oneSnapshot, 1, []lab.Cache{lab.Warm}, burstModes, 0},
		{oneSnapshot, 2, []lab.Cache{lab.Warm}, burstModes, 0},
		{differentSnapshots, 2, []lab.Cache{lab.Dropped}, thawOnly, 0},
	})
}

func (w *wave) params(cache lab.Cache) result.Params {
	return result.P("snapshots", w.snapshots, "restores", strconv.Itoa(w.restores), "cache", string(cache))
}

// wanted reports whether any trial of the wave is.
func (w *wave) wanted(env *scenario.Env) bool {
	return slices.ContainsFunc(w.caches, func(c lab.Cache) bool {
		return slices.ContainsFunc(w.modes, func(m lab.Mode) bool { return env.Wants(w.params(c), string(m)) })
	})
}

// tableSize is that of each process's table, in MiB: 64 processes with a copy each fit into a machine's memory.
const tableSize = 64

// different is how many different snapshots there are at most.
const different = 16

func prepareBurst(ctx context.Context, env *scenario.Env) (_ *scenario.Plan, err error) {
	l, plan, err := newLab(ctx, env)
	if plan != nil || err != nil {
		return plan, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	all := slices.DeleteFunc(waves(env), func(w wave) bool { return !w.wanted(env) })
	var frozen []*lab.Frozen
	for i := range snapshotsOf(all) {
		env.Step(fmt.Sprintf("snapshot %d", i+1))
		f, err := l.Freeze(ctx, lab.Table(scenario.Pick(env, tableSize, 8), i))
		if err != nil {
			return nil, err
		}
		frozen = append(frozen, f)
	}
	plan = &scenario.Plan{Close: l.Close, Notes: []string{
		fmt.Sprintf("Bursts of 64, and those of different snapshots, are run at most %d times, for they take long.", few),
	}}
	for _, w := range all {
		w.add(plan, l, frozen)
	}
	return plan, l.Prepare(ctx, burstModes...)
}

// snapshotsOf returns how many snapshots the waves need.
func snapshotsOf(all []wave) int {
	n := 0
	for _, w := range all {
		if w.snapshots == differentSnapshots {
			n = max(n, min(w.restores, different))
		}
		n = max(n, 1)
	}
	return n
}

// pick returns what a wave restores: one snapshot so often, or all of them in turn.
func (w *wave) pick(frozen []*lab.Frozen) []*lab.Frozen {
	if w.snapshots == oneSnapshot {
		frozen = frozen[:1]
	}
	out := make([]*lab.Frozen, w.restores)
	for i := range out {
		out[i] = frozen[i%len(frozen)]
	}
	return out
}

func (w *wave) add(plan *scenario.Plan, l *lab.Lab, frozen []*lab.Frozen) {
	picked := w.pick(frozen)
	for _, cache := range w.caches {
		for _, mode := range w.modes {
			plan.Trials = append(plan.Trials, scenario.Trial{
				Params: w.params(cache), Subject: string(mode), Group: string(cache), MaxRepetitions: w.most,
				Run: func(ctx context.Context) ([]result.Observation, error) {
					b, err := l.Burst(ctx, picked, mode, cache)
					return observeBurst(&b, runtime.NumCPU()), err
				},
			})
		}
	}
}

// observeBurst returns what a burst on so many cores says.
func observeBurst(b *lab.Burst, cores int) []result.Observation {
	first := result.Observation{Metric: firstResponses}
	share := result.Observation{Metric: coreTime}
	// Fewer restores than cores do not use them all.
	part := min(1, float64(cores)/float64(len(b.ToFirstResponse)))
	for _, s := range b.ToFirstResponse {
		first.Values = append(first.Values, nanoseconds(s))
		share.Values = append(share.Values, nanoseconds(s)*part)
	}
	return []result.Observation{
		first, share, one(toComplete, nanoseconds(b.ToComplete)),
		one(bytesRead, float64(b.BytesRead)), one(bytesToResponse, float64(b.BytesToResponse)),
	}
}
