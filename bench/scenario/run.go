package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"time"

	"thaw/bench/result"
)

// Progress is told how far a run is. Calls come from one goroutine.
type Progress interface {
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

func (silent) Trial(string, string, int, int, int) {}

// ErrNothing is returned if the filter leaves nothing to run.
var ErrNothing = errors.New("no trial matches the filter")

// Run runs the scenarios, one after the other, and returns the document without its host.
func Run(ctx context.Context, scenarios []Scenario, opts *Options) (*result.Document, error) {
	o := *opts
	o.setDefaults()
	d := &result.Document{Settings: result.Settings{Repetitions: o.Repetitions, Quick: o.Quick}}
	if o.Filter != nil {
		d.Settings.Filter = o.Filter.String()
	}
	for i := range scenarios {
		s := &scenarios[i]
		d.Settings.Scenarios = append(d.Settings.Scenarios, s.Name)
		if err := runScenario(ctx, s, &o, d); err != nil {
			return nil, fmt.Errorf("scenario %s: %w", s.Name, err)
		}
	}
	if len(d.Series) == 0 {
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

func runScenario(ctx context.Context, s *Scenario, o *Options, d *result.Document) (err error) {
	start := time.Now()
	dir, err := os.MkdirTemp(o.Dir, "uffdbench-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	plan, err := s.Prepare(ctx, &Env{Quick: o.Quick, Dir: dir, CRIU: o.CRIU})
	if err != nil {
		return err
	}
	if plan.Close != nil {
		defer func() { err = errors.Join(err, plan.Close()) }()
	}
	if err := repeat(ctx, s.Name, matching(plan.Trials, o.Filter), o, d); err != nil {
		return err
	}
	d.Scenarios = append(d.Scenarios, result.Scenario{
		Name: s.Name, Summary: s.Summary, Charts: s.Charts, Notes: plan.Notes, Seconds: time.Since(start).Seconds(),
	})
	return nil
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
func repeat(ctx context.Context, scenario string, trials []Trial, o *Options, d *result.Document) error {
	n, total := 0, len(trials)*o.Repetitions
	for rep := range o.Repetitions {
		for _, i := range order(len(trials), rep) {
			t := &trials[i]
			n++
			o.Progress.Trial(scenario, t.name(), rep+1, n, total)
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

// order returns the numbers below n: as they are at first, so that reports list the trials as their plan does, and shuffled
// for each further repetition. What a trial leaves behind, such as free memory that the host has not taken back yet, helps or
// hurts the one after it; that must not always be the same one.
func order(n, rep int) []int {
	if rep > 0 {
		return rand.New(rand.NewPCG(1, uint64(rep))).Perm(n)
	}
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
