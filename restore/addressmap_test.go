package restore

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const pg = PageSize

// modelMap is addressMap without any cleverness: for each page of a small address space, the home of what is mapped
// there, or 0.
type modelMap []uint64

func newModelMap(pages int, l *Layout) modelMap {
	m := make(modelMap, pages)
	for _, r := range l.Regions {
		for a := r.Start; a < r.End; a += pg {
			m[a/pg] = a
		}
	}
	return m
}

func (m modelMap) remove(r span) {
	for a := r.start; a < r.end; a += pg {
		m[a/pg] = 0
	}
}

func (m modelMap) remap(from, to, size uint64) {
	moving := append(modelMap(nil), m[from/pg:(from+size)/pg]...)
	m.remove(span{from, from + size})
	copy(m[to/pg:], moving)
}

// testLayout has regions with content, with gaps, next to each other, and without any content.
func testLayout() *Layout {
	return &Layout{
		Regions: []Region{
			{Start: 10 * pg, End: 30 * pg},
			{Start: 30 * pg, End: 50 * pg, WipeOnFork: true},
			{Start: 60 * pg, End: 70 * pg},
			{Start: 80 * pg, End: 120 * pg, Splittable: true},
		},
		Extents: []Extent{
			{Addr: 10 * pg, Pages: 5, Image: 0},
			{Addr: 20 * pg, Pages: 10, Image: 5},
			{Addr: 30 * pg, Pages: 1, Image: 100},
			{Addr: 49 * pg, Pages: 1, Image: 40},
			{Addr: 81 * pg, Pages: 30, Image: 50},
		},
	}
}

func modelImage(l *Layout, home uint64) (image uint64, zero bool) {
	for _, e := range l.Extents {
		if home >= e.Addr && home < e.end() {
			return e.Image + (home-e.Addr)/pg, false
		}
	}
	return 0, true
}

// checkMap compares every page of both, through lookup and through locate, and checks the invariants.
func checkMap(t *testing.T, m *addressMap, model modelMap) {
	t.Helper()
	moved := 0
	for i, p := range m.pieces {
		if p.end <= p.start || i > 0 && p.start < m.pieces[i-1].end {
			t.Fatalf("pieces out of order or empty: %+v", m.pieces)
		}
		if p.start != p.home {
			moved++
		}
	}
	if moved != m.moved {
		t.Fatalf("moved = %d, want %d: %+v", m.moved, moved, m.pieces)
	}
	where := map[uint64]uint64{}
	for i, home := range model {
		addr := uint64(i) * pg
		got := m.lookup(addr)
		image, zero := uint64(0), true
		if home != 0 {
			image, zero = modelImage(m.layout, home)
			where[home] = addr
		}
		if got.zero != zero || got.image != image || got.home != home || got.pages == 0 {
			t.Fatalf("lookup(%d) = %+v, want zero=%v image=%d home=%#x", i, got, zero, image, home)
		}
		// What it says of the following pages must hold for each of them.
		for k := uint64(1); k < got.pages && i+int(k) < len(model); k++ {
			next := m.lookup(addr + k*pg)
			if next.zero != got.zero || !got.zero && next.image != got.image+k {
				t.Fatalf("lookup(%d) promises %d pages, but page %d is %+v", i, got.pages, k, next)
			}
		}
	}
	for _, r := range m.layout.Regions {
		for home := r.Start; home < r.End; home += pg {
			addr, n, ok := m.locate(home, 4*pg)
			want, there := where[home]
			if ok != there || ok && addr != want || n == 0 || n > 4*pg || n%pg != 0 {
				t.Fatalf("locate(%#x) = %#x, %d, %v; want %#x, %v", home, addr, n, ok, want, there)
			}
			for k := uint64(pg); k < n; k += pg {
				next, there := where[home+k]
				if there != ok || ok && next != addr+k {
					t.Fatalf("locate(%#x) promises %d bytes (ok=%v), but %#x is at %#x, %v", home, n, ok, home+k, next, there)
				}
			}
		}
	}
}

func TestAddressMapFollowsRandomOperations(t *testing.T) {
	const pages = 160
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		l := testLayout()
		m, model := newAddressMap(l), newModelMap(pages, l)
		for step := range 60 {
			n := 1 + rnd.Uint64N(20)
			from := rnd.Uint64N(pages - n)
			to := rnd.Uint64N(pages - n)
			switch {
			case rnd.IntN(3) == 0:
				m.remove(span{from * pg, (from + n) * pg})
				model.remove(span{from * pg, (from + n) * pg})
			case from+n <= to || to+n <= from: // mremap refuses ranges that overlap
				m.remap(from*pg, to*pg, n*pg)
				model.remap(from*pg, to*pg, n*pg)
			}
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
			checkMap(t, &m, model)
		}
	}
}

