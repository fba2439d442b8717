package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"thaw/uffd"
)

var (
	// ErrAborted is what Run returns, wrapped with the reason, when the restore failed before its processes ran.
	ErrAborted = errors.New("restore aborted")
	// ErrKilled is what Run returns, wrapped, when it was stopped and had to kill processes that still missed pages.
	ErrKilled = errors.New("incomplete processes were stopped")
	// ErrEnded is returned by Add when the session has ended.
	ErrEnded = errors.New("session has ended")
)

// A Process is one process of a restore, handed to a session.
type Process struct {
	// ID names the process in logs: the pid that it had when it was frozen.
	ID int

	// FD is the userfaultfd of its address space, with its regions registered or about to be.
	FD *uffd.FD

	// PIDFD refers to the process, for noticing its end and for killing it. It may be nil: then its end is noticed
	// when a page cannot be installed, and pages that cannot be had are poisoned instead of killing the process.
	PIDFD *os.File

	// HostPID is its pid here, for logs; 0 if unknown.
	HostPID int

	// Layout says what its memory contains. It is shared and never written.
	Layout *Layout
}

func (p *Process) close() {
	if p.FD != nil {
		p.FD.Close()
	}
	if p.PIDFD != nil {
		p.PIDFD.Close()
	}
}

// A Session serves the processes of one restore. All methods may be called from any goroutine, at any time.
//
// Its life, and who moves it on:
//
//	waiting --Add--> registering --Registered--> running --last process complete or gone--> ended
//	                     |                          | Drain: children are completed too
//	                     `--Abort, or Run's context ends: incomplete processes are killed--> ended
type Session struct {
	opts    Options
	limiter *rate.Limiter // nil: the stream is not bounded
	count   counters
	gate    gate
	loads   chan loadRequest // to the loaders; full means that the fault is parked

	server *Server                // set by Run
	reader atomic.Pointer[reader] // set by Run
	poked  atomic.Bool            // the reader has been told to look at the session, and has not yet
	own    readerState            // owned by the reader

	// touchedCh is closed by the reader with the first fault, or by Registered.
	touchedCh chan struct{}
	touched   sync.Once // guards the closing of touchedCh
	// registeredCh is closed by Registered: ENOENT is final from then on.
	registeredCh chan struct{}
	// drainCh is closed by Drain: the rate no longer counts.
	drainCh chan struct{}

	mu         sync.Mutex
	work       sync.Cond       // on mu: spaces has grown, or the stream has to stop
	spaces     []*addressSpace // protected by mu; written by the reader only
	added      []Process       // protected by mu; handed over by Add, taken by the reader
	preloads   bool            // protected by mu; a process has a preload
	quiet      *time.Timer     // protected by mu; nil: has not begun, or there is none
	quietFor   time.Duration   // protected by mu; how long it has gone on because of what is preloaded
	quietOver  bool            // protected by mu; what is in no preload may be streamed
	processes  []ProcessInfo   // protected by mu; all that were added
	registered bool            // protected by mu
	held       []fault         // protected by mu; of pages that cannot be had, on their way to the reader
	returned   []job           // protected by mu; chunks that the reader has begun and left to the workers
	aborted    error           // protected by mu
	draining   bool            // protected by mu
	stopping   bool            // protected by mu; stream workers end
	ended      bool            // protected by mu
	failures   failures        // protected by mu
}

// failures is what went wrong in a session.
type failures struct {
	killed int                 // processes that were killed or poisoned by us
	last   error               // of the page that failed last
	pages  map[failedPage]bool // pages that could not be had when they were asked for last
}

// readerState is what a session's reader knows of it.
type readerState struct {
	ctx      context.Context             // Run's
	help     func(func(context.Context)) // runs a function on a goroutine that Run waits for
	left     chan struct{}               // closed by the reader when it is done with the session
	served   bool                        // the reader has it
	loaders  int                         // that were started
	loading  atomic.Int32                // faults that loaders have and have not resolved
	streamed bool                        // stream workers were started
	touched  bool                        // a fault has been read
}

// NewSession returns a session without processes. If processes are added, Run must be called, also if the restore comes to
// nothing (Abort).
func NewSession(opts *Options) (*Session, error) {
	s := &Session{opts: *opts, touchedCh: make(chan struct{}), registeredCh: make(chan struct{}), drainCh: make(chan struct{}), loads: make(chan loadRequest, 256)}
	s.failures.pages = make(map[failedPage]bool)
	if err := s.opts.setDefaults(); err != nil {
		return nil, err
	}
	s.work.L = &s.mu
	if r := s.opts.Rate; r > 0 {
		// The bucket holds one bulk copy: less could never be taken at once.
		s.limiter = rate.NewLimiter(rate.Limit(r), bulkPages*PageSize)
	}
	return s, nil
}

