package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"thaw/bench/scenario"
	"thaw/cmd/internal/cli"
)

// lineEvery is how often progress is told where it cannot be drawn over.
const lineEvery = 5 * time.Second

// progress tells how far a run is: as a bar on a terminal, as a line now and then elsewhere.
type progress struct {
	w        io.Writer
	silent   bool
	scenario string
	bar      *progressbar.ProgressBar
	told     time.Time
}

var _ scenario.Progress = (*progress)(nil)

func newProgress(w io.Writer, silent bool) *progress { return &progress{w: w, silent: silent} }

// Trial implements [scenario.Progress].
func (p *progress) Trial(scenario, name string, repetition, n, total int) {
	if p.silent {
		return
	}
	if scenario != p.scenario {
		p.begin(scenario, total)
	}
	if p.bar != nil {
		// The bar cannot be drawn only if its writer fails, and then there is nobody to tell.
		p.bar.Describe(fmt.Sprintf("%-16s %s", scenario, name))
		_ = p.bar.Set(n - 1)
		return
	}
	if now := time.Now(); now.Sub(p.told) >= lineEvery {
		p.told = now
		fmt.Fprintf(p.w, "%s: repetition %d, trial %d of %d: %s\n", scenario, repetition, n, total, name)
	}
}

// Step implements [scenario.Progress].
func (p *progress) Step(scenario, name string) {
	switch {
	case p.silent:
	case p.bar != nil && scenario == p.scenario:
		p.bar.Describe(fmt.Sprintf("%-16s %s", scenario, name))
	default:
		p.done()
		fmt.Fprintf(p.w, "%s: %s\n", scenario, name)
	}
}

func (p *progress) begin(scenario string, total int) {
	p.done()
	p.scenario, p.told = scenario, time.Time{}
	if cli.IsTerminal(p.w) {
		p.bar = progressbar.NewOptions(total,
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
}

// done clears the bar.
func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
}
