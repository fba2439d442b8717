package scenario

import (
	"context"

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
	// Charts are the pictures that show it best.
	Charts []result.Chart
	// Goals are the figures to reach.
	Goals []Goal
	// Prepare makes the plan, and what its trials share.
	Prepare func(ctx context.Context, env *Env) (*Plan, error)
}

// A Plan is what there is to run of a scenario.
type Plan struct {
	Trials []Trial
	// Notes say what was left out, and why.
	Notes []string
	// Close releases what the trials share. nil if that is nothing.
	Close func() error
}

// A Trial is a subject in one setting. Its Run is called once for each repetition, never twice at a time.
type Trial struct {
	Params  result.Params
	Subject string
	Run     func(ctx context.Context) ([]result.Observation, error)
}

// name is what progress and errors call the trial.
func (t *Trial) name() string {
	if len(t.Params) == 0 {
		return t.Subject
	}
	return t.Params.String() + "/" + t.Subject
}
