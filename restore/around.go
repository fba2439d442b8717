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
