package restore

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"thaw/uffd"
)

const (
	// batch is how many messages are read at once. The kernel hands out faults before events, so a batch should hold
	// the faults of all threads of most processes.
	batch = 64
	// turn is how many processes are served before epoll is asked again; those that call wait for them, too. Epoll puts whoever it has told
	// of at the end of its queue at once, so with less than all in a turn some come to its front before they fault again, and wait for
	// another turn: of 1000 sessions the slowest one's p99 was 2.0 to 2.7 times the fastest's with turns of 64, 1.8 with this one.
	turn = 1024
	// retrySpins is how often a deferred fault is tried again at once, giving up the CPU in between: the thread whose
	// event was read has only to be scheduled for the address space to be stable again.
	retrySpins = 32
	// retryWait is how long to wait between attempts after that.
	retryWait = time.Millisecond
	// probeEvery is how often processes are looked after: no event tells of an exec, nor of the end of a forked child, for
	// which there is no pidfd. A look takes a microsecond.
	probeEvery = time.Second
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

// A reader reads the messages of all address spaces of its sessions, applies events, and resolves the faults whose pages are
// at hand. It is one goroutine on one thread: with nothing else to do, its wake-up is the fault's latency.
type reader struct {
	server *Server
	wake   *waker
	load   atomic.Int64 // sessions that were given to it and have not ended

	mu     sync.Mutex
	called []*Session // protected by mu; to be looked at
	closed bool       // protected by mu

	sessions []*Session
	byFD     map[int32]*addressSpace // by userfaultfd and by pidfd
	parked   []fault
	spins    int // attempts at what is parked since the last one that helped
	probed   time.Time
	starved  bool // a lack of descriptors has been logged

	hot      *Session  // which had the last fault
	job      job       // what it is streaming; job.a is nil if nothing
	noStream time.Time // not before: what there is to stream is not at hand

	patience patience
	direct   direct
	msgs     [batch]uffd.Message
	events   [turn]unix.EpollEvent
}

func newReader(s *Server, w *waker) *reader {
	return &reader{server: s, wake: w, byFD: make(map[int32]*addressSpace), patience: newPatience(s.wait)}
}

// call has the reader look at a session. It may be called by anybody.
func (r *reader) call(s *Session) {
	r.mu.Lock()
	r.called = append(r.called, s)
	r.mu.Unlock()
	r.wake.wake()
}

// close ends the reader. Preconditions: it has no session.
func (r *reader) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.wake.wake()
}

func (r *reader) run() {
	asReader()
	defer r.wake.close()
	for {
		r.mu.Lock()
		called, closed := r.called, r.closed
		r.called = nil
		r.mu.Unlock()
		for _, s := range called {
			s.poked.Store(false)
			r.look(s)
		}
		if closed && len(r.sessions) == 0 {
			return
		}
		r.retry()
		r.probe()
		r.attend(r.timeout())
	}
}

// look does what has been asked of a session.
func (r *reader) look(s *Session) {
	select {
	case <-s.own.left:
		return // somebody called for the last time while it ended
	default:
	}
	if !s.own.served {
		s.own.served = true
		r.sessions = append(r.sessions, s)
	}
	r.commands(s)
	r.reap(s)
	if s.over() {
		r.leave(s)
	}
}

// leave lets go of a session that has ended.
func (r *reader) leave(s *Session) {
	r.sessions = slices.DeleteFunc(r.sessions, func(o *Session) bool { return o == s })
	r.parked = slices.DeleteFunc(r.parked, func(f fault) bool { return f.a.s == s })
	if s.gate.timer != nil {
		s.gate.timer.Stop()
	}
	if r.hot == s {
		r.hot = nil
	}
	if r.job.a != nil && r.job.a.s == s {
		r.job = job{}
	}
	r.load.Add(-1)
	close(s.own.left)
}

// attend waits for messages and serves them. While there is something to stream that is at hand, it streams between
// looks at the messages, and returns when something else is to be done: a reader that is awake sees a fault within the
// time of one small copy, while waking one that sleeps takes 50 to 150 us on an idle virtual machine.
func (r *reader) attend(timeout time.Duration) {
	for {
		now := time.Now()
		streams := r.stream(now)
		awake := streams || r.awake(now)
		if awake && !streams && r.readDirect(now) {
			if len(r.parked) > 0 {
				return
			}
			continue
		}
		if awake {
			timeout = 0
		}
		ready, woken, err := r.wake.wait(r.events[:], timeout)
		if err != nil {
			r.fail(fmt.Errorf("wait for faults: %w", err))
			return
		}
		r.serveReady(ready)
		if woken || !awake || len(r.parked) > 0 {
			return
		}
	}
}

