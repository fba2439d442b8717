package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"thaw/uffd"
)

// loaders is how many faults may wait for storage at the same time in one session. Eight reads in flight are about
// what a local disk needs to be busy with single pages.
const loaders = 8

// errSourceMemory is the failure of a page that was verified and could not be copied: its storage failed in between.
var errSourceMemory = errors.New("the page's memory could not be read")

// loggedFailures is how many failed pages of a session are logged as errors.
const loggedFailures = 10

// loadPages is how much is brought from storage for one fault: 256 KiB, which take a local disk little longer than 4 KiB.
const loadPages = 64

// holdRetry is how long a page that cannot be had is held before its source is asked again.
const holdRetry = time.Second

// A loadRequest is a fault whose page has to come from storage first.
type loadRequest struct {
	a     *addressSpace
	want  want
	since time.Time
}

// loader brings pages from storage and resolves the faults that wait for them.
func (s *Session) loader(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-s.loads:
			s.load(ctx, q)
		}
	}
}

// load resolves one fault, however long that takes: the address is looked up anew after each wait, because the
// process may have moved or dropped the page meanwhile.
func (s *Session) load(ctx context.Context, q loadRequest) {
	for ctx.Err() == nil {
		o, _ := q.a.install(q.want)
		s.countFault(o)
		switch o {
		case installed, alreadyPresent, unmapped:
			s.opts.Metrics.latency.Observe(time.Since(q.since).Seconds())
			return
		case targetGone:
			q.a.lost()
			return
		case failed:
			s.failFault(fault{a: q.a, want: q.want, since: q.since})
			return
		case deferred:
			q.a.pause(ctx, changeWait)
		case loading:
			q.a.mu.RLock()
			pl := q.a.pages.lookup(q.want.addr)
			q.a.mu.RUnlock()
			if pl.zero {
				continue
			}
			if _, _, err := s.opts.Source.Load(pl.image, int(min(loadPages, pl.pages))); err != nil {
				if !q.a.failPage(pl.home, pl.image, err) {
					s.hold(fault{a: q.a, want: q.want, since: q.since, tryAt: time.Now().Add(holdRetry)})
				}
				return
			}
		}
	}
}

// hold gives a fault back to the reader, to be tried again later: a loader must not wait for one page for ever.
func (s *Session) hold(f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, f)
	s.wake.wake()
}

// failFault is failPage for a fault whose page was at hand and could not be installed.
func (s *Session) failFault(f fault) {
	f.a.mu.RLock()
	pl := f.a.pages.lookup(f.want.addr)
	f.a.mu.RUnlock()
	if !f.a.failPage(pl.home, pl.image, errSourceMemory) {
		f.tryAt = time.Now().Add(holdRetry)
		s.hold(f)
	}
}

// failPage deals with a page whose content cannot be had. It reports whether the page is done with; false means that
// it is held, and to be tried again.
func (a *addressSpace) failPage(home, image uint64, cause error) bool {
	s := a.s
	err := fmt.Errorf("image page %d at %#x of process %d: %w", image, home, a.id, cause)
	n := s.noteFailed(failedPage{a.id, home}, err)
	level := slog.LevelError
	if n == 0 || n > loggedFailures { // known, or a whole pack may be gone; the total is in Stats
		level = slog.LevelDebug
	}
	s.opts.Logger.Log(context.Background(), level, "page cannot be had", "pid", a.hostPID, "image_pid", a.id, "page", image, "addr", home, "policy", s.opts.Failure.String(), "err", cause)

	switch s.opts.Failure {
	case FailureHold:
		return false
	case FailurePoison:
		switch a.poisonHome(home) {
		case installed:
			return true
		case deferred:
			return false // in the middle of an mremap or the like: again when it is over
		}
	}
	if a.kill() {
		s.noteKilled()
		return true
	}
	return false // no way to stop the process: its threads wait, which is better than what is wrong
}

// poisonHome poisons the page of a home, wherever that is mapped now.
func (a *addressSpace) poisonHome(home uint64) outcome {
	a.mu.RLock()
	defer a.mu.RUnlock()
	addr, _, ok := a.pages.locate(home, PageSize)
	if a.gone || !ok {
		return installed
	}
	return a.poison(span{addr, addr + PageSize})
}

// A failedPage names a page of a process, for counting each once.
type failedPage struct {
	id   int
	home uint64
}

// noteFailed remembers a failure. It returns how many pages have failed so far if this one had not, else 0.
func (s *Session) noteFailed(p failedPage, err error) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastErr = err
	if s.failed[p] {
		return 0
	}
	s.failed[p] = true
	return s.count.pagesFailed.Add(1)
}

func (s *Session) noteKilled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed++
}

