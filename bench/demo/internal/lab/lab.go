package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"thaw/bench/demo/internal/report"
	"thaw/checkpoint"
)

// Config says what to measure, and with what.
type Config struct {
	Workload Workload
	// Rounds is how often each mode runs in each cache state.
	Rounds int
	// Modes are the modes to run, all if empty.
	Modes []report.Mode
	// Dir is the folder for images, store and logs, absolute. Its subfolder "work" belongs to the lab and is removed.
	Dir string
	// Examples is the folder with the workloads' scripts, Rootfs the root file system with their Python; both absolute.
	Examples, Rootfs string
	// CRIU and Runc are the tools' paths, empty for those in PATH.
	CRIU, Runc string
	// Thaw and Thawd are the paths of our programs.
	Thaw, Thawd string
	// Progress hears what is going on. Nil: nobody does.
	Progress Progress
}

// Progress hears what is going on. It is called by one goroutine.
type Progress interface {
	// Step begins a step that may take long; the function that it returns ends it, with a result for people.
	Step(name string) (done func(result string, err error))
	// Run tells of a measured run, the n-th of total.
	Run(n, total int, r report.Run)
}

// Lab holds one frozen container and what is needed to start it in any mode. Not safe for concurrent use.
type Lab struct {
	config   Config
	tools    *checkpoint.Tools
	work     string // folder for everything that ends with the lab
	images   string // CRIU's images of the frozen container
	started  int    // containers so far, to name them apart
	want     *answer
	snapshot report.Snapshot
	servers  []*thawd
}

// New prepares a lab, and removes what a lab that was killed has left in the same folder. The caller closes it.
func New(ctx context.Context, config Config) (*Lab, error) {
	if len(config.Modes) == 0 {
		config.Modes = report.Modes()
	}
	if config.Progress == nil {
		config.Progress = quiet{}
	}
	work := filepath.Join(config.Dir, "work")
	l := &Lab{
		config: config,
		work:   work,
		images: filepath.Join(work, "images"),
		tools:  &checkpoint.Tools{CRIU: config.CRIU, Runc: config.Runc, StateDir: filepath.Join(work, "state")},
	}
	if err := l.clear(ctx); err != nil {
		return nil, fmt.Errorf("clear %s: %w", work, err)
	}
	if err := os.MkdirAll(l.packs(), 0o700); err != nil {
		return nil, err
	}
	return l, nil
}

// Close ends what runs and removes everything but the report.
func (l *Lab) Close() error {
	var errs []error
	for _, d := range l.servers {
		errs = append(errs, d.stop())
	}
	return errors.Join(append(errs, l.clear(context.Background()))...)
}

// clear deletes all containers of this lab's folder, and the folder.
func (l *Lab) clear(ctx context.Context) error {
	ids, err := l.tools.Containers()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		c, err := l.tools.Container(ctx, id)
		if err == nil {
			err = c.Delete(ctx)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(checkpoint.UnmountBelow(l.work), checkpoint.RemoveAll(l.work))
}

// Measure freezes the workload, runs all modes, and returns the report. Answers that differ are an error.
func (l *Lab) Measure(ctx context.Context) (*report.Report, error) {
	host, err := describeHost(ctx, l.tools, l.config.Dir)
	if err != nil {
		return nil, err
	}
	if err := l.step("first cold start, for the answer that all others must give", func() (string, error) { return l.learn(ctx) }); err != nil {
		return nil, err
	}
	if err := l.step("freeze", func() (string, error) { return l.freeze(ctx) }); err != nil {
		return nil, err
	}
	modes, err := l.modes(ctx)
	if err != nil {
		return nil, err
	}
	if host.Busy, err = measureBusy(ctx, time.Second); err != nil {
		return nil, err
	}
	runs, err := l.rounds(ctx, modes)
	if err != nil {
		return nil, err
	}
	w := l.config.Workload
	return &report.Report{Runs: runs, Summary: report.Summarize(w.Title, l.snapshot, runs, w.Goals), Host: host}, nil
}

// step runs f as a step that the progress hears of.
func (l *Lab) step(name string, f func() (result string, err error)) error {
	done := l.config.Progress.Step(name)
	result, err := f()
	done(result, err)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// warmUpCalls are answered by the container before it is frozen. A function's first calls set up thread pools, caches
// and the like; a snapshot is taken behind them.
const warmUpCalls = 3

// learn starts the container once and keeps its answer.
func (l *Lab) learn(ctx context.Context) (string, error) {
	t, err := l.newTrial()
	if err != nil {
		return "", err
	}
	defer t.close()
	start := time.Now()
	if err := t.run(ctx); err != nil {
		return "", err
	}
	if err := t.talk.ready(ctx); err != nil {
		return "", err
	}
	ready := time.Since(start)
	l.want, _, err = t.talk.call(ctx, l.config.Workload.Sentences)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("ready after %.1f s, answer %.12s", ready.Seconds(), l.want.SHA256), t.close()
}

// freeze starts the container, lets it answer a few times, and freezes it.
func (l *Lab) freeze(ctx context.Context) (string, error) {
	t, err := l.newTrial()
	if err != nil {
		return "", err
	}
	defer t.close()
	if err := t.run(ctx); err != nil {
		return "", err
	}
	if err := t.talk.ready(ctx); err != nil {
		return "", err
	}
	for range warmUpCalls {
		a, _, err := t.talk.call(ctx, l.config.Workload.Sentences)
		if err == nil {
			err = a.compare(l.want)
		}
		if err != nil {
			return "", err
		}
	}
	start := time.Now()
	o := checkpoint.DumpOptions{Images: l.images, Work: filepath.Join(l.work, "dump")}
	if err := l.tools.CheckpointContainer(ctx, t.id, o); err != nil {
		return "", err
	}
	l.snapshot.FreezeSeconds = time.Since(start).Seconds()
	l.snapshot.WarmUpCalls = warmUpCalls
	l.snapshot.Request = l.config.Workload.Sentences
	if l.snapshot.ImageBytes, err = diskUsage(l.images); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s of images", report.Bytes(float64(l.snapshot.ImageBytes))), t.close()
}

// quiet is the progress that nobody hears.
type quiet struct{}

func (quiet) Step(string) func(string, error) { return func(string, error) {} }
func (quiet) Run(int, int, report.Run)        {}
