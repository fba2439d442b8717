package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"thaw/checkpoint"
	"thaw/control"
)

// mode is a way to start the container. Its methods are safe for concurrent use.
type mode interface {
	// restore makes the container run; the clock is on. It sets t.server and t.listening if it has a memory server, also
	// where it fails afterwards.
	restore(ctx context.Context, t *trial) error
}

// server brings the memory of one container.
type server interface {
	// pid returns the number of the server's process, 0 if there is none.
	pid() int
	// served returns how many faults have been resolved so far, nil if nobody counts them.
	served(ctx context.Context) (*uint64, error)
	// settle waits until the process has all its memory.
	settle(ctx context.Context) error
	// close ends what is left of the server once the container is gone.
	close() error
}

// Prepare brings everything that was frozen into the page store, if a mode needs it, and starts the servers that the
// modes share: a single thawd serves all restores of a mode. Nothing can be frozen afterwards.
func (l *Lab) Prepare(ctx context.Context, modes ...Mode) error {
	for _, name := range modes {
		if l.modes[name] != nil {
			continue
		}
		m, err := l.mode(ctx, name)
		if err != nil {
			return err
		}
		l.modes[name] = m
	}
	return nil
}

func (l *Lab) mode(ctx context.Context, name Mode) (mode, error) {
	switch name {
	case Cold:
		return cold{}, nil
	case CRIUEager:
		return eager{}, nil
	case CRIULazy:
		return criuLazy{}, nil
	case Thaw:
		d, err := l.startThawd(ctx, "thawd", "--record-share", "0")
		return &thawMode{thawd: d, stream: control.StreamAll, mapped: true}, err
	case ThawBlind:
		d, err := l.startThawd(ctx, "thawd-blind", "--record-share", "0")
		return &thawMode{thawd: d, stream: control.StreamAll, mapped: true, use: control.WorkingSetIgnored}, err
	case ThawSet, ThawSetCopied:
		d, err := l.startThawd(ctx, string(name), "--record-share", "0")
		return &thawMode{thawd: d, stream: control.StreamAll, mapped: name == ThawSet}, err
	case Floor:
		// A thawd that brings nothing before it is asked: what is measured is the restore alone.
		d, err := l.startThawd(ctx, "thawd-floor", "--read-ahead", "0", "--record-share", "0")
		return &thawMode{thawd: d, stream: control.StreamNone, use: control.WorkingSetIgnored}, err
	}
	return nil, fmt.Errorf("no mode is called %q", name)
}

// noServer is that of containers that need none.
type noServer struct{}

func (noServer) pid() int                                { return 0 }
func (noServer) served(context.Context) (*uint64, error) { return nil, nil }
func (noServer) settle(context.Context) error            { return nil }
func (noServer) close() error                            { return nil }

// cold starts the container anew.
type cold struct{}

func (cold) restore(ctx context.Context, t *trial) error {
	t.greets = true
	return t.run(ctx)
}

// eager restores with all memory read before the process runs.
type eager struct{}

func (eager) restore(ctx context.Context, t *trial) error {
	return t.restore(ctx, t.frozen.images, t.work, false)
}

// criuLazy restores with CRIU's own lazy-pages server. The server is made for one restore and ends with it, so its start
// is a part of the restore.
type criuLazy struct {
	debug bool // have the server log each fault
}

func (m criuLazy) restore(ctx context.Context, t *trial) error {
	daemon, err := t.lab.tools.StartLazyPages(ctx, checkpoint.LazyPagesOptions{Images: t.frozen.images, Work: t.work, Debug: m.debug})
	if err != nil {
		return err
	}
	s := &criuServer{daemon: daemon, faults: t.frozen.faults[t.input]}
	if m.debug {
		s.log = filepath.Join(t.work, checkpoint.LazyPagesLog)
	}
	t.server, t.listening = s, time.Now()
	return t.restore(ctx, t.frozen.images, t.work, true)
}

// criuServer is a run of CRIU's own server.
type criuServer struct {
	daemon *checkpoint.LazyPages // nil once it has ended
	log    string                // path of a log that tells of each fault, empty if there is none
	faults *uint64               // how many faults are served until the first response, as another run has shown
}

func (s *criuServer) pid() int { return s.daemon.PID() }

// served counts the faults in the log where there are any. Logging slows CRIU down, so it is done in a run apart, and
// that run's number stands for all.
func (s *criuServer) served(context.Context) (*uint64, error) {
	if s.log == "" {
		return s.faults, nil
	}
	log, err := os.ReadFile(s.log)
	if err != nil {
		return nil, err
	}
	n := uint64(bytes.Count(log, []byte("#PF at ")))
	return &n, nil
}

// settle waits for the server's end, which comes when all pages are in place.
func (s *criuServer) settle(ctx context.Context) error {
	daemon := s.daemon
	s.daemon = nil
	return daemon.Wait(ctx)
}

func (s *criuServer) close() error {
	if s.daemon == nil {
		return nil
	}
	daemon := s.daemon
	s.daemon = nil
	return daemon.Stop()
}

// CountFaults restores once with CRIU's own server and lets it log its faults, off the record. Their number is told with
// all further runs in the mode [CRIULazy] with this input.
func (l *Lab) CountFaults(ctx context.Context, f *Frozen, input Input) error {
	return l.step("count the faults of CRIU's own server", func() (string, error) {
		r, err := l.measure(ctx, f, criuLazy{debug: true}, Run{Mode: CRIULazy, Cache: Warm, Input: input})
		if err != nil {
			return "", err
		}
		f.faults[input] = r.FaultsServed
		return fmt.Sprintf("%d faults until the first response", *r.FaultsServed), nil
	})
}
