package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"thaw/bench/lab"
)

// progress tells a person what is going on: a ticking line for each long step where there is a terminal, a line at its
// end everywhere.
type progress struct {
	w        io.Writer
	terminal bool
}

func newProgress(f *os.File) *progress {
	return &progress{w: f, terminal: term.IsTerminal(int(f.Fd()))}
}

// spinner is the style of the progress bar's moving sign.
const spinner = 14

// Step implements lab.Progress.
func (p *progress) Step(name string) func(string, error) {
	start := time.Now()
	end := func() {}
	if p.terminal {
		end = p.spin(name)
	} else {
		fmt.Fprintf(p.w, "%s ...\n", name)
	}
	return func(result string, err error) {
		end()
		verdict := "done"
		if err != nil {
			verdict = "failed"
		}
		if result != "" {
			result = ": " + result
		}
		fmt.Fprintf(p.w, "%s: %s in %.1f s%s\n", name, verdict, time.Since(start).Seconds(), result)
	}
}

// spin shows a ticking line until the function that it returns is called.
func (p *progress) spin(name string) (end func()) {
	bar := progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(p.w),
		progressbar.OptionSetDescription(name),
		progressbar.OptionSpinnerType(spinner),
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionClearOnFinish(),
	)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = bar.Add(1)
			case <-stop:
				_ = bar.Finish()
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// run tells of a measured run, the n-th of total.
func (p *progress) run(n, total int, r *lab.Run) {
	first := ""
	if r.ToFirstResponse != nil {
		first = fmt.Sprintf(", first response after %.3f s, a warm call takes %.3f s", *r.ToFirstResponse, *r.WarmCall)
	}
	fmt.Fprintf(p.w, "[%*d/%d] %-7s %-10s runs after %.3f s%s\n", len(fmt.Sprint(total)), n, total, r.Cache, r.Mode, r.ToRunning, first)
}
