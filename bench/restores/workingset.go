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

// The metrics of working sets.
var (
	// faultsLeft is how many pages were still waited for until the first response, as a share of the pages that are touched by then.
	faultsLeft = result.Metric{Name: "faults-left", Unit: "%"}
	// unusedPages is the share of a set's pages that a restore did not touch.
	unusedPages = result.Metric{Name: "unused", Unit: "%"}
	// touchedPages is how many pages of the image a restore touched until the first response.
	touchedPages = result.Metric{Name: "touched", Unit: "pages"}
	// setPages is how many pages the set brings, setGrowth that over those that the largest single run touched.
	setPages  = result.Metric{Name: "set", Unit: "pages"}
	setGrowth = result.Metric{Name: "growth", Unit: "ratio"}
)

const (
	// learnRuns is from how many restores a set is learned that is then measured.
	learnRuns = 3
	// manyRuns is how many restores the set that should not grow has learned from, with both inputs in turn.
	manyRuns = 20
	// warmRestores is how many restores a repetition times where the page cache is warm: they differ by more than is asked about, and take
	// little time.
	warmRestores = 3
	// recorded is the subject that is a recording, and not a restore that is timed.
	recorded = "recorded"
)

func workingSetScenario() scenario.Scenario {
	side := func(subject lab.Mode) scenario.Side {
		return scenario.Side{Subject: string(subject), Metric: overhead.Name, Figure: result.Middle}
	}
	beforeRunning := scenario.Side{Subject: string(lab.Floor), Metric: toRunning.Name, Figure: result.Middle}
	// It is of use where nearly all of the images are needed: the function large.
	disk := &scenario.Limit{
		Of: scenario.Side{Subject: diskReader, Metric: readTime.Name, Figure: result.Middle}, Best: true, Less: &beforeRunning,
		Is: "the least time to read all images from the disk, in order, by one thread, less what can pass before the process runs (the floor's to-running)",
	}
	over := func(c result.Params, each []string, base lab.Mode, want float64, is string) scenario.Goal {
		floor := side(base)
		return scenario.Goal{Name: "overhead over " + string(base) + "'s", Case: c, Each: each, Ours: side(lab.ThawSet), Floor: &floor, FloorIs: is, Want: want}
	}
	bound := func(name string, c result.Params, subject, metric string, want float64) scenario.Goal {
		return scenario.Goal{Name: name, Case: c, Each: []string{"function"}, Ours: scenario.Side{Subject: subject, Metric: metric, Figure: result.Middle}, Want: want}
	}
	const same = string(lab.SameInput)
	const blind = "the same engine, which knows nothing of what is needed first: first response less W, less the floor"
	const criu = "the same restore by CRIU alone: first response less W, less the floor"
	return scenario.Scenario{
		Name: "working-set",
		Summary: "Five functions in containers, frozen with CRIU and restored until their first response: with a working set that was learned from " +
			"recorded restores with one input, asked for that one and for another; without; and by CRIU alone.",
		Apart: true,
		Charts: []result.Chart{
			{Kind: result.OverParam, Title: "Overhead by function, page cache warm", Metric: overhead.Name, X: "function", Only: result.P("cache", "warm")},
			{Kind: result.OverParam, Title: "Overhead by function, page cache dropped", Metric: overhead.Name, X: "function", Only: result.P("cache", "dropped")},
		},
		Goals: []scenario.Goal{
			bound("pages waited for, of those touched, same input", result.P("input", same), string(lab.ThawSetCopied), faultsLeft.Name, 2),
			bound("pages waited for, of those touched, other input", result.P("input", string(lab.OtherInput)), string(lab.ThawSetCopied), faultsLeft.Name, 10),
			over(result.P("input", same, "cache", "warm"), []string{"function"}, lab.ThawBlind, 0.6, blind),
			limited(over(result.P("input", same, "cache", "dropped"), []string{"function"}, lab.ThawBlind, 0.35, blind), disk),
			over(result.P("input", same), []string{"function", "cache"}, lab.CRIUEager, 0.3, criu),
			over(result.P("input", same), []string{"function", "cache"}, lab.CRIULazy, 0.3, criu),
			bound("pages brought and not touched, of the set", result.P("input", same), recorded, unusedPages.Name, 30),
			bound("set after 20 restores, over the largest run's", result.P("input", "both"), recorded, setGrowth.Name, 1.3),
		},
		Prepare: prepareWorkingSets,
		Derive:  func(d *result.Document) { deriveOverheads(d, "working-set") },
	}
}

