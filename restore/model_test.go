//go:build linux

package restore

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "run only this seed of the random model")
	modelSeeds = flag.Uint64("model.seeds", 12, "number of seeds of the random model")
)

// The model's address space is divided into slots, slotStride pages apart. A slot holds one mapping of at most
// slotPages pages, or none, so that every mremap has room and concerns one mapping.
const (
	slots      = 24
	slotPages  = 64
	slotStride = 128
)

// A memory is what a process's memory should hold: the same operations on plain bytes.
type memory struct {
	slot [slots]*slot
}

// A slot is one mapping: its pages from the slot's start on. A hole (nil page) is unmapped.
type slot struct {
	pages [][]byte
	whole bool // one mapping still, which mremap takes
}

func (s *slot) clone() *slot {
	c := &slot{whole: s.whole, pages: make([][]byte, len(s.pages))}
	for i, p := range s.pages {
		if p != nil {
			c.pages[i] = append([]byte(nil), p...)
		}
	}
	return c
}

func (m *memory) clone() *memory {
	c := &memory{}
	for i, s := range m.slot {
		if s != nil {
			c.slot[i] = s.clone()
		}
	}
	return c
}

// slotRange returns pages [from, from+n) of slot i.
func slotRange(i int, from, n int) uffd.Range { return at(uint64(i*slotStride+from), uint64(n)) }

// A world is a process and what its memory should hold.
type world struct {
	target *uffdtest.Target
	mem    *memory
}

// modelLayout fills most slots, with content in runs of all lengths, gaps between, and slots without any.
func modelLayout(rnd *rand.Rand) (*Layout, *testSource) {
	l := &Layout{}
	image := uint64(0)
	for i := range slots * 2 / 3 {
		n := 1 + rnd.IntN(slotPages)
		r := slotRange(i, 0, n)
		l.Regions = append(l.Regions, Region{Start: r.Start, End: r.End, Splittable: rnd.IntN(2) == 0})
		for p := rnd.IntN(4); p < n; {
			run := min(1+rnd.IntN(24), n-p)
			l.Extents = append(l.Extents, Extent{Addr: r.Start + uint64(p)*pg, Pages: uint64(run), Image: image})
			image += uint64(run)
			p += run + rnd.IntN(6)
		}
	}
	src := newTestSource(image + 1)
	src.cold = rnd.IntN(2) == 0
	src.zero = func(p uint64) bool { return p%11 == 3 }
	return l, src
}

func newWorld(f *fixture, l *Layout) *world {
	w := &world{target: f.target, mem: &memory{}}
	read := original(l, f.source)
	for _, r := range l.Regions {
		s := &slot{whole: true}
		for a := r.Start; a < r.End; a += pg {
			s.pages = append(s.pages, append([]byte(nil), read(a)...))
		}
		w.mem.slot[(r.Start-base)/pg/slotStride] = s
	}
	return w
}

// check reads n pages of slot i from page from on, where they are mapped.
func (w *world) check(t *testing.T, i, from, n int) {
	t.Helper()
	s := w.mem.slot[i]
	for p := from; p < from+n && p < len(s.pages); p++ {
		if s.pages[p] == nil {
			continue
		}
		end := p + 1
		for end < from+n && end < len(s.pages) && s.pages[end] != nil {
			end++
		}
		expect(t, w.target, slotRange(i, p, end-p), func(addr uint64) []byte {
			return s.pages[int((addr-base)/pg)-i*slotStride]
		})
		p = end
	}
}

func (w *world) checkAll(t *testing.T) {
	t.Helper()
	for i, s := range w.mem.slot {
		if s != nil {
			w.check(t, i, 0, len(s.pages))
		}
	}
}

// free returns a slot without a mapping, or -1.
func (w *world) free(rnd *rand.Rand) int {
	for range 20 {
		if i := rnd.IntN(slots); w.mem.slot[i] == nil {
			return i
		}
	}
	return -1
}

