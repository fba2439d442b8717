package restores

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"thaw/bench/lab"
	"thaw/bench/result"
	"thaw/bench/scenario"
)

var (
	// toRunning is the time until the process runs; of the floor it is the floor.
	toRunning = result.Metric{Name: "to-running", Unit: "ns"}
	// warmCall is W: the same request, answered by the process once all of its memory is there.
	warmCall = result.Metric{Name: "w", Unit: "ns"}
	// overhead is the first response less W, less the median floor: what it costs to bring the memory.
	overhead = result.Metric{Name: "overhead", Unit: "ns"}
	// readTime is how long it takes to read all images from the disk, one byte after the other.
	readTime = result.Metric{Name: "read-images", Unit: "ns"}
	// faultsServed is how many faults the memory server resolved until the first response.
	faultsServed = result.Metric{Name: "faults-served", Unit: "faults"}
)

// restoreModes are the subjects, the floor among them. Thaw is measured as a node is that has restored a snapshot for a while: thawd records
// restores by itself until it has a working set. What the set is worth is asked by the scenario working-set.
var restoreModes = []lab.Mode{lab.ThawSet, lab.CRIUEager, lab.CRIULazy, lab.Floor}

// diskReader is the subject that only reads the images.
const diskReader = "read"

func restoreScenario() scenario.Scenario {
	side := func(subject lab.Mode) scenario.Side {
		return scenario.Side{Subject: string(subject), Metric: overhead.Name, Figure: result.Middle}
	}
	beforeRunning := scenario.Side{Subject: string(lab.Floor), Metric: toRunning.Name, Figure: result.Middle}
	// Only the request of the large size needs nearly all of the images.
	disk := map[string]*scenario.Limit{"large": {
		Of: scenario.Side{Subject: diskReader, Metric: readTime.Name, Figure: result.Middle}, Best: true, Less: &beforeRunning,
		Is: "the least time to read all images from the disk, in order, by one thread, less what can pass before the process runs (the floor's to-running)",
	}}
	goal := func(size string, over lab.Mode, want float64) scenario.Goal {
		floor := side(over)
		return scenario.Goal{
			Name: "overhead over " + string(over) + "'s", Case: result.P("size", size), Each: []string{"cache"}, Ours: side(lab.ThawSet), Floor: &floor,
			FloorIs: "the same restore by CRIU alone: first response less W, less the floor", Limit: disk[size], Want: want,
		}
	}
	return scenario.Scenario{
		Name: "restore",
		Summary: "A real process in a container, frozen with CRIU, restored until its first response. Overhead is the first response less W, a warm call of the " +
			"same request, less the floor, a bare restore of the skeleton until the process runs.",
		Charts: []result.Chart{
			{Kind: result.OverParam, Title: "Overhead by memory, page cache warm", Metric: overhead.Name, X: "memory", Only: result.P("cache", "warm")},
			{Kind: result.OverParam, Title: "Overhead by memory, page cache dropped", Metric: overhead.Name, X: "memory", Only: result.P("cache", "dropped")},
			{Kind: result.OverParam, Title: "First response by memory, page cache warm", Metric: firstResponse.Name, X: "memory", Only: result.P("cache", "warm")},
			{Kind: result.OverParam, Title: "First response by memory, page cache dropped", Metric: firstResponse.Name, X: "memory", Only: result.P("cache", "dropped")},
		},
		Goals: []scenario.Goal{
			goal("large", lab.CRIUEager, 0.25), goal("large", lab.CRIULazy, 0.35),
			goal("medium", lab.CRIUEager, 0.4), goal("medium", lab.CRIULazy, 0.4),
		},
		Prepare: prepareRestore,
		Derive:  func(d *result.Document) { deriveOverheads(d, "restore") },
	}
}

// A size is a workload to restore.
type size struct {
	workload string
	memory   string // in its images, about
	caches   []lab.Cache
	frozen   *lab.Frozen // by add
}

func sizes(env *scenario.Env) []size {
	return scenario.Pick(env,
		[]size{
			{workload: "small", memory: "24MiB", caches: lab.Caches()},
			{workload: "medium", memory: "272MiB", caches: lab.Caches()},
			{workload: "large", memory: "1.5GiB", caches: lab.Caches()},
		},
		[]size{{workload: "small", memory: "24MiB", caches: []lab.Cache{lab.Warm}}})
}

func (s *size) params(cache lab.Cache) result.Params {
	return result.P("size", s.workload, "memory", s.memory, "cache", string(cache))
}