// serveReady serves whoever epoll says has something.
func (r *reader) serveReady(ready []unix.EpollEvent) {
	r.direct.reads = 0
	if len(ready) == 0 {
		return
	}
	now := time.Now()
	for _, e := range ready {
		switch a := r.byFD[e.Fd]; {
		case a == nil:
		case int(e.Fd) != a.fd.Fd():
			r.ended(a)
		default:
			r.direct.a = a
			r.serve(a, now)
		}
	}
	if len(ready) > 1 {
		r.direct.a = nil
	}
	r.patience.found(now)
}

// awake reports whether to wait without sleeping.
func (r *reader) awake(now time.Time) bool {
	return len(r.byFD) > 0 && r.patience.awake(now) && now.Sub(r.probed) < probeEvery
}

// fail aborts all sessions: without messages nothing can be served. No descriptor of ours is bad, so this should never be.
func (r *reader) fail(err error) {
	for _, s := range r.sessions {
		s.Abort(err)
	}
	time.Sleep(retryWait)
}

// streaming returns the session for whose stream the reader is to copy, the one that had the last fault, or nil.
func (r *reader) streaming(now time.Time) *Session {
	s := r.hot
	if s == nil || !s.own.streamed || len(r.parked) > 0 || now.Before(r.noStream) || r.server.calm(now) >= awakeFor {
		return nil
	}
	if s.limiter != nil || !s.isRegistered() {
		return nil // the workers keep the rate, and know how to wait
	}
	return s
}

// stream makes one small copy for a session's stream, if there is one to make without waiting, and reports whether it did. If not,
// it holds no chunk when it returns: a session waits for all of its chunks.
func (r *reader) stream(now time.Time) bool {
	s := r.streaming(now)
	if r.job.a != nil && r.job.a.s != s {
		r.job.a.s.returnJob(r.job)
		r.job = job{}
	}
	if s == nil {
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
	if r.server.calm(now) < busyFor {
		limit = eagerPages
	}
	copied := r.job.copyReady(limit) > 0
	switch {
	case !copied:
		s.returnJob(r.job)
		r.job = job{}
		r.noStream = now.Add(retryWait)
	case r.job.rest.pages == 0:
		s.finishJob(&r.job)
		r.job = job{}
	}
	return copied
}

// timeout is how long the reader may sleep; negative for ever.
func (r *reader) timeout() time.Duration {
	switch {
	case len(r.parked) > 0 && r.spins < retrySpins:
		return 0
	case len(r.parked) > 0:
		return retryWait
	case len(r.byFD) > 0:
		return probeEvery
	}
	return -1
}

// commands carries out what other goroutines have asked of a session since the last time.
func (r *reader) commands(s *Session) {
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
	for _, f := range s.releaseHeld() {
		f.since = time.Now() // how long it was held is counted apart
		r.parked = append(r.parked, f)
	}
	if aborted != nil || s.own.ctx.Err() != nil {
		r.stopAll(s)
	}
	s.startStream()
}

// startStream starts the stream workers as soon as there is something to stream. The reader calls it.
func (s *Session) startStream() {
	if s.own.streamed {
		return
	}
	s.mu.Lock()
	s.own.streamed = s.preloads || slices.ContainsFunc(s.spaces, (*addressSpace).streamsLocked)
	s.mu.Unlock()
	if s.own.streamed {
		for range s.opts.Workers {
			s.own.help(s.streamWorker)
		}
	}
}

// over reports whether nothing is left to do, and never will be.
func (s *Session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.spaces) == 0 && len(s.added) == 0 && (s.registered || s.aborted != nil || s.stopping)
}

// adopt begins to serve an address space.
func (r *reader) adopt(a *addressSpace) {
	s := a.s
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
	err := r.wake.add(a.fd.Fd())
	if err == nil && a.pidfd != nil {
		r.byFD[int32(a.pidfd.Fd())] = a
		err = r.wake.add(int(a.pidfd.Fd()))
	}
	if err != nil {
		// Out of kernel memory or of epoll watches. Faults would go unseen: better no process than one that hangs.
		s.opts.Logger.Error("cannot watch process", "pid", a.hostPID, "image_pid", a.id, "err", err)
		r.stop(a)
		return
	}
	s.opts.Logger.Debug("serving process", "pid", a.hostPID, "image_pid", a.id, "child", a.child, "pages", a.stream.total)
}