func limited(g scenario.Goal, l *scenario.Limit) scenario.Goal {
	g.Limit = l
	return g
}

// setModes are the modes in which restores are timed.
var setModes = []lab.Mode{lab.ThawSet, lab.ThawBlind, lab.CRIUEager, lab.CRIULazy, lab.Floor}

func prepareWorkingSets(ctx context.Context, env *scenario.Env) (_ *scenario.Plan, err error) {
	l, plan, err := newLab(ctx, env)
	if plan != nil || err != nil {
		return plan, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	plan = &scenario.Plan{Close: l.Close}
	functions := slices.DeleteFunc(functionsOf(env), func(f function) bool { return !f.wanted(env) })
	for i := range functions {
		f := &functions[i]
		env.Step(f.Title)
		if f.frozen, err = l.Freeze(ctx, f.Workload); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if err := l.Prepare(ctx, append(slices.Clone(setModes), lab.ThawSetCopied)...); err != nil {
		return nil, err
	}
	for i := range functions {
		f := &functions[i]
		if err := f.learn(ctx, env, l); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		f.add(plan, l)
	}
	return plan, nil
}

// A function is a workload with what is known of it.
type function struct {
	lab.Workload
	caches []lab.Cache
	modes  []lab.Mode // in which restores are timed
	quick  bool

	frozen  *lab.Frozen
	touched map[lab.Input]uint64 // pages of the image, until the first response
	facts   []fact               // from recordings
}

// A fact is what recordings say, once.
type fact struct {
	input string
	of    []result.Observation
}

func functionsOf(env *scenario.Env) []function {
	if env.Quick {
		w := lab.Functions()
		i := slices.IndexFunc(w, func(w lab.Workload) bool { return w.Name == "webservice" })
		return []function{{Workload: w[i].Small(), caches: []lab.Cache{lab.Warm}, modes: setModes, quick: true}}
	}
	var all []function
	for _, w := range lab.Functions() {
		f := function{Workload: w, caches: lab.Caches(), modes: setModes}
		if w.Name == "large" {
			f.modes = []lab.Mode{lab.ThawSet, lab.ThawBlind, lab.Floor} // the others are in the scenario restore
		}
		all = append(all, f)
	}
	return all
}

func (f *function) params(input lab.Input, cache lab.Cache) result.Params {
	return result.P("function", f.Name, "input", string(input), "cache", string(cache))
}

func (f *function) wanted(env *scenario.Env) bool {
	for _, input := range lab.Inputs() {
		for _, cache := range f.caches {
			for _, mode := range append(slices.Clone(f.modes), lab.ThawSetCopied, recorded) {
				if env.Wants(f.params(input, cache), string(mode)) {
					return true
				}
			}
		}
	}
	return false
}

// learn has the function's working set learned: first from many restores, to see how it grows, and then anew from few with one input, of
// which is seen what the other touches. What it leaves is what restores are timed with.
func (f *function) learn(ctx context.Context, env *scenario.Env, l *lab.Lab) error {
	env.Step("working set of " + f.Title)
	many := scenario.Pick(env, manyRuns, 2)
	var turns []lab.Input
	for i := range many {
		turns = append(turns, lab.Inputs()[i%2])
	}
	runs, err := l.Learn(ctx, f.frozen, turns...)
	if err != nil {
		return err
	}
	var largest uint64
	for _, r := range runs {
		largest = max(largest, r.PagesTouched)
	}
	set, err := l.Pack(ctx, f.frozen)
	if err != nil {
		return err
	}
	f.facts = append(f.facts, fact{"both", []result.Observation{
		one(setPages, float64(set.Must+set.Likely)), one(setGrowth, float64(set.Must+set.Likely)/float64(max(largest, 1))),
	}})
	if err := l.Forget(ctx, f.frozen); err != nil {
		return err
	}
	if _, err := l.Learn(ctx, f.frozen, slices.Repeat([]lab.Input{lab.SameInput}, learnRuns)...); err != nil {
		return err
	}
	// Two more, to compare with: each is compared with the set before it learns from it.
	judged, err := l.Learn(ctx, f.frozen, lab.Inputs()...)
	if err != nil {
		return err
	}
	f.touched = make(map[lab.Input]uint64)
	for i, input := range lab.Inputs() {
		r := judged[i]
		f.touched[input] = r.PagesTouched
		f.facts = append(f.facts, fact{string(input), []result.Observation{
			one(touchedPages, float64(r.PagesTouched)), one(unusedPages, 100*float64(r.Unused)/float64(max(r.Used+r.Unused, 1))),
		}})
	}
	if err := l.Forget(ctx, f.frozen); err != nil {
		return err
	}
	return learnAndPack(ctx, l, f.frozen)
}

// learnAndPack has the working set learned that restores are measured with, from as many recordings as thawd makes of a new snapshot by itself
// before it records but a small share.
func learnAndPack(ctx context.Context, l *lab.Lab, f *lab.Frozen) error {
	if _, err := l.Learn(ctx, f, slices.Repeat([]lab.Input{lab.SameInput}, learnRuns)...); err != nil {
		return err
	}
	_, err := l.Pack(ctx, f)
	return err
}

// add adds the function's trials.
func (f *function) add(plan *scenario.Plan, l *lab.Lab) {
	for _, known := range f.facts {
		plan.Trials = append(plan.Trials, scenario.Trial{
			Params: result.P("function", f.Name, "input", known.input), Subject: recorded, MaxRepetitions: 1,
			Run: func(context.Context) ([]result.Observation, error) { return known.of, nil },
		})
	}
	for _, cache := range f.caches {
		for _, mode := range f.modes {
			f.time(plan, l, lab.SameInput, mode, cache)
		}
	}
	if f.Name == "large" {
		plan.Trials = append(plan.Trials, readTrial(l, f.frozen, f.params(lab.SameInput, lab.Dropped)))
	}
	f.time(plan, l, lab.OtherInput, lab.ThawSet, lab.Warm)
	for _, input := range lab.Inputs() {
		plan.Trials = append(plan.Trials, scenario.Trial{
			Params: result.P("function", f.Name, "input", string(input)), Subject: string(lab.ThawSetCopied), Group: string(lab.Warm),
			Run: func(ctx context.Context) ([]result.Observation, error) {
				r, err := l.Measure(ctx, f.frozen, input, lab.ThawSetCopied, lab.Warm)
				if err != nil {
					return nil, err
				}
				return append(observeRun(&r), one(faultsLeft, 100*float64(*r.Demanded)/float64(max(f.touched[input], 1)))), nil
			},
		})
	}
}

// time adds a trial that times restores.
func (f *function) time(plan *scenario.Plan, l *lab.Lab, input lab.Input, mode lab.Mode, cache lab.Cache) {
	plan.Trials = append(plan.Trials, scenario.Trial{
		Params: f.params(input, cache), Subject: string(mode), Group: string(cache),
		Run: func(ctx context.Context) (all []result.Observation, err error) {
			n := 1
			if cache == lab.Warm && f.Name != "large" && !f.quick {
				n = warmRestores
			}
			for range n {
				r, err := l.Measure(ctx, f.frozen, input, mode, cache)
				if err != nil {
					return nil, err
				}
				all = append(all, observeRun(&r)...)
			}
			return all, nil
		},
	})
}