func TestWhatAnUnmappingThatIsToldLateTakesOut(t *testing.T) {
	type step func(*addressMap)
	remap := func(from, to, n uint64) step { return func(m *addressMap) { m.remap(from*pg, to*pg, n*pg) } }
	unmap := func(from, to uint64) step { return func(m *addressMap) { m.unmap(span{from * pg, to * pg}) } }
	const moved, other = 20, 81 // where 5 pages of content each are at first
	for _, tt := range []struct {
		name   string
		steps  []step
		at     uint64 // a page
		mapped bool   // whether it has content then
	}{
		{"a move ends", []step{remap(moved, 140, 5), unmap(moved, moved+5)}, 140, true},
		{"its old range is free", []step{remap(moved, 140, 5), unmap(moved, moved+5)}, moved, false},
		{"another thread moves onto it before that is told", []step{remap(moved, 140, 5), remap(other, moved, 5), unmap(moved, moved+5), unmap(other, other+5)}, moved, true},
		{"the ends come in another order", []step{remap(moved, 140, 5), remap(other, moved, 5), unmap(other, other+5), unmap(moved, moved+5)}, moved, true},
		{"a part of it", []step{remap(moved, 140, 5), remap(other, moved+1, 2), unmap(moved, moved+5)}, moved + 1, true},
		{"what was moved there is unmapped, too", []step{remap(moved, 140, 5), remap(other, moved+1, 2), unmap(moved+1, moved+3)}, moved + 1, false},
		{"and then the end is told", []step{remap(moved, 140, 5), remap(other, moved+1, 2), unmap(moved+1, moved+2), unmap(moved, moved+5)}, moved + 2, true},
		{"what was moved there moves on", []step{remap(moved, 140, 5), remap(other, moved, 5), remap(moved, 150, 5), unmap(moved, moved+5), unmap(moved, moved+5)}, 150, true},
		{"it is unmapped later", []step{remap(moved, 140, 5), unmap(moved, moved+5), remap(other, moved, 5), unmap(other, other+5), unmap(moved, moved+5)}, moved, false},
		{
			"the old range stays mapped, is replaced by other memory, and unmapped with it",
			[]step{remap(moved, 140, 5), unmap(moved+1, moved+3), remap(other, moved+1, 2), unmap(other, other+2), unmap(moved, moved+5)}, moved + 1, false,
		},
		{"more is unmapped", []step{remap(moved, 140, 5), unmap(moved-1, moved+6), remap(other, moved, 5), unmap(moved, moved+5)}, moved, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newAddressMap(testLayout())
			for _, s := range tt.steps {
				s(&m)
			}
			if got := !m.lookup(tt.at * pg).zero; got != tt.mapped {
				t.Errorf("page %d has content: %v, want %v; pieces %+v", tt.at, got, tt.mapped, m.pieces)
			}
		})
	}
}

func TestMovesThatNeverEndAreForgotten(t *testing.T) {
	var m moves
	for i := range uint64(3 * maxMoves) {
		m.from(span{i, i + 1})
	}
	if len(m) != maxMoves || m[maxMoves-1].start != 3*maxMoves-1 {
		t.Errorf("%d are remembered, the last one %v", len(m), m[len(m)-1])
	}
}

func TestForkedChildStartsWithParentsMap(t *testing.T) {
	l := testLayout()
	m, model := newAddressMap(l), newModelMap(160, l)
	m.remap(10*pg, 130*pg, 5*pg)
	model.remap(10*pg, 130*pg, 5*pg)
	c := m.forChild(nil, false)
	m.remove(span{0, 160 * pg}) // the parent's later changes are its own
	model.remove(span{30 * pg, 50 * pg})
	checkMap(t, &c, model) // the region marked MADV_WIPEONFORK is zero in the child
}

func TestWhatIsWipedByNowIsZeroInTheChild(t *testing.T) {
	l := testLayout()
	m, model := newAddressMap(l), newModelMap(160, l)
	// What the snapshot said of [30, 50) was taken back, and said of a part of another region instead.
	wiped := span{12 * pg, 15 * pg}
	c := m.forChild([]span{wiped}, true)
	model.remove(wiped)
	checkMap(t, &c, model)
}

func TestPiecesJoinWhenMemoryMovesBackHome(t *testing.T) {
	l := testLayout()
	m := newAddressMap(l)
	m.remap(20*pg, 140*pg, 5*pg)
	m.remap(140*pg, 20*pg, 5*pg)
	want := newAddressMap(l)
	if d := cmp.Diff(want.pieces, m.pieces, cmp.AllowUnexported(piece{})); d != "" {
		t.Errorf("pieces after moving there and back (-want +got):\n%s", d)
	}
}

