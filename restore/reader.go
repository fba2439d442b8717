package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"thaw/uffd"
)

const (
	// batch is how many messages are read at once. The kernel hands out faults before events, so a batch should hold
	// the faults of all threads of most processes.
	batch = 64
	// retrySpins is how often a deferred fault is tried again at once, giving up the CPU in between: the thread whose
	// event was read has only to be scheduled for the address space to be stable again.
	retrySpins = 32
	// retryWait is how long to wait between attempts after that.
	retryWait = time.Millisecond
	// probeChildren is how often processes are looked after while there are forked children: there is no pidfd that
	// would tell of their end.
	probeChildren = time.Second
	// probeOthers is the same for processes with a pidfd, which tells of an exit, though not of an exec.
	probeOthers = 10 * time.Second
	// killWait is how long to wait for a killed process to end before its userfaultfd is closed all the same.
	killWait = 5 * time.Second
)

// A fault is a page fault that was read and is not resolved. Once read it is ours: the kernel tells of it once only.
type fault struct {
	a     *addressSpace
	want  want
	since time.Time
	tryAt time.Time // not before; zero: at once
}

// A reader reads the messages of all of a session's address spaces, applies events, and resolves the faults whose
// pages are at hand. It is one goroutine on one thread: with nothing else to do, its wake-up is the fault's latency.
type reader struct {
	s       *Session
	byFD    map[int32]*addressSpace // by userfaultfd and by pidfd
	parked  []fault
	spins   int
	probed  time.Time
	starved bool // a lack of descriptors has been logged

	help     func(func(context.Context)) // runs a function on a goroutine that Session.Run waits for
	loaders  int                         // that were started
	streamed bool                        // stream workers were started

	job      job       // what it is streaming; job.a is nil if nothing
	noStream time.Time // not before: what there is to stream is not at hand

	msgs   [batch]uffd.Message
	events [16]unix.EpollEvent
}

func newReader(s *Session, help func(func(context.Context))) *reader {
	return &reader{s: s, byFD: make(map[int32]*addressSpace), help: help}
}

func (r *reader) run(ctx context.Context) error {
	asReader()
	for {
		r.commands(ctx)
		r.retry()
		r.reap()
		if r.over() {
			return nil
		}
		if err := r.attend(r.timeout()); err != nil {
			r.stopAll()
			return err
		}
	}
}

// attend waits for messages and serves them. While there is something to stream that is at hand, it streams between
// looks at the messages, and returns when something else is to be done: a reader that is awake sees a fault within the
// time of one small copy, while waking one that sleeps takes 50 to 150 us on an idle virtual machine.
func (r *reader) attend(timeout time.Duration) error {
	for {
		streaming := len(r.parked) == 0 && r.stream()
		if streaming {
			timeout = 0
		}
		ready, woken, err := r.s.wake.wait(r.events[:], timeout)
		if err != nil {
			return fmt.Errorf("wait for faults: %w", err)
		}
		for _, e := range ready {
			if a := r.byFD[e.Fd]; a != nil {
				r.serve(a, int(e.Fd) == a.fd.Fd())
			}
		}
		if woken || !streaming {
			return nil
		}
	}
}

// stream makes one small copy for the stream, if there is one to make without waiting, and reports whether it did.
func (r *reader) stream() bool {
	s := r.s
	if s.limiter != nil || !s.isRegistered() || time.Now().Before(r.noStream) {
		return false // the workers keep the rate, and know how to wait
	}
	if !s.faultedWithin(awakeFor) {
		if r.job.a != nil {
			s.returnJob(r.job)
			r.job = job{}
		}
		return false
	}
	if r.job.a == nil {
		s.mu.Lock()
		j, ok := s.newJobLocked()
		s.mu.Unlock()
		if !ok {
			return false
		}
		r.job = j
	}
	limit := uint64(busyPages)
	if s.faultedWithin(busyFor) {
		limit = eagerPages
	}
	n, ok := r.job.copyReady(limit)
	switch {
	case !ok:
		s.returnJob(r.job)
		r.job = job{}
		r.noStream = time.Now().Add(retryWait)
	case r.job.settle(n):
		s.finishJob(&r.job)
		r.job = job{}
	}
	return ok
}

