package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"thaw/bench/demo/internal/report"
)

// rounds runs all modes in both cache states, round by round, so that what changes on the machine over time meets all
// modes alike. Each round begins with another mode, for the same reason.
func (l *Lab) rounds(ctx context.Context, modes []mode) ([]report.Run, error) {
	var runs []report.Run
	total := l.config.Rounds * len(modes) * len(report.Caches())
	for round := range l.config.Rounds {
		for _, cache := range report.Caches() {
			if cache == report.Warm {
				if err := l.step("read all files into the page cache", func() (string, error) { return l.warm(ctx) }); err != nil {
					return nil, err
				}
			}
			first := round % len(modes)
			for _, m := range slices.Concat(modes[first:], modes[:first]) {
				r, err := l.measure(ctx, m, cache)
				if err != nil {
					return nil, fmt.Errorf("%s, %s cache, round %d: %w", m.name(), cache, round+1, err)
				}
				r.Round = round + 1
				runs = append(runs, r)
				l.config.Progress.Run(len(runs), total, r)
			}
		}
	}
	return runs, nil
}

// warm reads everything that any mode reads: images, packs, the tools, and the root file system's programs.
func (l *Lab) warm(ctx context.Context) (string, error) {
	n, err := readAll(ctx,
		l.images,
		filepath.Join(l.work, "store"),
		filepath.Join(l.config.Rootfs, "usr"),
		filepath.Dir(l.config.CRIU),
	)
	return report.Bytes(float64(n)), err
}

// warmCalls is how often the request is made again for W, once all memory is there.
const warmCalls = 5

// measure runs one trial.
func (l *Lab) measure(ctx context.Context, m mode, cache report.Cache) (r report.Run, err error) {
	r = report.Run{Mode: m.name(), Cache: cache}
	t, err := l.newTrial()
	if err != nil {
		return r, err
	}
	defer func() {
		// The container first: it must not go on without the server that holds its memory.
		err = errors.Join(err, t.kill(), m.cleanup(t), t.close())
	}()
	if m.name() != report.Floor {
		if err := t.talk.ask(l.config.Workload.Sentences); err != nil {
			return r, err
		}
	}
	if cache == report.Dropped {
		if err := dropCaches(); err != nil {
			return r, err
		}
	}
	read, err := bytesRead()
	if err != nil {
		return r, err
	}

	start := time.Now()
	if err := m.restore(ctx, t); err != nil {
		return r, err
	}
	r.ToRunning = time.Since(start).Seconds()
	if !t.listening.IsZero() {
		r.ServerStart = seconds(t.listening.Sub(start))
	}
	if m.name() != report.Floor {
		if err := l.respond(ctx, m, t, start, &r); err != nil {
			return r, err
		}
	}
	readNow, err := bytesRead()
	r.BytesRead = readNow - read
	if err != nil || m.name() == report.Floor {
		return r, err
	}
	return r, l.warmCalls(ctx, m, t, &r)
}

// respond waits for the first response and notes what it took.
func (l *Lab) respond(ctx context.Context, m mode, t *trial, start time.Time, r *report.Run) error {
	if t.greets {
		if err := t.talk.ready(ctx); err != nil {
			return err
		}
	}
	a, at, err := t.talk.answer(ctx)
	if err != nil {
		return err
	}
	r.ToFirstResponse = seconds(at.Sub(start))
	f, err := processFaults(t.container.PID)
	if err != nil {
		return err
	}
	r.MinorFaults, r.MajorFaults = f.minor, f.major
	if r.FaultsServed, err = m.served(ctx, t, f); err != nil {
		return err
	}
	if pid := m.server(); pid != 0 {
		memory, err := anonymousMemory(pid)
		if err != nil {
			return err
		}
		if memory > 0 {
			r.ServerMemory = &memory
		}
	}
	r.Answer = a.SHA256
	return a.compare(l.want)
}

// warmCalls waits until the process has all its memory and sets W.
func (l *Lab) warmCalls(ctx context.Context, m mode, t *trial, r *report.Run) error {
	if err := m.settle(ctx, t); err != nil {
		return err
	}
	for range warmCalls {
		a, took, err := t.talk.call(ctx, l.config.Workload.Sentences)
		if err == nil {
			err = a.compare(l.want)
		}
		if err != nil {
			return err
		}
		r.WarmCalls = append(r.WarmCalls, took.Seconds())
	}
	r.WarmCall = report.Median(r.WarmCalls)
	return nil
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}