// Add hands a process to the session, which owns its descriptors from now on, also if Add fails. Its faults are
// served at once, before Registered too: the restorer itself touches the memory.
func (s *Session) Add(p Process) error {
	if p.FD == nil || p.Layout == nil {
		p.close()
		return fmt.Errorf("add process %d: no userfaultfd or no layout", p.ID)
	}
	if err := p.Layout.Validate(); err != nil {
		p.close()
		return fmt.Errorf("add process %d: %w", p.ID, err)
	}
	if s.opts.Added != nil {
		s.opts.Added(ProcessInfo{ID: p.ID, HostPID: p.HostPID})
	}
	return s.take(p)
}

// take is Add for a process that is sound.
func (s *Session) take(p Process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.stopping {
		p.close()
		return fmt.Errorf("add process %d: %w", p.ID, ErrEnded)
	}
	s.added = append(s.added, p)
	s.preloads = s.preloads || p.Layout.Preload != nil
	s.processes = append(s.processes, ProcessInfo{ID: p.ID, HostPID: p.HostPID})
	s.poke()
	return nil
}

// ProcessInfo names a process of a session.
type ProcessInfo struct {
	ID      int // the pid that it had when it was frozen
	HostPID int // its pid here; 0 if unknown
}

// Processes returns the processes that were added so far, those that have ended, too.
func (s *Session) Processes() []ProcessInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.processes)
}

// Registered says that all processes have been added and all their regions are registered, and that none has run
// yet: large ranges without content leave the userfaultfd now.
func (s *Session) Registered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.registered {
		s.registered = true
		close(s.registeredCh)
		s.noteTouched()
		s.beginQuietLocked()
		s.poke()
	}
}

// Abort says that the restore has failed. Its processes have not run; what is left of them is killed.
func (s *Session) Abort(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted == nil {
		s.aborted = fmt.Errorf("%w: %w", ErrAborted, reason)
		s.poke()
	}
}

// Drain finishes the session: all pages of all processes, forked children included, are brought as fast as possible,
// whatever the stream policy and rate, and Run returns when nothing depends on it any more.
func (s *Session) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.draining = true
	if s.limiter != nil {
		s.limiter.SetLimit(rate.Inf)
	}
	close(s.drainCh)
	s.work.Broadcast()
	s.poke()
}

func (s *Session) stateLocked() string {
	switch {
	case s.ended:
		return "ended"
	case s.draining:
		return "draining"
	case s.registered:
		return "running"
	case len(s.spaces) > 0 || len(s.added) > 0:
		return "registering"
	}
	return "waiting"
}

// Run serves the processes until each is complete or gone. It must be called once.
//
// If ctx ends before that, processes that still miss pages are stopped, never left to read zeros: they are killed,
// or, if there is no pidfd for them, their missing pages are poisoned. Run then returns an error that wraps
// [ErrKilled]; one that wraps [ErrAborted] after Abort; nil when all went well.
func (s *Session) Run(ctx context.Context) error {
	s.server = s.opts.Server
	if s.server == nil {
		own, err := NewServer(&ServerOptions{Readers: 1})
		if err != nil {
			s.end() // closes what was added, and what will be
			return err
		}
		defer own.Close()
		s.server = own
	}
	// The workers outlive ctx: stopping is the reader's decision, taken when the processes are dealt with.
	workCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var g sync.WaitGroup
	// The reader starts the others when there is work for them: a session that waits costs no thread.
	s.own = readerState{ctx: ctx, left: make(chan struct{}), help: func(work func(context.Context)) { g.Go(func() { work(workCtx) }) }}
	s.server.attach(s)
	stop := context.AfterFunc(ctx, s.poke)
	defer stop()
	<-s.own.left
	s.end()
	cancel()
	g.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.aborted != nil:
		return s.aborted
	case s.failures.killed > 0:
		return fmt.Errorf("%w: %d of them", ErrKilled, s.failures.killed)
	}
	return nil
}

// poke has the reader look at what has been asked of the session.
func (s *Session) poke() {
	if r := s.reader.Load(); r != nil && !s.poked.Swap(true) {
		r.call(s)
	}
}

// end tells everybody that the reader is gone, and closes what was added too late.
func (s *Session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.stopping = true, true
	if s.quiet != nil {
		s.quiet.Stop()
	}
	for i := range s.added {
		s.added[i].close()
	}
	s.added = nil
	s.work.Broadcast()
}

// Touched returns a channel that is closed when the first process has touched its memory, or all are registered: what the restorer maps is
// mapped by then, and to look into the process does not keep it from that.
func (s *Session) Touched() <-chan struct{} { return s.touchedCh }

func (s *Session) noteTouched() { s.touched.Do(func() { close(s.touchedCh) }) }

// isRegistered reports whether Registered has been called.
func (s *Session) isRegistered() bool {
	select {
	case <-s.registeredCh:
		return true
	default:
		return false
	}
}