// ended deals with the end of a process, though another may share its memory.
func (r *reader) ended(a *addressSpace) {
	if !a.killed.IsZero() || !a.alive() {
		r.drop(a, targetGone)
	} else {
		r.unwatchPID(a)
	}
}

// serve reads what is queued for an address space until nothing is, and returns how many messages it was. now is when it was found
// to be readable.
func (r *reader) serve(a *addressSpace, now time.Time) (messages int) {
	for {
		n, forked, err := r.read(a)
		for _, c := range forked {
			r.adopt(c)
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
			// A forked child's userfaultfd could not be installed here. Its message stays queued and its parent
			// waits; a descriptor may become free.
			if !r.starved {
				r.starved = true
				a.s.opts.Logger.Error("no descriptor for a forked child; its parent waits", "pid", a.hostPID, "image_pid", a.id, "err", err)
			}
			time.Sleep(retryWait)
			return messages
		}
		if err != nil {
			a.s.opts.Logger.Error("cannot read faults", "pid", a.hostPID, "image_pid", a.id, "err", err)
			r.stop(a)
			return messages
		}
		for i := range r.msgs[:n] {
			if r.msgs[i].Kind() == uffd.EventPagefault {
				r.fault(a, &r.msgs[i], now)
			}
		}
		if messages += n; n < batch {
			return messages
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
	r.server.lastFault.Store(now.UnixNano())
	r.hot = a.s
	f := fault{a: a, want: want{addr: addr, write: flags&uffd.PagefaultWrite != 0, data: 1, zero: 1}, since: now}
	if !a.s.opts.SinglePages {
		f.want = a.around.want(addr, f.want.write)
	}
	if !a.s.own.touched {
		a.s.own.touched = true
		a.s.noteTouched()
	}
	if a.s.holding() {
		a.s.holdFault(f)
		return
	}
	r.finish(f, r.try(&f))
}

// try makes one attempt at a fault.
func (r *reader) try(f *fault) outcome {
	o, n := f.a.install(f.want)
	f.a.s.countFault(o)
	if o == installed {
		f.a.around.installed(f.want.addr, n)
	}
	return o
}

// finish does what the outcome of an attempt asks for.
func (r *reader) finish(f fault, o outcome) {
	switch o {
	case installed, alreadyPresent, unmapped:
		f.a.s.countWait(time.Since(f.since))
		if o == installed {
			r.streamNear(f.a, f.want.addr)
			f.a.fillGaps(f.want.addr)
		}
	case loading:
		if s := f.a.s; s.own.loaders < loaders {
			s.own.loaders++
			s.own.help(s.loader)
		}
		f.a.s.own.loading.Add(1)
		select {
		case f.a.s.loads <- loadRequest{a: f.a, want: f.want, since: f.since}:
		default: // every loader is busy and so is their queue
			f.a.s.own.loading.Add(-1)
			r.parked = append(r.parked, f)
		}
	case deferred:
		r.parked = append(r.parked, f)
	case targetGone:
		r.drop(f.a, targetGone)
	case failed:
		f.a.s.failFault(f)
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

// reap lets go of a session's address spaces that need nothing more.
func (r *reader) reap(s *Session) {
	registered := s.isRegistered()
	for _, a := range slices.Clone(s.spaces) {
		switch {
		case !a.killed.IsZero():
		case registered && a.stream.settled():
			r.complete(a)
		case a.isLost.Swap(false) && !a.alive():
			r.drop(a, targetGone)
		}
	}
}

// probe looks after processes that cannot tell of their end.
func (r *reader) probe() {
	now := time.Now()
	if now.Sub(r.probed) < probeEvery {
		return
	}
	r.probed = now
	for _, s := range r.sessions {
		for _, a := range slices.Clone(s.spaces) {
			if !a.alive() || !a.killed.IsZero() && now.Sub(a.killed) > killWait {
				r.drop(a, targetGone)
			}
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
		a.s.poke()
		return
	}
	r.drop(a, installed)
}