// step does one random operation to the process and to the model, and returns a description.
func (w *world) step(t *testing.T, rnd *rand.Rand) string {
	t.Helper()
	i := rnd.IntN(slots)
	s := w.mem.slot[i]
	if s == nil {
		return "nothing"
	}
	n := len(s.pages)
	from := rnd.IntN(n)
	count := 1 + rnd.IntN(n-from)
	switch op := rnd.IntN(10); op {
	case 0, 1, 2:
		w.check(t, i, from, count)
		return fmt.Sprintf("read slot %d [%d, +%d)", i, from, count)
	case 3, 4:
		if s.pages[from] == nil {
			return "nothing"
		}
		off := rnd.IntN(pg - 8)
		data := []byte(fmt.Sprintf("%08d", rnd.IntN(1e8)))
		w.target.Write(slotRange(i, from, 1).Start+uint64(off), data).Must()
		copy(s.pages[from][off:], data)
		return fmt.Sprintf("write slot %d page %d", i, from)
	case 5:
		for _, p := range s.pages[from : from+count] {
			if p == nil {
				return "nothing"
			}
		}
		w.target.Madvise(slotRange(i, from, count), unix.MADV_DONTNEED).Must()
		for p := from; p < from+count; p++ {
			s.pages[p] = make([]byte, pg)
		}
		return fmt.Sprintf("dontneed slot %d [%d, +%d)", i, from, count)
	case 6: // unmap some, most often the end
		if rnd.IntN(3) > 0 {
			count = n - from
		}
		w.target.Munmap(slotRange(i, from, count)).Must()
		for p := from; p < from+count; p++ {
			s.pages[p] = nil
		}
		if from+count == n {
			s.pages = s.pages[:from]
		} else {
			s.whole = false
		}
		if len(s.pages) == 0 {
			w.mem.slot[i] = nil
		}
		return fmt.Sprintf("unmap slot %d [%d, +%d)", i, from, count)
	case 7: // grow or shrink in place
		if !s.whole {
			return "nothing"
		}
		size := 1 + rnd.IntN(slotPages)
		w.target.Mremap(slotRange(i, 0, n), uint64(size)*pg, 0, 0).Must()
		for len(s.pages) < size {
			s.pages = append(s.pages, make([]byte, pg))
		}
		s.pages = s.pages[:size]
		return fmt.Sprintf("resize slot %d from %d to %d", i, n, size)
	case 8: // move, sometimes onto another mapping, sometimes with another size, sometimes leaving the old one
		to := w.free(rnd)
		if rnd.IntN(3) == 0 {
			to = rnd.IntN(slots)
		}
		if !s.whole || to < 0 || to == i {
			return "nothing"
		}
		if w.mem.slot[to] != nil {
			// The destination's own pages beyond the size that is moved would stay: start from nothing there.
			w.target.Munmap(slotRange(to, 0, slotPages)).Must()
		}
		flags, size := unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, n
		switch rnd.IntN(3) {
		case 0:
			flags |= unix.MREMAP_DONTUNMAP
		case 1:
			size = 1 + rnd.IntN(slotPages)
		}
		w.target.Mremap(slotRange(i, 0, n), uint64(size)*pg, flags, slotRange(to, 0, 1).Start).Must()
		w.mem.slot[to], w.mem.slot[i] = s.clone(), nil
		for len(w.mem.slot[to].pages) < size {
			w.mem.slot[to].pages = append(w.mem.slot[to].pages, make([]byte, pg))
		}
		w.mem.slot[to].pages = w.mem.slot[to].pages[:size]
		if flags&unix.MREMAP_DONTUNMAP != 0 {
			left := &slot{whole: true}
			for range n {
				left.pages = append(left.pages, make([]byte, pg))
			}
			w.mem.slot[i] = left
		}
		return fmt.Sprintf("move slot %d to %d, %d to %d pages, flags %#x", i, to, n, size, flags)
	}
	// A bare move onto a mapping of the same size or smaller: the kernel unmaps it.
	to := rnd.IntN(slots)
	if d := w.mem.slot[to]; !s.whole || to == i || d == nil || len(d.pages) > n {
		return "nothing"
	}
	w.target.Mremap(slotRange(i, 0, n), uint64(n)*pg, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, slotRange(to, 0, 1).Start).Must()
	w.mem.slot[to], w.mem.slot[i] = s, nil
	return fmt.Sprintf("move slot %d over %d", i, to)
}

// randomRuns returns runs of the source's pages, some of which no process has.
func randomRuns(rnd *rand.Rand, src *testSource) (runs []Run) {
	for range rnd.IntN(40) {
		runs = append(runs, Run{rnd.Uint64N(uint64(len(src.loaded))), 1 + rnd.Uint64N(100)})
	}
	return runs
}

// TestRandomOperationsMatchPlainMemory lets a process do everything that it may do to its memory while it is served
// and streamed, forks included, and holds every byte against plain memory that went through the same.
func TestRandomOperationsMatchPlainMemory(t *testing.T) {
	for seed := range *modelSeeds {
		if *modelSeed != 0 {
			seed = *modelSeed
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			l, src := modelLayout(rnd)
			o := Options{Stream: StreamPolicy(rnd.IntN(2)), Workers: 1 + rnd.IntN(3)}
			if rnd.IntN(2) == 0 {
				o.Rate = 1 << 20 // slow enough that the stream is under way all the time
			}
			if rnd.IntN(2) == 0 {
				l.Preload = NewPreload(l, randomRuns(rnd, src), randomRuns(rnd, src))
				o.Quiet, o.SinglePages = time.Duration(rnd.IntN(2))*time.Hour, rnd.IntN(2) == 0
			}
			f := begin(t, l, src, o)
			f.Registered()
			worlds := []*world{newWorld(f, l)}
			for step := range 150 {
				w := worlds[rnd.IntN(len(worlds))]
				what := ""
				if rnd.IntN(40) == 0 && len(worlds) < 5 {
					worlds = append(worlds, &world{target: w.target.Fork().Must(), mem: w.mem.clone()})
					what = "fork"
				} else {
					what = w.step(t, rnd)
				}
				if testing.Verbose() {
					t.Logf("step %d: process %d: %s", step, w.target.PID(), what)
				}
			}
			if rnd.IntN(2) == 0 {
				f.Drain()
				if err := f.wait(); err != nil {
					t.Fatalf("Run() = %v", err)
				}
			}
			for _, w := range worlds {
				w.checkAll(t)
			}
		})
		if *modelSeed != 0 {
			return
		}
	}
}