// timeout is how long the reader may sleep; negative for ever.
func (r *reader) timeout() time.Duration {
	switch {
	case len(r.parked) > 0 && r.spins < retrySpins:
		return 0
	case len(r.parked) > 0:
		return retryWait
	case len(r.s.spaces) > 0:
		return r.probeEvery()
	}
	return -1
}

func (r *reader) probeEvery() time.Duration {
	if slices.ContainsFunc(r.s.spaces, func(a *addressSpace) bool { return a.pidfd == nil }) {
		return probeChildren
	}
	return probeOthers
}

// commands carries out what other goroutines have asked for since the last time.
func (r *reader) commands(ctx context.Context) {
	s := r.s
	s.mu.Lock()
	added, registered, aborted := s.added, s.registered, s.aborted
	r.parked = append(r.parked, s.held...)
	s.added, s.held = nil, nil
	s.mu.Unlock()

	for _, p := range added {
		r.adopt(s.newSpace(p))
	}
	if registered {
		for _, a := range s.spaces {
			if !a.child && !a.zeroed {
				a.zeroed = true
				a.dropZeroRanges()
			}
		}
	}
	if aborted != nil || ctx.Err() != nil {
		r.stopAll()
	}
	r.startStream()
}

// startStream starts the stream workers as soon as there is something to stream.
func (r *reader) startStream() {
	if r.streamed {
		return
	}
	s := r.s
	s.mu.Lock()
	r.streamed = slices.ContainsFunc(s.spaces, (*addressSpace).streamsLocked)
	s.mu.Unlock()
	if r.streamed {
		for range s.opts.Workers {
			r.help(s.streamWorker)
		}
	}
}

// over reports whether nothing is left to do, and never will be.
func (r *reader) over() bool {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.spaces) == 0 && len(s.added) == 0 && (s.registered || s.aborted != nil || s.stopping)
}

// adopt begins to serve an address space.
func (r *reader) adopt(a *addressSpace) {
	s := r.s
	s.mu.Lock()
	s.spaces = append(s.spaces, a)
	s.work.Broadcast()
	s.mu.Unlock()

	if g := s.opts.Guard; g != nil {
		release, err := g.Hold(a.fd, a.pidfd, fmt.Sprintf("process %d, frozen as %d", a.hostPID, a.id))
		if err != nil {
			// It is served all the same: without the guard it is lost only if we die before it is complete.
			s.opts.Logger.Error("process is not guarded", "pid", a.hostPID, "image_pid", a.id, "child", a.child, "err", err)
		}
		a.release = release
	}
	r.byFD[int32(a.fd.Fd())] = a
	err := s.wake.add(a.fd.Fd())
	if err == nil && a.pidfd != nil {
		r.byFD[int32(a.pidfd.Fd())] = a
		err = s.wake.add(int(a.pidfd.Fd()))
	}
	if err != nil {
		// Out of kernel memory or of epoll watches. Faults would go unseen: better no process than one that hangs.
		s.opts.Logger.Error("cannot watch process", "pid", a.hostPID, "image_pid", a.id, "err", err)
		r.stop(a)
		return
	}
	s.opts.Logger.Debug("serving process", "pid", a.hostPID, "image_pid", a.id, "child", a.child, "pages", a.stream.total)
}

// serve reads what is queued for an address space until nothing is.
func (r *reader) serve(a *addressSpace, readable bool) {
	if !readable { // the pidfd: the process has ended, though another may share its memory
		if !a.alive() {
			r.drop(a, targetGone)
		} else {
			r.unwatchPID(a)
		}
		return
	}
	for {
		now := time.Now()
		n, forked, err := r.read(a)
		for _, c := range forked {
			r.adopt(c)
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
			// A forked child's userfaultfd could not be installed here. Its message stays queued and its parent
			// waits; a descriptor may become free.
			if !r.starved {
				r.starved = true
				r.s.opts.Logger.Error("no descriptor for a forked child; its parent waits", "pid", a.hostPID, "image_pid", a.id, "err", err)
			}
			time.Sleep(retryWait)
			return
		}
		if err != nil {
			r.s.opts.Logger.Error("cannot read faults", "pid", a.hostPID, "image_pid", a.id, "err", err)
			r.stop(a)
			return
		}
		for i := range r.msgs[:n] {
			if r.msgs[i].Kind() == uffd.EventPagefault {
				r.fault(a, &r.msgs[i], now)
			}
		}
		if n < batch {
			return
		}
	}
}

