package restore

import (
	"errors"
	"fmt"
	"slices"
	"sort"
)

// ErrLayout marks a layout that contradicts itself. It means that the snapshot it came from is not to be trusted.
var ErrLayout = errors.New("bad memory layout")

// A Region is a range of addresses, [Start, End) in bytes, that the restorer registers with userfaultfd: one lazily
// restored mapping of the process.
type Region struct {
	Start, End uint64

	// Splittable says that parts of the region may leave the userfaultfd before the rest, which splits the mapping
	// in the kernel. Only mappings that nobody will mremap are splittable (brk heap, thread arenas, stacks):
	// mremap(2) fails across the border of two mappings, and malloc would take that for lack of memory.
	Splittable bool

	// WipeOnFork says that a forked child sees zeros here (MADV_WIPEONFORK).
	WipeOnFork bool
}

// An Extent places Pages consecutive pages of the image, from page Image on, at address Addr (in bytes).
type Extent struct {
	Addr, Pages, Image uint64
}

func (e Extent) end() uint64 { return e.Addr + e.Pages*PageSize }

// A Layout says what one process's lazily restored memory contains. Both lists are sorted by address and free of
// overlap, and every extent lies inside one region. What lies in a region and in no extent is zero.
//
// A layout is immutable once a session has it, and may be shared by any number of sessions.
type Layout struct {
	Regions []Region
	Extents []Extent

	// Preload, if not nil, was made of this layout and says which of its pages are brought first.
	Preload *Preload
}

// Pages returns the number of pages that have content in the image.
func (l *Layout) Pages() uint64 {
	var n uint64
	for i := range l.Extents {
		n += l.Extents[i].Pages
	}
	return n
}

// Validate returns an error that wraps [ErrLayout] and names the first offending region or extent.
func (l *Layout) Validate() error {
	var prev uint64
	for i, r := range l.Regions {
		switch {
		case r.Start%PageSize != 0 || r.End%PageSize != 0:
			return fmt.Errorf("%w: region %d [%#x, %#x) is not page aligned", ErrLayout, i, r.Start, r.End)
		case r.End <= r.Start:
			return fmt.Errorf("%w: region %d [%#x, %#x) is empty", ErrLayout, i, r.Start, r.End)
		case r.Start < prev:
			return fmt.Errorf("%w: region %d [%#x, %#x) overlaps or precedes the one before it", ErrLayout, i, r.Start, r.End)
		}
		prev = r.End
	}
	prev = 0
	next := 0
	for i, e := range l.Extents {
		if e.Addr%PageSize != 0 || e.Pages == 0 || e.Pages > (1<<63-e.Addr%(1<<63))/PageSize {
			return fmt.Errorf("%w: extent %d at %#x with %d pages", ErrLayout, i, e.Addr, e.Pages)
		}
		if e.Addr < prev {
			return fmt.Errorf("%w: extent %d at %#x overlaps or precedes the one before it", ErrLayout, i, e.Addr)
		}
		for next < len(l.Regions) && l.Regions[next].End <= e.Addr {
			next++
		}
		if next == len(l.Regions) || e.Addr < l.Regions[next].Start || e.end() > l.Regions[next].End {
			return fmt.Errorf("%w: extent %d [%#x, %#x) lies outside every region", ErrLayout, i, e.Addr, e.end())
		}
		prev = e.end()
	}
	return nil
}

// Without returns the layout without some of its content, and without the addresses of it: memory that somebody else brings.
// The extents are sorted by address, do not overlap, and lie each inside one region.
func (l *Layout) Without(extents []Extent) Layout {
	var out Layout
	rest := extents
	for _, r := range l.Regions {
		for len(rest) > 0 && rest[0].Addr < r.End {
			if r.Start < rest[0].Addr {
				before := r
				before.End = rest[0].Addr
				out.Regions = append(out.Regions, before)
			}
			r.Start = rest[0].end()
			rest = rest[1:]
		}
		if r.Start < r.End {
			out.Regions = append(out.Regions, r)
		}
	}
	rest = extents
	for _, e := range l.Extents {
		for len(rest) > 0 && rest[0].end() <= e.Addr {
			rest = rest[1:]
		}
		for len(rest) > 0 && rest[0].Addr < e.end() {
			if e.Addr < rest[0].Addr {
				out.Extents = append(out.Extents, Extent{e.Addr, (rest[0].Addr - e.Addr) / PageSize, e.Image})
			}
			skip := (min(rest[0].end(), e.end()) - e.Addr) / PageSize
			e = Extent{e.Addr + skip*PageSize, e.Pages - skip, e.Image + skip}
			if e.Pages == 0 {
				break
			}
			rest = rest[1:]
		}
		if e.Pages > 0 {
			out.Extents = append(out.Extents, e)
		}
	}
	return out
}