// faultedWithin reports whether a fault was read within the last d.
func (s *Session) faultedWithin(d time.Duration) bool {
	return time.Now().UnixNano()-s.lastFault.Load() < int64(d)
}

// minZeroGap is the size from which a gap without content leaves the userfaultfd before the process runs. Each gap
// splits a mapping, and the kernel allows 65530 of them; a fault of a zero page costs 20 to 50 us, so 1 MiB saves up
// to 10 ms.
const minZeroGap = 1 << 20

// dropZeroRanges takes large ranges without content out of the userfaultfd: the kernel itself fills them with zeros.
// It does so only while the process cannot have run: a process that runs may have moved other memory there already.
func (a *addressSpace) dropZeroRanges() {
	ranges := a.pages.layout.zeroRanges(minZeroGap)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range ranges {
		if a.hostPID != 0 && !traced(a.hostPID) {
			a.s.opts.Logger.Debug("process runs already; its empty ranges stay registered", "pid", a.hostPID)
			return
		}
		// An error means that nothing is registered there any more; then it is the kernel's already.
		if err := a.fd.Unregister(uffd.Range{Start: r.start, End: r.end}); err == nil {
			a.s.count.unregistered.Add(r.len())
		}
		a.pages.remove(r)
	}
}

// traced reports whether somebody is attached to the process with ptrace. The restorer is, until it lets it run.
func traced(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, after, ok := bytes.Cut(status, []byte("\nTracerPid:\t"))
	return ok && !bytes.HasPrefix(after, []byte("0\n"))
}

// unwatchPID forgets a process that has ended while another shares its memory.
func (r *reader) unwatchPID(a *addressSpace) {
	fd := int(a.pidfd.Fd())
	r.s.wake.remove(fd)
	delete(r.byFD, int32(fd))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pidfd.Close()
	a.pidfd = nil
}

// drop ends the serving of an address space: it is complete, or gone.
func (r *reader) drop(a *addressSpace, why outcome) {
	s := r.s
	s.mu.Lock()
	i := slices.Index(s.spaces, a)
	if i >= 0 {
		s.spaces = slices.Delete(s.spaces, i, i+1)
	}
	s.mu.Unlock()
	if i < 0 {
		return
	}
	r.parked = slices.DeleteFunc(r.parked, func(f fault) bool { return f.a == a })
	s.wake.remove(a.fd.Fd())
	delete(r.byFD, int32(a.fd.Fd()))
	if a.pidfd != nil {
		r.unwatchPID(a)
	}
	if a.release != nil {
		a.release()
	}
	a.mu.Lock()
	a.gone = true
	a.fd.Close()
	a.mu.Unlock()
	s.count.live.Add(-1)
	s.opts.Metrics.live.Dec()
	s.opts.Logger.Debug("process left", "pid", a.hostPID, "image_pid", a.id, "child", a.child, "complete", why == installed)
}

// stop ends a process that may still miss pages, so that none of them is ever taken for zeros: it is killed, or, where
// there is no handle on it, its missing pages are poisoned.
func (r *reader) stop(a *addressSpace) {
	if a.stream.settled() || !a.alive() {
		r.drop(a, targetGone)
		return
	}
	r.s.noteKilled()
	r.s.opts.Logger.Warn("stopping incomplete process", "pid", a.hostPID, "image_pid", a.id, "child", a.child)
	if a.kill() {
		// Its threads must not run on with zeros for the moment that the signal takes.
		fds := []unix.PollFd{{Fd: int32(a.pidfd.Fd()), Events: unix.POLLIN}}
		unix.Poll(fds, int(killWait.Milliseconds()))
	} else {
		r.poisonAll(a)
	}
	r.drop(a, targetGone)
}

// poisonAll poisons every missing page that has content. New events may come in all the while.
func (r *reader) poisonAll(a *addressSpace) {
	for deadline := time.Now().Add(killWait); time.Now().Before(deadline); {
		for {
			n, forked, err := r.read(a)
			for _, c := range forked {
				r.adopt(c)
			}
			if err != nil || n == 0 {
				break
			}
		}
		if a.poisonContent() {
			return
		}
		unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// poisonContent reports false if the address space changed under it, or the kernel cannot poison.
func (a *addressSpace) poisonContent() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pages.pieces {
		for at := p.start; at < p.end; {
			pl := a.pages.lookup(at)
			end := min(at+pl.pages*PageSize, p.end)
			if !pl.zero && a.poison(span{at, end}) != installed {
				return false
			}
			at = end
		}
	}
	return true
}

// stopAll ends the session.
func (r *reader) stopAll() {
	r.s.mu.Lock()
	r.s.stopping = true
	r.s.mu.Unlock()
	for len(r.s.spaces) > 0 { // poisoning one may bring in a child that it forked meanwhile
		r.stop(r.s.spaces[0])
	}
}