// read fills msgs with what is queued, and applies the events in it before it lets go of the address space.
func (r *reader) read(a *addressSpace) (n int, forked []*addressSpace, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, err = a.fd.ReadMessages(r.msgs[:])
	for i := range r.msgs[:n] {
		m := &r.msgs[i]
		switch m.Kind() {
		case uffd.EventPagefault:
		case uffd.EventFork:
			fd, ferr := uffd.FromFD(m.Fork())
			if ferr != nil {
				return n, forked, fmt.Errorf("take over the userfaultfd of a forked child: %w", ferr)
			}
			forked = append(forked, a.forkLocked(fd))
		default:
			a.applyLocked(m)
		}
	}
	return n, forked, err
}

// fault resolves a fault that was just read.
func (r *reader) fault(a *addressSpace, m *uffd.Message, now time.Time) {
	addr, flags, _ := m.PageFault()
	addr &^= PageSize - 1
	r.s.lastFault.Store(now.UnixNano())
	w := a.around.want(addr, flags&uffd.PagefaultWrite != 0)
	f := fault{a: a, want: w, since: now}
	r.finish(f, r.try(&f))
}

// try makes one attempt at a fault.
func (r *reader) try(f *fault) outcome {
	o, n := f.a.install(f.want)
	r.s.countFault(o)
	if o == installed {
		f.a.around.installed(f.want.addr, n)
	}
	return o
}

// finish does what the outcome of an attempt asks for.
func (r *reader) finish(f fault, o outcome) {
	switch o {
	case installed, alreadyPresent, unmapped:
		r.s.opts.Metrics.latency.Observe(time.Since(f.since).Seconds())
		if o == installed {
			r.streamNear(f.a, f.want.addr)
		}
	case loading:
		if r.loaders < loaders {
			r.loaders++
			r.help(r.s.loader)
		}
		select {
		case r.s.loads <- loadRequest{a: f.a, want: f.want, since: f.since}:
		default: // every loader is busy and so is their queue
			r.parked = append(r.parked, f)
		}
	case deferred:
		r.parked = append(r.parked, f)
	case targetGone:
		r.drop(f.a, targetGone)
	case failed:
		r.s.failFault(f)
	}
}

// streamNear lets the stream go on where the process is.
func (r *reader) streamNear(a *addressSpace, addr uint64) {
	a.mu.RLock()
	home := a.pages.lookup(addr).home
	a.mu.RUnlock()
	if home != 0 {
		a.stream.near(home)
	}
}

// retry makes another attempt at each parked fault.
func (r *reader) retry() {
	if len(r.parked) == 0 {
		r.spins = 0
		return
	}
	if r.spins < retrySpins {
		r.spins++
		unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	again := r.parked
	r.parked = nil
	now := time.Now()
	for _, f := range again {
		if f.tryAt.After(now) {
			r.parked = append(r.parked, f)
			continue
		}
		r.finish(f, r.try(&f))
	}
	if len(r.parked) < len(again) {
		r.spins = 0
	}
}

// reap lets go of address spaces that need nothing more, and looks after those that cannot tell of their end.
func (r *reader) reap() {
	registered := r.s.isRegistered()
	probe := time.Since(r.probed) >= r.probeEvery()
	if probe {
		r.probed = time.Now()
	}
	for _, a := range slices.Clone(r.s.spaces) {
		switch {
		case registered && a.stream.settled():
			r.complete(a)
		case (probe || a.isLost.Swap(false)) && !a.alive():
			r.drop(a, targetGone)
		}
	}
}

// complete closes the userfaultfd of an address space in which nothing is missing, unless something is going on in it
// right now: an event that is raised and not read may be a fork, and the child's memory would go with it.
func (r *reader) complete(a *addressSpace) {
	for {
		n, forked, err := r.read(a)
		for _, c := range forked {
			r.adopt(c)
		}
		if err != nil || n == 0 {
			break
		}
	}
	a.mu.Lock()
	changing := a.changing()
	a.mu.Unlock()
	if changing {
		r.s.wake.wake()
		return
	}
	r.drop(a, installed)
}
