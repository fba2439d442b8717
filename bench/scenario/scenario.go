package scenario

import (
	"context"
	"regexp"

	"thaw/bench/result"
)

// Env is what a scenario has to work with.
type Env struct {
	// Quick asks for the smallest sizes that still do everything: whether it works, not how fast.
	Quick bool
	// Dir is an empty folder on the disk that is to be measured, for stores and files. The runner removes it.
	Dir string
	// CRIU is the path of CRIU; empty if there is none.
	CRIU string

	filter *regexp.Regexp
	step   func(name string)
}

// Wants reports whether a trial of these params and this subject will be run: what only others need can be left out.
func (e *Env) Wants(params result.Params, subject string) bool {
	t := Trial{Params: params, Subject: subject}
	return e.filter == nil || e.filter.MatchString(t.name())
}

// Step tells whoever waits that a step of the preparation begins that may take seconds.
func (e *Env) Step(name string) {
	if e.step != nil {
		e.step(name)
	}
}

// Pick returns full, or quick if the run is to be quick.
func Pick[T any](env *Env, full, quick T) T {
	if env.Quick {
		return quick
	}
	return full
}

// A Scenario is one question put to the engine and its baselines.
type Scenario struct {
	// Name is in lower case, with dashes.
	Name string
	// Summary says in a sentence what is measured.
	Summary string
	// Apart says that the scenario takes long, and is run only if it is named, or quickly.
	Apart bool
	// Charts are the pictures that show it best.
	Charts []result.Chart
	// Goals are the figures to reach.
	Goals []Goal
	// Prepare makes the plan, and what its trials share.
	Prepare func(ctx context.Context, env *Env) (*Plan, error)
	// Derive adds series that follow from those of several trials, when all have run. nil if there are none.
	Derive func(d *result.Document)
}

// A Plan is what there is to run of a scenario.
type Plan struct {
	Trials []Trial
	// Passes is how often all trials are run for each repetition that was asked for: for short ones that come out differently from one
	// time to the next, by where the scheduler has put whom. Default: 1.
	Passes int
	// Notes say what was left out, and why.
	Notes []string
	// LeftOut says that nothing can be run here. The notes say why, and what to do about it.
	LeftOut bool
	// Close releases what the trials share. nil if that is nothing.
	Close func() error
}

// A Trial is a subject in one setting. Its Run is called once for each repetition, never twice at a time.
type Trial struct {
	Params  result.Params
	Subject string
	Run     func(ctx context.Context) ([]result.Observation, error)
	// MaxRepetitions bounds how often a trial that takes long is run; the repetitions that it takes part in are spread over
	// all. 0: no bound.
	MaxRepetitions int
	// Group names trials that need a state which is expensive to reach: in each repetition those of a group are run one after
	// the other, and the groups in another order each time. The same for all by default.
	Group string
}

// repetitions returns how often the trial is run if others are run so many times.
func (t *Trial) repetitions(all int) int {
	if t.MaxRepetitions > 0 {
		return min(all, t.MaxRepetitions)
	}
	return all
}

// takesPart reports whether the trial is run in repetition rep of so many. All are in the first, so that reports list them as
// their plan does.
func (t *Trial) takesPart(rep, all int) bool {
	n := t.repetitions(all)
	return rep*n%all < n
}

// name is what progress and errors call the trial.
func (t *Trial) name() string {
	if len(t.Params) == 0 {
		return t.Subject
	}
	return t.Params.String() + "/" + t.Subject
}
