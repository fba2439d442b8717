package main

import (
	"context"
	"fmt"
	"slices"

	"thaw/bench/demo/internal/report"
	"thaw/bench/host"
	"thaw/bench/lab"
	"thaw/checkpoint"
)

// plan is what to run.
type plan struct {
	workload lab.Workload
	input    lab.Input
	modes    []lab.Mode
	rounds   int // of each mode in each cache state
}

// goals are the figures that the demo is to reach, by workload.
var goals = map[string]report.Goals{
	"minilm": {ColdToThaw: map[lab.Cache]float64{lab.Warm: 10, lab.Dropped: 5}, ThawToEager: 0.5, ThawToLazy: 0.6},
	"large":  {ThawToEager: 0.4, ThawToLazy: 0.5},
}

// measure freezes the workload, runs all modes, and returns the report. Answers that differ are an error.
func measure(ctx context.Context, l *lab.Lab, p *plan, config *lab.Config, show *progress) (*report.Report, error) {
	f, err := l.Freeze(ctx, p.workload)
	if err != nil {
		return nil, err
	}
	if slices.Contains(p.modes, lab.CRIULazy) {
		if err := l.CountFaults(ctx, f, p.input); err != nil {
			return nil, err
		}
	}
	if err := l.Prepare(ctx, p.modes...); err != nil {
		return nil, err
	}
	h, err := describeHost(ctx, config)
	if err != nil {
		return nil, err
	}
	runs, err := p.run(ctx, l, f, show)
	if err != nil {
		return nil, err
	}
	summary := report.Summarize(p.workload.Title, f.Snapshot, runs, goals[p.workload.Name])
	return &report.Report{Runs: runs, Summary: summary, Host: h}, nil
}

// run runs all modes in both cache states, round by round, so that what changes on the machine over time meets all
// modes alike. Each round begins with another mode, for the same reason.
func (p *plan) run(ctx context.Context, l *lab.Lab, f *lab.Frozen, show *progress) ([]report.Run, error) {
	var runs []report.Run
	total := p.rounds * len(p.modes) * len(lab.Caches())
	for round := range p.rounds {
		for _, cache := range lab.Caches() {
			first := round % len(p.modes)
			for _, mode := range slices.Concat(p.modes[first:], p.modes[:first]) {
				r, err := l.Measure(ctx, f, p.input, mode, cache)
				if err != nil {
					return nil, fmt.Errorf("%s, %s cache, round %d: %w", mode, cache, round+1, err)
				}
				runs = append(runs, report.Run{Run: r, Round: round + 1})
				show.run(len(runs), total, &r)
			}
		}
	}
	return runs, nil
}

// describeHost returns what the runs are made with.
func describeHost(ctx context.Context, config *lab.Config) (report.Host, error) {
	tools := &checkpoint.Tools{CRIU: config.CRIU, Runc: config.Runc}
	criu, err := tools.CRIUVersion(ctx)
	if err != nil {
		return report.Host{}, err
	}
	runc, err := tools.RuncVersion(ctx)
	if err != nil {
		return report.Host{}, err
	}
	h, err := host.Describe(ctx, config.Dir, criu)
	return report.Host{
		CPU: h.CPU, Cores: h.Cores, Memory: h.Memory, Kernel: h.Kernel, OS: h.OS, FileSystem: h.FileSystem, CRIU: h.CRIU, Runc: runc,
		Go: h.Go, Commit: h.Commit, Date: h.Date, Busy: h.Busy,
	}, err
}