func prepareRestore(ctx context.Context, env *scenario.Env) (_ *scenario.Plan, err error) {
	l, plan, err := newLab(ctx, env)
	if plan != nil || err != nil {
		return plan, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	plan = &scenario.Plan{Close: l.Close, Notes: []string{
		"faults-served of criu-lazy comes from one restore apart, with a log of each fault, which slows it down.",
	}}
	wanted := slices.DeleteFunc(sizes(env), func(s size) bool { return !s.wanted(env) })
	for i := range wanted {
		if err := wanted[i].add(ctx, env, l, plan); err != nil {
			return nil, fmt.Errorf("%s: %w", wanted[i].workload, err)
		}
	}
	if err := l.Prepare(ctx, restoreModes...); err != nil {
		return nil, err
	}
	for i := range wanted {
		if err := learnAndPack(ctx, l, wanted[i].frozen); err != nil {
			return nil, fmt.Errorf("working set of %s: %w", wanted[i].workload, err)
		}
	}
	return plan, nil
}

// wanted reports whether any trial of the size is.
func (s *size) wanted(env *scenario.Env) bool {
	return slices.ContainsFunc(s.caches, func(c lab.Cache) bool {
		return c == lab.Dropped && env.Wants(s.params(c), diskReader) || slices.ContainsFunc(restoreModes, func(m lab.Mode) bool { return env.Wants(s.params(c), string(m)) })
	})
}

// add freezes the workload and adds its trials.
func (s *size) add(ctx context.Context, env *scenario.Env, l *lab.Lab, plan *scenario.Plan) error {
	w, err := lab.FindWorkload(s.workload)
	if err != nil {
		return err
	}
	env.Step(w.Title)
	f, err := l.Freeze(ctx, w)
	if err != nil {
		return err
	}
	s.frozen = f
	if err := l.CountFaults(ctx, f, lab.SameInput); err != nil {
		return err
	}
	for _, cache := range s.caches {
		for _, mode := range restoreModes {
			plan.Trials = append(plan.Trials, scenario.Trial{
				Params: s.params(cache), Subject: string(mode), Group: string(cache),
				Run: func(ctx context.Context) ([]result.Observation, error) {
					r, err := l.Measure(ctx, f, lab.SameInput, mode, cache)
					return observeRun(&r), err
				},
			})
		}
	}
	if slices.Contains(s.caches, lab.Dropped) && env.Wants(s.params(lab.Dropped), diskReader) {
		plan.Trials = append(plan.Trials, readTrial(l, f, s.params(lab.Dropped)))
	}
	return nil
}

// readTrial only reads the images of a frozen container from the disk.
func readTrial(l *lab.Lab, f *lab.Frozen, params result.Params) scenario.Trial {
	return scenario.Trial{
		Params: params, Subject: diskReader, Group: string(lab.Dropped),
		Run: func(ctx context.Context) ([]result.Observation, error) {
			took, n, err := l.ReadImages(ctx, f)
			return []result.Observation{one(readTime, float64(took)), one(bytesRead, float64(n))}, err
		},
	}
}

// observeRun returns what a run says of each metric that it has.
func observeRun(r *lab.Run) []result.Observation {
	out := []result.Observation{one(toRunning, nanoseconds(r.ToRunning)), one(bytesRead, float64(r.BytesRead))}
	if r.ToFirstResponse != nil {
		out = append(out, one(firstResponse, nanoseconds(*r.ToFirstResponse)))
	}
	if r.WarmCall != nil {
		out = append(out, one(warmCall, nanoseconds(*r.WarmCall)))
	}
	if r.FaultsServed != nil {
		out = append(out, one(faultsServed, float64(*r.FaultsServed)))
	}
	return out
}

// deriveOverheads adds the overhead of each repetition: its first response, less its W, less the median floor of the setting.
func deriveOverheads(d *result.Document, name string) {
	for _, first := range d.Series {
		if first.Scenario != name || first.Name != firstResponse.Name {
			continue
		}
		w := d.Find(name, first.Params, first.Subject, warmCall.Name)
		floor := d.Find(name, first.Params, string(lab.Floor), toRunning.Name)
		if w == nil || floor == nil {
			continue
		}
		least := result.Median(floor.Samples)
		for i, v := range first.Samples {
			d.Add(name, first.Params, first.Subject, []result.Observation{one(overhead, v-w.Samples[i]-least)})
		}
	}
}
