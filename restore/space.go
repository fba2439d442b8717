package restore

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"thaw/uffd"
)

// An addressSpace is one process's memory while it is served.
type addressSpace struct {
	s       *Session
	id      int      // immutable; the frozen pid, for logs; a child has its parent's
	hostPID int      // immutable
	child   bool     // immutable; forked after the restore
	fd      *uffd.FD // immutable; closed by the reader
	stream  *streamState

	// mu is held exclusively from reading messages until their events are applied, and shared from looking up an
	// address until the page has been installed there.
	mu    sync.RWMutex
	pages addressMap // protected by mu
	gone  bool       // protected by mu; set by the reader before it closes fd
	pidfd *os.File   // protected by mu, written by the reader only; nil if unknown

	release func()      // owned by the reader: lets the guard go; nil if none holds the process
	isLost  atomic.Bool // somebody found the process gone; the reader looks into it

	around aroundState // owned by the reader
	zeroed bool        // owned by the reader: large empty ranges have been dropped
	killed time.Time   // owned by the reader: when the process was killed by us; zero if it was not
}

func (s *Session) newSpace(p Process) *addressSpace {
	a := &addressSpace{s: s, id: p.ID, hostPID: p.HostPID, fd: p.FD, pidfd: p.PIDFD, pages: newAddressMap(p.Layout)}
	a.stream = newStreamState(p.Layout)
	s.count.processes.Add(1)
	s.count.live.Add(1)
	s.count.pagesTotal.Add(a.stream.total)
	s.opts.Metrics.live.Inc()
	if a.stream.preload.left[must] > 0 {
		s.gate.pending.Add(1)
	}
	return a
}

// fork returns the address space of a child that the process has just forked. Preconditions: a.mu is held exclusively
// since before the fork message was read, so that no page can have arrived in the parent and not in the child.
func (a *addressSpace) forkLocked(fd *uffd.FD) *addressSpace {
	c := &addressSpace{s: a.s, id: a.id, child: true, fd: fd, stream: newStreamState(a.pages.layout)}
	c.stream.preload = preloadState{} // most children exec or end
	if a.stream.settled() {
		// The kernel has copied all there is. What is missing in the child was wiped on its way, and is zero.
		c.pages, c.stream.left = addressMap{layout: a.pages.layout}, 0
	} else {
		c.pages = a.pages.forChild(wipedOnFork(a.hostPID))
	}
	a.s.count.processes.Add(1)
	a.s.count.live.Add(1)
	a.s.opts.Metrics.live.Inc()
	return c
}

// applyLocked brings the map up to date with an event. Preconditions: a.mu is held exclusively since before the
// message was read.
func (a *addressSpace) applyLocked(m *uffd.Message) {
	switch m.Kind() {
	case uffd.EventRemap:
		from, to, size := m.Remap()
		a.pages.remap(from, to, size)
	case uffd.EventRemove:
		r := m.Removed()
		a.pages.remove(span{r.Start, r.End})
	case uffd.EventUnmap:
		r := m.Removed()
		a.pages.unmap(span{r.Start, r.End})
	}
}

// zeros is the source of zero pages that are copied: anonymous memory that nobody ever writes, all of it the kernel's
// one zero page.
var zeros = func() []byte {
	b, err := unix.Mmap(-1, 0, maxZeroPages*PageSize, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(fmt.Sprintf("map %d bytes: %v", maxZeroPages*PageSize, err)) // at start-up, out of address space
	}
	return b
}()

// unreadable is a page that cannot be read, for probing.
var unreadable = func() []byte {
	b, err := unix.Mmap(-1, 0, PageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(fmt.Sprintf("map a page: %v", err))
	}
	return b
}()

// A want is what a thread waits for: the page at addr, and how many of the following pages may come with it in the
// same call if they are at hand, by kind.
type want struct {
	addr  uint64
	write bool
	data  int // pages of content, at least 1
	zero  int // zero pages, at least 1
}

// install puts what belongs at w.addr there. It returns how it went and the number of bytes that it installed.
// It allocates nothing and waits for no storage.
func (a *addressSpace) install(w want) (outcome, uint64) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.gone {
		return targetGone, 0
	}
	pl := a.pages.lookup(w.addr)
	if pl.zero {
		return a.installZero(w, pl)
	}
	data, n := a.s.opts.Source.Ready(pl.image, int(min(uint64(w.data), pl.pages)))
	switch {
	case n == 0:
		return loading, 0
	case data == nil:
		pl.pages = uint64(n)
		return a.installZero(w, pl)
	}
	if tell := a.s.opts.Demanded; tell != nil {
		tell(pl.image, w.write) // before the thread goes on
	}
	res := a.copyRLocked(w.addr, data[:n*PageSize], classDemand)
	if res.Outcome == uffd.NotRegistered && n > 1 {
		// The mapping ends, or was split, before the neighbors do.
		res = a.copyRLocked(w.addr, data[:PageSize], classDemand)
	}
	o, bytes := a.settle(w.addr, res, classDemand)
	if o == installed {
		a.countDemand(pl.image)
	}
	return o, bytes
}

