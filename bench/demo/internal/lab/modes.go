package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"thaw/bench/demo/internal/report"
	"thaw/checkpoint"
	"thaw/control"
)

// mode is a way to start the container. A mode is used for one trial at a time.
type mode interface {
	name() report.Mode
	// restore makes the container run; the clock is on. It sets t.listening if it starts a memory server.
	restore(ctx context.Context, t *trial) error
	// served returns how many faults the memory server has resolved so far, nil if there is no server. f are the kernel's
	// counts for the process.
	served(ctx context.Context, t *trial, f faults) (*uint64, error)
	// server returns the number of the memory server's process, 0 if there is none.
	server() int
	// settle waits until the process has all its memory.
	settle(ctx context.Context, t *trial) error
	// cleanup ends what restore has started besides the container, which is gone by then. It is called in any case.
	cleanup(t *trial) error
}

// modes returns the modes to run, and prepares what they share.
func (l *Lab) modes(ctx context.Context) ([]mode, error) {
	var all []mode
	for _, name := range l.config.Modes {
		m, err := l.mode(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func (l *Lab) mode(ctx context.Context, name report.Mode) (mode, error) {
	switch name {
	case report.Cold:
		return cold{}, nil
	case report.CRIUEager:
		return eager{}, nil
	case report.CRIULazy:
		m := &criuLazy{}
		err := l.step("count the faults of CRIU's own server", func() (string, error) { return l.countFaults(ctx, m) })
		return m, err
	case report.Thaw:
		d, err := l.startThawd(ctx, "thawd")
		return &thawMode{thawd: d, called: report.Thaw, stream: control.StreamAll}, err
	case report.Floor:
		// A thawd that brings nothing before it is asked: what is measured is the restore alone.
		d, err := l.startThawd(ctx, "thawd-floor", "--read-ahead", "0")
		return &thawMode{thawd: d, called: report.Floor, stream: control.StreamNone}, err
	}
	return nil, fmt.Errorf("no mode is called %q", name)
}

// serverless is embedded in modes that start nothing but the container.
type serverless struct{}

func (serverless) served(context.Context, *trial, faults) (*uint64, error) { return nil, nil }
func (serverless) server() int                                             { return 0 }
func (serverless) settle(context.Context, *trial) error                    { return nil }
func (serverless) cleanup(*trial) error                                    { return nil }

// cold starts the container anew.
type cold struct{ serverless }

func (cold) name() report.Mode { return report.Cold }

func (cold) restore(ctx context.Context, t *trial) error {
	t.greets = true
	return t.run(ctx)
}

// eager restores with all memory read before the process runs.
type eager struct{ serverless }

func (eager) name() report.Mode { return report.CRIUEager }

func (eager) restore(ctx context.Context, t *trial) error {
	return t.restore(ctx, t.lab.images, t.work, false)
}

// criuLazy restores with CRIU's own lazy-pages server. The server is made for one restore and ends with it, so its start
// is a part of the restore.
type criuLazy struct {
	debug  bool                  // have the server log each fault
	faults uint64                // how many it served when it was asked to log them
	daemon *checkpoint.LazyPages // nil when none runs
}

func (*criuLazy) name() report.Mode { return report.CRIULazy }

func (m *criuLazy) restore(ctx context.Context, t *trial) error {
	var err error
	m.daemon, err = t.lab.tools.StartLazyPages(ctx, checkpoint.LazyPagesOptions{
		Images: t.lab.images, Work: t.work, Debug: m.debug,
	})
	if err != nil {
		return err
	}
	t.listening = time.Now()
	return t.restore(ctx, t.lab.images, t.work, true)
}

// served counts the faults in the log where there are any. Logging slows CRIU down, so it is done in a run apart, and
// that run's number stands for all.
func (m *criuLazy) served(_ context.Context, t *trial, _ faults) (*uint64, error) {
	if m.debug {
		log, err := os.ReadFile(filepath.Join(t.work, checkpoint.LazyPagesLog))
		if err != nil {
			return nil, err
		}
		m.faults = uint64(bytes.Count(log, []byte("#PF at ")))
	}
	return &m.faults, nil
}

// countFaults restores once with a server that logs, off the record.
func (l *Lab) countFaults(ctx context.Context, m *criuLazy) (string, error) {
	m.debug = true
	defer func() { m.debug = false }()
	_, err := l.measure(ctx, m, report.Warm)
	return fmt.Sprintf("%d faults until the first response", m.faults), err
}

func (m *criuLazy) server() int { return m.daemon.PID() }

// settle waits for the server's end, which comes when all pages are in place.
func (m *criuLazy) settle(context.Context, *trial) error {
	daemon := m.daemon
	m.daemon = nil
	return daemon.Wait()
}

func (m *criuLazy) cleanup(*trial) error {
	if m.daemon == nil {
		return nil
	}
	daemon := m.daemon
	m.daemon = nil
	return daemon.Stop()
}
