package restore

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// A WaitPolicy says how a server's readers wait for the next fault.
type WaitPolicy uint8

const (
	// WaitAdaptive sleeps, but asks without sleeping for some 50 us after a fault as long as that keeps finding the next one: a
	// thread that sleeps is woken up 5 us later at best, 50 us on an idle virtual machine.
	WaitAdaptive WaitPolicy = iota
	// WaitSleep always sleeps.
	WaitSleep
	// WaitSpin never sleeps while there is a process to serve: it takes a CPU for each reader.
	WaitSpin
)

var waitPolicies = [...]string{WaitAdaptive: "adaptive", WaitSleep: "sleep", WaitSpin: "spin"}

func (p WaitPolicy) String() string {
	if int(p) < len(waitPolicies) {
		return waitPolicies[p]
	}
	return fmt.Sprintf("WaitPolicy(%d)", uint8(p))
}

// ParseWaitPolicy reads what String writes.
func ParseWaitPolicy(s string) (WaitPolicy, error) {
	for p, name := range waitPolicies {
		if s == name {
			return WaitPolicy(p), nil
		}
	}
	return 0, fmt.Errorf("unknown wait policy %q: want adaptive, sleep or spin", s)
}

// ServerOptions are a server's settings. The defaults need no tuning.
type ServerOptions struct {
	// Readers is the number of threads that read faults and resolve those whose pages are at hand; each serves its share of the
	// sessions. Default: one for two CPUs, at most 8. One resolves some 100,000 faults a second.
	Readers int

	// Copies is how many stream workers copy at the same time, of all sessions together. Default: the number of CPUs.
	Copies int

	// Wait says how readers wait. Default: WaitAdaptive.
	Wait WaitPolicy
}

// A Server is what the sessions of a program share: threads for their faults, and places for their streams. With a thread of its
// own for each session the runtime's few places would be taken by those that are back from a short wait, and a fault would wait
// for its session's turn by accident: the slowest of 100 sessions took 36 times as long as the fastest. It is safe for concurrent use.
type Server struct {
	wait      WaitPolicy
	places    *semaphore.Weighted
	lastFault atomic.Int64 // when a fault of any session was read last, in Unix nanoseconds
	readers   []*reader    // immutable
	running   sync.WaitGroup
}

// NewServer starts a server's threads. o may be nil.
func NewServer(o *ServerOptions) (*Server, error) {
	var opts ServerOptions
	if o != nil {
		opts = *o
	}
	if opts.Readers <= 0 {
		opts.Readers = min(8, max(1, runtime.NumCPU()/2))
	}
	if opts.Copies <= 0 {
		opts.Copies = runtime.NumCPU()
	}
	s := &Server{wait: opts.Wait, places: semaphore.NewWeighted(int64(opts.Copies))}
	for range opts.Readers {
		w, err := newWaker()
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("make a reader's event descriptors: %w", err)
		}
		r := newReader(s, w)
		s.readers = append(s.readers, r)
		s.running.Go(r.run)
	}
	return s, nil
}

// Close ends the server's threads. Preconditions: the Run of each of its sessions has returned.
func (s *Server) Close() {
	for _, r := range s.readers {
		r.close()
	}
	s.running.Wait()
}

// attach gives a session to the reader that has the fewest.
func (s *Server) attach(session *Session) {
	least := s.readers[0]
	for _, r := range s.readers[1:] {
		if r.load.Load() < least.load.Load() {
			least = r
		}
	}
	least.load.Add(1)
	session.reader.Store(least)
	session.poke()
}

// calm returns how long before now the last fault of any session was read.
func (s *Server) calm(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - s.lastFault.Load())
}

// copying waits for a place in which to copy. It returns false if ctx ends before.
func (s *Server) copying(ctx context.Context) bool { return s.places.Acquire(ctx, 1) == nil }

// copied gives the place back.
func (s *Server) copied() { s.places.Release(1) }
