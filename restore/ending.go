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
	s := a.s
	s.mu.Lock()
	i := slices.Index(s.spaces, a)
	if i >= 0 {
		s.spaces = slices.Delete(s.spaces, i, i+1)
	}
	s.mu.Unlock()
	if i < 0 {
		return
	}
	r.ignore(a)
	if a.stream.gaveUp() {
		s.needsNoHold()
	}
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
	s.poke() // it may have been the last
	s.opts.Logger.Debug("process left", "pid", a.hostPID, "image_pid", a.id, "child", a.child, "complete", why == installed)
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
		r.poisonAll(a)
		r.drop(a, targetGone)
		return
	}
	// Its threads must not run on with zeros for the moment that the signal takes: the userfaultfd is closed when the pidfd
	// says that it has ended, or a look after killWait.
	a.killed = time.Now()
	r.ignore(a)
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
