package suite

import (
	"context"
	"errors"
	"fmt"

	"thaw/restore"
)

// An engine is a session of ours that serves processes. Close ends it.
type engine struct {
	*restore.Session
	cancel context.CancelFunc
	ended  chan error
}

// startEngine starts a session and gives it the process. Its stream, if it has one, begins at once.
func startEngine(ctx context.Context, p *process, l *restore.Layout, o restore.Options) (*engine, error) {
	session, err := restore.NewSession(&o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	e := &engine{Session: session, cancel: cancel, ended: make(chan error, 1)}
	go func() { e.ended <- session.Run(ctx) }()
	fd, err := p.takeFD()
	if err == nil {
		pidfd, perr := p.DupPIDFD()
		if err = perr; err == nil {
			err = session.Add(restore.Process{ID: 1, FD: fd, PIDFD: pidfd, Layout: l})
		}
	}
	if err != nil {
		session.Abort(err)
		<-e.ended
		cancel()
		return nil, fmt.Errorf("serve process %d: %w", p.PID(), err)
	}
	session.Registered()
	return e, nil
}

// wait waits until the session ends by itself: nothing is missing in its process any more, or it is gone.
func (e *engine) wait() error {
	err := <-e.ended
	e.ended <- err
	return err
}

// Close ends the session. Processes that still miss memory are killed.
func (e *engine) Close() error {
	e.cancel()
	if err := e.wait(); err != nil && !errors.Is(err, restore.ErrKilled) {
		return err
	}
	return nil
}