func TestLayoutValidate(t *testing.T) {
	ok := *testLayout()
	region := func(start, end uint64) Region { return Region{Start: start, End: end} }
	for _, tc := range []struct {
		name string
		l    Layout
		ok   bool
	}{
		{"a layout of several regions is valid", ok, true},
		{"an empty layout is valid", Layout{}, true},
		{"an unaligned region is refused", Layout{Regions: []Region{region(1, pg)}}, false},
		{"an empty region is refused", Layout{Regions: []Region{region(pg, pg)}}, false},
		{"overlapping regions are refused", Layout{Regions: []Region{region(0, 2*pg), region(pg, 3*pg)}}, false},
		{"an extent outside every region is refused", Layout{Regions: []Region{region(0, pg)}, Extents: []Extent{{Addr: pg, Pages: 1}}}, false},
		{"an extent across two regions is refused", Layout{Regions: []Region{region(0, pg), region(pg, 2*pg)}, Extents: []Extent{{Addr: 0, Pages: 2}}}, false},
		{"overlapping extents are refused", Layout{Regions: []Region{region(0, 8*pg)}, Extents: []Extent{{Addr: 0, Pages: 2}, {Addr: pg, Pages: 1, Image: 2}}}, false},
		{"an extent whose size overflows is refused", Layout{Regions: []Region{region(0, 8*pg)}, Extents: []Extent{{Addr: pg, Pages: 1 << 60}}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.l.Validate(); (err == nil) != tc.ok {
				t.Errorf("Validate() = %v", err)
			}
		})
	}
}

func TestZeroRanges(t *testing.T) {
	l := &Layout{
		Regions: []Region{
			{Start: 0, End: 100 * pg},                            // no content at all
			{Start: 100 * pg, End: 1000 * pg},                    // a large gap, not splittable
			{Start: 1000 * pg, End: 2000 * pg, Splittable: true}, // gaps of 10 and 900 pages
			{Start: 3000 * pg, End: 3000*pg + pg}, {Start: 4000 * pg, End: 4001 * pg},
		},
		Extents: []Extent{
			{Addr: 100 * pg, Pages: 1},
			{Addr: 1010 * pg, Pages: 90, Image: 1},
			{Addr: 4000 * pg, Pages: 1, Image: 200},
		},
	}
	want := []span{{0, 100 * pg}, {1100 * pg, 2000 * pg}, {3000 * pg, 3001 * pg}}
	if d := cmp.Diff(want, l.zeroRanges(100*pg), cmp.AllowUnexported(span{})); d != "" {
		t.Errorf("zero ranges (-want +got):\n%s", d)
	}
}

func TestChunksCoverEveryPageOnce(t *testing.T) {
	l := &Layout{
		Regions: []Region{{Start: 0, End: 1 << 30}},
		Extents: []Extent{{0, 3, 0}, {10 * pg, 1000, 3}, {2000 * pg, 1, 1003}, {3000 * pg, chunkPages, 1004}},
	}
	seen := map[uint64]int{}
	for _, c := range l.chunks() {
		if c.pages == 0 || c.pages > chunkPages {
			t.Errorf("chunk of %d pages", c.pages)
		}
		for left := c.pages; left > 0; c.ext, c.off = c.ext+1, 0 {
			e := l.Extents[c.ext]
			n := min(left, e.Pages-c.off)
			for k := range n {
				seen[e.Image+c.off+k]++
			}
			left -= n
		}
	}
	if n := len(l.chunks()); n > 6 {
		t.Errorf("%d pages in %d chunks", l.Pages(), n)
	}
	for p := range l.Pages() {
		if seen[p] != 1 {
			t.Fatalf("image page %d is in %d chunks", p, seen[p])
		}
	}
}

func TestChunksEndWithThePageTable(t *testing.T) {
	const table = 512
	l := &Layout{
		Regions: []Region{{Start: 0, End: 1 << 30}},
		// Two tables and a bit on both sides; single pages; many in the next table.
		Extents: []Extent{{(10*table - 3) * pg, 2*table + 7, 0}, {100 * table * pg, 1, 2000}, {200 * table * pg, 1, 2001}, {(300*table + 40) * pg, 100, 2002}},
	}
	want := []chunk{{0, 0, 3}, {0, 3, table}, {0, 3 + table, table}, {0, 3 + 2*table, 6}, {3, 0, 100}}
	if d := cmp.Diff(want, l.chunks(), cmp.AllowUnexported(chunk{})); d != "" {
		t.Errorf("chunks (-want +got):\n%s", d)
	}
}
