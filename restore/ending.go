package restore

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// unwatchPID forgets a process that has ended while another shares its memory.
func (r *reader) unwatchPID(a *addressSpace) {
	fd := int(a.pidfd.Fd())
	r.wake.remove(fd)
	delete(r.byFD, int32(fd))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pidfd.Close()
	a.pidfd = nil
}

// drop ends the serving of an address space: it is complete, or gone.
func (r *reader) drop(a *addressSpace, why outcome) {
	if !r.leaveOut(a) {
		return
	}
	if a.release != nil {
		a.release()
	}
	a.mu.Lock()
	a.gone = true
	a.fd.Close()
	a.mu.Unlock()
	a.s.opts.Logger.Debug("process left", "pid", a.hostPID, "image_pid", a.id, "child", a.child, "complete", why == installed)
}

// abandon ends the serving of an address space that misses pages, of a process that can neither be killed nor have them poisoned. Its userfaultfd
// stays open, here and with the guard: who touches a missing page waits for it, and never reads zeros.
func (r *reader) abandon(a *addressSpace) {
	if !r.leaveOut(a) {
		return
	}
	a.mu.Lock()
	a.gone = true
	a.mu.Unlock()
	a.s.opts.Logger.Error("process waits for its missing pages for good: it can neither be killed nor have them poisoned",
		"pid", a.hostPID, "image_pid", a.id, "child", a.child)
}

// leaveOut takes an address space out of its session. It reports false if somebody has done so before.
func (r *reader) leaveOut(a *addressSpace) bool {
	s := a.s
	s.mu.Lock()
	i := slices.Index(s.spaces, a)
	if i >= 0 {
		s.spaces = slices.Delete(s.spaces, i, i+1)
	}
	s.mu.Unlock()
	if i < 0 {
		return false
	}
	r.ignore(a)
	if a.stream.gaveUp() {
		s.needsNoHold()
	}
	if a.pidfd != nil {
		r.unwatchPID(a)
	}
	s.count.live.Add(-1)
	s.opts.Metrics.live.Dec()
	s.poke() // it may have been the last
	return true
}

// ignore ends the reading of a process's messages.
func (r *reader) ignore(a *addressSpace) {
	ofIt := func(f fault) bool { return f.a == a }
	r.parked, a.s.gate.faults = slices.DeleteFunc(r.parked, ofIt), slices.DeleteFunc(a.s.gate.faults, ofIt)
	r.direct.forget(a)
	r.wake.remove(a.fd.Fd())
	delete(r.byFD, int32(a.fd.Fd()))
}

// stop ends a process that may still miss pages, so that none of them is ever taken for zeros: it is killed, or, where
// there is no handle on it, its missing pages are poisoned.
func (r *reader) stop(a *addressSpace) {
	if !a.killed.IsZero() {
		return
	}
	if a.stream.settled() || !a.alive() {
		r.drop(a, targetGone)
		return
	}
	a.s.noteKilled()
	a.s.opts.Logger.Warn("stopping incomplete process", "pid", a.hostPID, "image_pid", a.id, "child", a.child)
	if !a.kill() {
		if r.poisonAll(a) || !a.alive() {
			r.drop(a, targetGone)
		} else {
			r.abandon(a)
		}
		return
	}
	// Its threads must not run on with zeros for the moment that the signal takes: the userfaultfd is closed when the pidfd
	// says that it has ended, or a look after killWait.
	a.killed = time.Now()
	r.ignore(a)
}

// poisonAll poisons every missing page that has content, and reports whether it could. New events may come in all the while.
func (r *reader) poisonAll(a *addressSpace) bool {
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
		if o := a.poisonContent(); o != deferred {
			return o == installed
		}
		unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	return false
}

// poisonContent returns deferred if the address space changed under it, and failed if the kernel cannot poison (before Linux 6.6).
func (a *addressSpace) poisonContent() outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pages.pieces {
		for at := p.start; at < p.end; {
			pl := a.pages.lookup(at)
			end := min(at+pl.pages*PageSize, p.end)
			if !pl.zero {
				if o := a.poison(span{at, end}); o != installed {
					return o
				}
			}
			at = end
		}
	}
	return installed
}

// stopAll ends all processes of a session.
func (r *reader) stopAll(s *Session) {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	running := func(a *addressSpace) bool { return a.killed.IsZero() }
	for { // poisoning one may bring in a child that it forked meanwhile
		i := slices.IndexFunc(s.spaces, running)
		if i < 0 {
			return
		}
		r.stop(s.spaces[i])
	}
}