// TestStormsWhileStreaming has several threads of the process unmap, move, drop and fork at the same time, each in
// slots of its own, while other threads fault and the stream runs.
func TestStormsWhileStreaming(t *testing.T) {
	const threads = 6
	const pages = 2048 // of each thread's region
	l := &Layout{}
	stride := uint64(4 * pages)
	for i := range uint64(threads) {
		r := at(i*stride, pages)
		l.Regions = append(l.Regions, Region{Start: r.Start, End: r.End})
		l.Extents = append(l.Extents, Extent{Addr: r.Start, Pages: pages, Image: i * pages})
	}
	src := newTestSource(threads * pages)
	f := begin(t, l, src, Options{Rate: 64 << 20})
	f.Registered()
	read := original(l, src)

	for round := range uint64(6) {
		// Thread 0 moves its region to and fro, 1 drops a piece, 2 unmaps a piece from the end, 3 forks, 4 and 5 touch.
		from, to := at(0, pages), at(2*pages, pages)
		if round%2 == 1 {
			from, to = to, from
		}
		move := f.target.Mremap(from, pages*pg, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, to.Start)
		drop := f.target.Madvise(at(stride+round*100, 100), unix.MADV_DONTNEED)
		cut := f.target.Munmap(at(2*stride+pages-(round+1)*50, 50))
		fork := f.target.Fork()
		touch := f.target.Sums(at(4*stride+round*300, 300))
		other := f.target.Sums(at(5*stride+(5-round)*300, 300))
		move.Must()
		drop.Must()
		cut.Must()
		for i, got := range touch.Must() {
			if want := uffdtest.Sum(read(at(4*stride+round*300+uint64(i), 1).Start)); got != want {
				t.Fatalf("round %d: touched page %d reads %#x, want %#x", round, i, got, want)
			}
		}
		for i, got := range other.Must() {
			if want := uffdtest.Sum(read(at(5*stride+(5-round)*300+uint64(i), 1).Start)); got != want {
				t.Fatalf("round %d: touched page %d reads %#x, want %#x", round, i, got, want)
			}
		}
		child := fork.Must()
		// The child was forked before, after or between the other operations, but its touched regions are untouched.
		expect(t, child, at(4*stride, 1500), read)
		expect(t, child, at(3*stride, pages), read)
		child.Kill()
	}
	home := at(0, pages)
	expect(t, f.target, home, read)
	expect(t, f.target, at(stride, 600), func(uint64) []byte { return make([]byte, pg) })
	expect(t, f.target, at(stride+600, pages-600), read)
	expect(t, f.target, at(2*stride, pages-300), read)
	f.Drain()
	if err := f.wait(); err != nil {
		t.Errorf("Run() = %v", err)
	}
	expect(t, f.target, home, read)
}

// TestMovesRaceWithTheStream moves small mappings while the stream is installing their pages. The kernel may answer that
// nothing is registered where a mapping has just left, before it looks whether the address space is changing; a stream
// that believes it loses the pages.
func TestMovesRaceWithTheStream(t *testing.T) {
	const regions, pages = 96, 8
	src := newTestSource(regions * pages)
	for round := range 20 {
		l := &Layout{}
		for i := range uint64(regions) {
			r := at(i*slotStride, pages)
			l.Regions = append(l.Regions, Region{Start: r.Start, End: r.End})
			l.Extents = append(l.Extents, Extent{Addr: r.Start, Pages: pages, Image: i * pages})
		}
		f := begin(t, l, src, Options{Workers: 2})
		f.Registered()
		var moves []*uffdtest.Call[uint64]
		for i := range uint64(regions) {
			moves = append(moves, f.target.Mremap(at(i*slotStride, pages), pages*pg, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, at((regions+i)*slotStride, 1).Start))
		}
		for _, m := range moves {
			m.Must()
		}
		if err := f.wait(); err != nil {
			t.Fatal(err)
		}
		for i := range uint64(regions) {
			expect(t, f.target, at((regions+i)*slotStride, pages), func(addr uint64) []byte {
				return src.page(i*pages + (addr-base)/pg - (regions+i)*slotStride)
			})
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
		f.target.Kill()
	}
}
