package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"thaw/restore"
	"thaw/restore/guard"
	"thaw/uffd"
)

// guardStart bounds the start of a guard process.
const guardStart = 10 * time.Second

// A Guardian is a guard that is replaced if it dies: the new one holds what the old one held. It is safe for
// concurrent use.
type Guardian struct {
	opts guard.Options
	log  *slog.Logger
	done chan struct{} // closed when watch has ended

	mu     sync.Mutex
	now    *guard.Guard   // protected by mu; nil between two guards
	held   map[*hold]bool // protected by mu
	closed chan struct{}  // closed, with mu held, by Close
}

// A hold is the descriptors of one process.
type hold struct {
	fd      *uffd.FD
	pidfd   *os.File
	name    string
	release func() // protected by Guardian.mu; nil if no guard holds them
}

var _ restore.Guard = (*Guardian)(nil)

// StartGuardian starts a guard process and watches over it until Close.
func StartGuardian(opts *guard.Options, log *slog.Logger) (*Guardian, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Guardian{opts: *opts, log: log, done: make(chan struct{}), held: make(map[*hold]bool), closed: make(chan struct{})}
	now, err := g.start()
	if err != nil {
		return nil, err
	}
	g.now = now
	go g.watch(now)
	return g, nil
}

func (g *Guardian) start() (*guard.Guard, error) {
	ctx, cancel := context.WithTimeout(context.Background(), guardStart)
	defer cancel()
	now, err := guard.Start(ctx, &g.opts)
	if err != nil {
		return nil, fmt.Errorf("start the guard process: %w", err)
	}
	return now, nil
}

// Hold implements [restore.Guard].
func (g *Guardian) Hold(fd *uffd.FD, pidfd *os.File, name string) (release func(), err error) {
	h := &hold{fd: fd, pidfd: pidfd, name: name}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held[h] = true
	if g.now != nil {
		if h.release, err = g.now.Hold(fd, pidfd, name); err != nil && !errors.Is(err, guard.ErrGone) {
			delete(g.held, h)
			return nil, err
		}
	} // else the next guard takes it
	return func() { g.release(h) }, nil
}

func (g *Guardian) release(h *hold) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.held, h)
	if h.release != nil {
		h.release()
	}
}

// watch replaces guards that die.
func (g *Guardian) watch(now *guard.Guard) {
	defer close(g.done)
	for {
		select {
		case <-g.closed:
			return
		case <-now.Done():
		}
		g.log.Error("the guard process has died; starting another", "pid", now.PID())
		g.set(nil)
		_ = now.Close() // reaps it; that it held something is no news
		for now = nil; now == nil; {
			next, err := g.start()
			if err != nil {
				g.log.Error("processes are not guarded", "err", err)
				select {
				case <-g.closed:
					return
				case <-time.After(time.Second):
					continue
				}
			}
			now = next
		}
		g.set(now)
	}
}

// set makes now the guard of everything that is held.
func (g *Guardian) set(now *guard.Guard) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = now
	for h := range g.held {
		h.release = nil
		if now == nil {
			continue
		}
		var err error
		if h.release, err = now.Hold(h.fd, h.pidfd, h.name); err != nil {
			g.log.Error("process is not guarded", "process", h.name, "err", err)
		}
	}
}

// Close ends the guard. No process may be held any more: a process that still is gets killed.
func (g *Guardian) Close() error {
	g.mu.Lock()
	select {
	case <-g.closed:
		g.mu.Unlock()
		return nil
	default:
	}
	close(g.closed)
	g.mu.Unlock()
	<-g.done
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now == nil {
		return nil
	}
	return g.now.Close()
}
