package instance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/function/runner"
	"thaw/pagestore"
)

// State says where an instance is in its life; the package's documentation has a picture.
type State string

const (
	StateStarted  State = "started"  // the runner runs, and has nothing loaded
	StateLoaded   State = "loaded"   // it has its object
	StatePrepared State = "prepared" // it waits to be frozen, or booted
	StateFrozen   State = "frozen"   // it is in the store, and gone. An end state
	StateServing  State = "serving"  // it takes calls
	StateStopped  State = "stopped"  // it has ended, as it was told. An end state
	StateClosed   State = "closed"   // nothing is left of it. An end state
)

// ErrState is returned by methods that are for another state.
var ErrState = errors.New("instance is in another state")

// Instance is one container of a function. It is safe for concurrent use; but of Import, Load, Prepare, Freeze, Boot and Stop one is called
// at a time.
type Instance struct {
	shell     *shell
	container *checkpoint.Container
	from      *pagestore.Name // what it was restored from
	session   string          // thawd's, of the restore; empty if there was none
	marks     *marks          // of a restore that is recorded
	timings   Timings
	warnings  []string

	closing sync.Mutex // held while the instance is closed

	mu sync.Mutex
	// protected by mu
	state State
	fresh bool // it has loaded its object itself, and not got it with a snapshot
}

// Timings say how long the making of an instance took. Those that do not apply are zero.
type Timings struct {
	Shell   time.Duration // folders, overlay, network namespace, bundle; while thawd made its session, for a restored one
	Session time.Duration // thawd's session
	Runtime time.Duration // runc, until the process runs
	Total   time.Duration
}

// ID returns the instance's name: the container's, and by default its host name.
func (i *Instance) ID() string { return i.shell.id }

// PID returns the number of the runner in our pid namespace.
func (i *Instance) PID() int { return i.container.PID }

// Restored reports whether the instance comes from a snapshot.
func (i *Instance) Restored() bool { return i.from != nil }

// Session returns the id of thawd's session that brings its memory, empty if it was not restored.
func (i *Instance) Session() string { return i.session }

// Lost returns what thawd knows of memory that the instance was to have and cannot have: nil if it knows of none, or the instance was not
// restored. The error wraps [ErrNoThawd] if the thawd that was to bring it is gone, which ends an instance, too.
func (i *Instance) Lost(ctx context.Context) error {
	if i.session == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, thawdPatience)
	defer cancel()
	s, err := i.shell.host.options.Thawd.Session(ctx, i.session)
	switch {
	case errors.Is(err, control.CodeUnavailable), errors.Is(err, control.CodeNotFound):
		return fmt.Errorf("%w that knows of its memory", ErrNoThawd)
	case err != nil:
		return nil // nothing is known
	case s.FailedPage != nil:
		return fmt.Errorf("page %d of its memory could not be had: %s", s.FailedPage.Page, s.FailedPage.Reason)
	case s.State == control.StateFailed:
		return fmt.Errorf("its memory could not be brought: %s", s.Error)
	}
	return nil
}

// Timings returns how long it took to make the instance.
func (i *Instance) Timings() Timings { return i.timings }

// Warnings say what a restored runner may miss on this host, such as features of the CPU.
func (i *Instance) Warnings() []string { return i.warnings }

// Addr returns its address in the network, not valid while it has none.
func (i *Instance) Addr() netip.Prefix { return i.shell.ns.Addr() }

// Ended is closed when the runner has ended, or cannot be heard any more.
func (i *Instance) Ended() <-chan struct{} { return i.shell.client.Ended() }

// State returns where the instance is in its life. One whose runner has ended without being told so stays where it was.
func (i *Instance) State() State {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state
}

// need returns an error unless the instance is in one of the states.
func (i *Instance) need(what string, states ...State) error {
	now := i.State()
	for _, s := range states {
		if s == now {
			return nil
		}
	}
	return fmt.Errorf("%s instance %s: %w: it is %s", what, i.ID(), ErrState, now)
}

func (i *Instance) move(s State) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state != StateClosed {
		i.state = s
	}
}

// Close ends the instance, whatever it does, and removes all that is left of it. Closing again does nothing.
func (i *Instance) Close() error {
	i.closing.Lock()
	defer i.closing.Unlock()
	if i.State() == StateClosed {
		return nil
	}
	i.move(StateClosed)
	var errs []error
	if i.container != nil {
		errs = append(errs, i.container.Delete(context.Background()))
	}
	return errors.Join(append(errs, i.shell.remove())...)
}

// Log returns the last lines of the runner's log.
func (i *Instance) Log() []string { return i.shell.log.Last() }

// runnerError adds to an error of the runner's what the kernel knows of its end.
func (i *Instance) runnerError(err error) error {
	if ended := (*runner.EndedError)(nil); errors.As(err, &ended) && i.outOfMemory() {
		return fmt.Errorf("%w (limit: %d MiB): %w", ErrOutOfMemory, i.shell.spec.Limits.MemoryBytes>>20, err)
	}
	return err
}
