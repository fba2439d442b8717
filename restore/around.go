package restore

// How much comes with a page that a thread waits for, if it is at hand.
const (
	// minAround is what comes along for a fault anywhere: 64 KiB cost 20 us more than 4 KiB and save, in code that
	// walks through objects, most of the faults that would follow.
	minAround = 16
	// maxAround bounds the window of faults that follow one another upwards: 256 KiB is where a single copy reaches
	// its full speed, and takes about 80 us.
	maxAround = 64
	// maxZeroPages is the same bound for memory without content, where a process fills fresh memory.
	maxZeroPages = 128
)

// gapPages is the window, aligned in the image, in which the gaps that a preload has left are filled when one of them faults: 128 KiB.
const gapPages = 32

// fillGaps brings what a preload has left out near a page that a thread has waited for, once the thread has been woken. One copying call cannot:
// it ends at the first page that is there. What another input needs than those that the preload was learned from often lies together. It
// waits for no storage.
func (a *addressSpace) fillGaps(addr uint64) {
	preload := a.stream.layout.Preload
	if preload == nil || a.s.opts.SinglePages {
		return
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.gone {
		return
	}
	pl := a.pages.lookup(addr)
	if pl.zero {
		return
	}
	e := &a.stream.layout.Extents[a.stream.layout.extentAt(pl.home)]
	from := max(pl.image/gapPages*gapPages, e.Image)
	to := min(pl.image/gapPages*gapPages+gapPages, e.Image+e.Pages)
	for from < to {
		if preload.has(from) {
			from++
			continue
		}
		n := uint64(1)
		for from+n < to && !preload.has(from+n) {
			n++
		}
		data, ready := a.s.opts.Source.Ready(from, int(n))
		switch {
		case ready == 0:
			ready = int(n) // comes with a fault, or with the stream
		case data != nil:
			_, copied := a.copyHomeRLocked(e.Addr+(from-e.Image)*PageSize, data[:ready*PageSize], classPreload)
			a.s.countBytes(classDemand, copied)
		}
		from += uint64(ready)
	}
}

// aroundState recognizes faults that follow one another upwards, and lets the window grow with them. One for each
// address space: two threads that stream at the same time take each other's growth away, and still get minAround.
type aroundState struct {
	next   uint64 // the address at which the last window ended
	window int    // pages
}

// want returns how much to install for a fault at addr.
func (s *aroundState) want(addr uint64, write bool) want {
	w := want{addr: addr, write: write, data: minAround, zero: 1}
	if addr == s.next {
		s.window = min(s.window*2, maxZeroPages)
		w.data, w.zero = max(minAround, min(s.window, maxAround)), s.window
	} else {
		s.window = 1
	}
	return w
}

// installed says that n bytes were installed for the last want.
func (s *aroundState) installed(addr, n uint64) {
	s.next = addr + n
	s.window = max(s.window, int(n/PageSize))
}
