package lab

import (
	"context"
	"fmt"
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
		return &criuLazy{}, nil
	case report.Thaw:
		if err := l.startThawd(ctx); err != nil {
			return nil, err
		}
		return &thawMode{thawd: l.thawd, called: report.Thaw, stream: control.StreamAll}, nil
	case report.Floor:
		if err := l.startThawd(ctx); err != nil {
			return nil, err
		}
		return &thawMode{thawd: l.thawd, called: report.Floor, stream: control.StreamNone}, nil
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
	daemon *checkpoint.LazyPages // nil when none runs
}

func (*criuLazy) name() report.Mode { return report.CRIULazy }

func (m *criuLazy) restore(ctx context.Context, t *trial) error {
	var err error
	if m.daemon, err = t.lab.tools.StartLazyPages(ctx, t.lab.images, t.work); err != nil {
		return err
	}
	t.listening = time.Now()
	return t.restore(ctx, t.lab.images, t.work, true)
}

// served takes the process's major faults: CRIU counts none unless it logs each, which would slow it down.
func (m *criuLazy) served(_ context.Context, _ *trial, f faults) (*uint64, error) {
	return &f.major, nil
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