// copyRLocked is the copying ioctl. Preconditions: a.mu is held, shared at least, since addr was looked up.
//
// What is preloaded wakes nobody: the reader sees to every fault, wakes the thread when the page is there, and may hold it until then.
func (a *addressSpace) copyRLocked(addr uint64, data []byte, c class) uffd.Result {
	var flags uffd.CopyFlags
	if c == classPreload {
		flags = uffd.CopyDontWake
	}
	return a.trueOutcome(a.fd.Copy(addr, data, flags))
}

// trueOutcome corrects a result by which nothing is registered at an address. The kernel looks for the mapping before it
// looks whether the address space is changing (mfill_atomic in mm/userfaultfd.c), so a page that is being moved away can
// get that answer, too, and to believe it would lose the page. But an event of such a change is still unread, because
// a.mu keeps the reader out since the address was looked up.
func (a *addressSpace) trueOutcome(res uffd.Result) uffd.Result {
	if res.Outcome == uffd.NotRegistered && a.changing() {
		res.Outcome = uffd.Again
	}
	return res
}

// changing reports whether an event has been raised that has not been dealt with. The probe copies nothing: no address
// space begins at 0, but the kernel looks at that later.
func (a *addressSpace) changing() bool {
	return a.fd.Copy(0, zeros[:PageSize], 0).Outcome == uffd.Again
}

func (a *addressSpace) installZero(w want, pl place) (outcome, uint64) {
	n := min(uint64(w.zero), pl.pages)
	if !w.write && n == 1 {
		// One shared page for all that is only read; a later write is an ordinary copy on write.
		res := a.fd.Zeropage(uffd.Range{Start: w.addr, End: w.addr + PageSize}, 0)
		return a.settle(w.addr, a.trueOutcome(res), classZero)
	}
	// A copy of zeros, not the zero page: the thread is about to write.
	res := a.copyRLocked(w.addr, zeros[:n*PageSize], classZero)
	if res.Outcome == uffd.NotRegistered && n > 1 {
		res = a.copyRLocked(w.addr, zeros[:PageSize], classZero)
	}
	return a.settle(w.addr, res, classZero)
}

// settle turns the kernel's answer for the page at addr into an outcome, and makes sure that nobody sleeps on a page
// that is there.
func (a *addressSpace) settle(addr uint64, res uffd.Result, c class) (outcome, uint64) {
	if res.Bytes > 0 {
		a.s.countBytes(c, res.Bytes)
		return installed, res.Bytes // whatever stopped it came behind the page that was asked for
	}
	switch res.Outcome {
	case uffd.Exists:
		a.wakePage(addr)
		return alreadyPresent, 0
	case uffd.Again, uffd.NoMemory:
		// NoMemory is the memory limit of the target's own cgroup: it may pass, and giving up would lose the page.
		return deferred, 0
	case uffd.NotRegistered:
		if !a.s.isRegistered() {
			return deferred, 0
		}
		// Not ours any more. A thread that still waits has to look again.
		a.wakePage(addr)
		return unmapped, 0
	case uffd.Gone, uffd.Closed:
		return targetGone, 0
	}
	return failed, 0
}

func (a *addressSpace) wakePage(addr uint64) {
	a.fd.Wake(uffd.Range{Start: addr, End: addr + PageSize}) // can only fail for a dead process
}

// alive reports whether the process still has its memory: exec and exit tear it down without a word. The probe is a
// copy that cannot succeed, for its source cannot be read; but of a process that is gone the kernel says so first.
func (a *addressSpace) alive() bool {
	const somewhere = 1<<47 - 2*PageSize // any address that the kernel would take
	return a.fd.Copy(somewhere, unreadable, 0).Outcome != uffd.Gone
}

// lost tells the reader, which alone lets go of address spaces, that the process seems to be gone.
func (a *addressSpace) lost() {
	if !a.isLost.Swap(true) {
		a.s.poke()
	}
}

// poison makes every page of r that is still missing and has content deadly to touch. Returns deferred if the address
// space is changing and failed if the kernel cannot do it; some pages may have been poisoned then. Preconditions: a.mu is
// held, shared at least, since r was looked up.
func (a *addressSpace) poison(r span) outcome {
	for r.start < r.end {
		res := a.trueOutcome(a.fd.Poison(uffd.Range{Start: r.start, End: r.end}, 0))
		r.start += res.Bytes
		switch res.Outcome {
		case uffd.Done, uffd.Gone, uffd.Closed:
			return installed
		case uffd.Exists, uffd.NotRegistered:
			r.start += PageSize
		case uffd.Again:
			if res.Bytes == 0 {
				return deferred
			}
		default:
			return failed
		}
	}
	return installed
}

// kill stops the process at once. It reports false if there is no handle on it.
func (a *addressSpace) kill() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.pidfd == nil {
		return false
	}
	err := unix.PidfdSendSignal(int(a.pidfd.Fd()), unix.SIGKILL, nil, 0)
	return err == nil || err == unix.ESRCH
}