// extentAt returns the index of the first extent that ends after addr: the one that holds addr, or the next one.
func (l *Layout) extentAt(addr uint64) int {
	return sort.Search(len(l.Extents), func(i int) bool { return l.Extents[i].end() > addr })
}

// content says what lies at home address addr: the image page and how many pages follow it there in the image, or,
// if the address has no content, zero and the number of pages until the next content or limit.
func (l *Layout) content(addr, limit uint64) (image, pages uint64, zero bool) {
	i := l.extentAt(addr)
	if i == len(l.Extents) || l.Extents[i].Addr >= limit {
		return 0, (limit - addr) / PageSize, true
	}
	e := &l.Extents[i]
	if addr < e.Addr {
		return 0, (e.Addr - addr) / PageSize, true
	}
	return e.Image + (addr-e.Addr)/PageSize, (min(e.end(), limit) - addr) / PageSize, false
}

// zeroRanges returns the parts of the regions that are worth unregistering before the process runs, in address
// order: regions without any content, and gaps of at least minGap bytes in splittable regions.
func (l *Layout) zeroRanges(minGap uint64) []span {
	var out []span
	for _, r := range l.Regions {
		i := l.extentAt(r.Start)
		for at := r.Start; at < r.End; i++ {
			end, next := r.End, r.End
			if i < len(l.Extents) && l.Extents[i].Addr < r.End {
				end, next = l.Extents[i].Addr, l.Extents[i].end()
			}
			whole := at == r.Start && end == r.End
			if end > at && (whole || r.Splittable && end-at >= minGap) {
				out = append(out, span{at, end})
			}
			at = next
		}
	}
	return out
}

// A span is a half-open range of addresses in bytes.
type span struct{ start, end uint64 }

func (s span) len() uint64 { return s.end - s.start }

func (s span) intersect(o span) (span, bool) {
	s.start, s.end = max(s.start, o.start), min(s.end, o.end)
	return s, s.start < s.end
}

const (
	// chunkPages is what a stream worker takes on at a time: the pages of one page table, 2 MiB. Workers in the same one would wait
	// for its lock: two filled 7 % slower in chunks of 1 MiB. It is small enough that the stream follows the faults (see
	// streamState.hint).
	chunkPages = 512
	// chunkLeast is how small a chunk may be for the sake of a page table's border, where what follows is small, too.
	chunkLeast = 16
)

// A chunk is a run of at most chunkPages content pages in home order: from page offset off of extent ext.
type chunk struct {
	ext   int
	off   uint64
	pages uint64
}

// chunks cuts the layout's content into the pieces of work of the stream.
func (l *Layout) chunks() []chunk {
	const table = chunkPages * PageSize // of addresses
	var out []chunk
	cur, last := chunk{}, uint64(0) // last is the page table of cur's last page
	flush := func() {
		if cur.pages > 0 {
			out = append(out, cur)
		}
		cur = chunk{}
	}
	for i, e := range l.Extents {
		for off := uint64(0); off < e.Pages; {
			addr, left := e.Addr+off*PageSize, e.Pages-off
			if addr/table != last && (cur.pages >= chunkLeast || left >= chunkLeast) {
				flush()
			}
			if cur.pages == 0 {
				cur.ext, cur.off = i, off
			}
			n := min(left, chunkPages-cur.pages, (table-addr%table)/PageSize)
			cur.pages += n
			off += n
			last = addr / table
			if cur.pages == chunkPages {
				flush()
			}
		}
	}
	flush()
	return slices.Clip(out)
}
