package restore

import (
	"slices"
	"sort"
)

// An addressMap says what a missing page has to contain, for every address of one process, whatever the process has
// done to its address space since the restore.
//
// It is a sorted list of pieces over the immutable layout: at first one for each region, at home. Remap moves pieces,
// remove takes them out. An address in no piece reads as zero. The list stays short (mappings plus what was moved or
// removed since), so a forked child's copy is cheap, and the layout with its many extents is shared by all copies.
//
// It is a value without locking; addressSpace.mu guards it.
type addressMap struct {
	layout *Layout
	pieces []piece // INVARIANT: sorted by start, not empty, not overlapping; no two have overlapping homes
	moved  int     // how many pieces are away from home
	left   moves
}

// A piece maps the current addresses [start, end) to the homes [home, home+end-start).
type piece struct {
	start, end uint64
	home       uint64
	wipe       bool // zero in a forked child
}

func (p piece) span() span { return span{p.start, p.end} }

func newAddressMap(l *Layout) addressMap {
	m := addressMap{layout: l, pieces: make([]piece, len(l.Regions))}
	for i, r := range l.Regions {
		m.pieces[i] = piece{start: r.Start, end: r.End, home: r.Start, wipe: r.WipeOnFork}
	}
	return m
}

// forChild returns the map of a child that was forked at this moment, in which the wiped ranges read as zeros. If they are not
// known it is those that were to be wiped when the snapshot was taken.
func (m *addressMap) forChild(wiped []span, known bool) addressMap {
	c := addressMap{layout: m.layout, pieces: make([]piece, 0, len(m.pieces))}
	for _, p := range m.pieces {
		if known || !p.wipe {
			p.wipe = p.wipe && !known
			c.add(p)
		}
	}
	for _, r := range wiped {
		c.remove(r)
	}
	return c
}

func (m *addressMap) add(p piece) {
	m.pieces = append(m.pieces, p)
	if p.start != p.home {
		m.moved++
	}
}

// at returns the index of the first piece that ends after addr.
func (m *addressMap) at(addr uint64) int {
	return sort.Search(len(m.pieces), func(i int) bool { return m.pieces[i].end > addr })
}

// A place is what an address has to contain: pages consecutive pages from image page image on, or that many zero
// pages. home is where the address's page was when the snapshot was taken; 0 in no piece.
type place struct {
	zero  bool
	image uint64
	pages uint64
	home  uint64
}

// lookup returns what lies at the page-aligned address addr, and for how many pages that goes on, at least 1.
func (m *addressMap) lookup(addr uint64) place {
	i := m.at(addr)
	if i == len(m.pieces) {
		return place{zero: true, pages: 1 << 32}
	}
	p := &m.pieces[i]
	if addr < p.start {
		return place{zero: true, pages: (p.start - addr) / PageSize}
	}
	home := p.home + (addr - p.start)
	image, pages, zero := m.layout.content(home, p.home+(p.end-p.start))
	return place{zero: zero, image: image, pages: pages, home: home}
}

// locate is lookup's inverse: it returns the current address of home, and for how many bytes, at most limit, the
// homes that follow lie behind it. ok is false if the page is mapped nowhere any more; n is then the number of bytes
// for which that holds.
func (m *addressMap) locate(home, limit uint64) (addr, n uint64, ok bool) {
	n = limit
	if i := m.at(home); i < len(m.pieces) {
		p := &m.pieces[i]
		switch {
		case p.start <= home && p.home == p.start:
			return home, min(limit, p.end-home), true
		case p.start > home:
			n = min(n, p.start-home)
		default: // a piece that was moved onto this address: its end bounds nothing that is at home
			n = min(n, p.end-home)
		}
	}
	if m.moved == 0 {
		return 0, n, false
	}
	for i := range m.pieces {
		p := &m.pieces[i]
		if p.start == p.home {
			continue
		}
		size := p.end - p.start
		if home >= p.home && home < p.home+size {
			off := home - p.home
			return p.start + off, min(limit, size-off), true
		}
		if p.home > home {
			n = min(n, p.home-home)
		}
	}
	return 0, n, false
}

// remove takes a range of addresses out of the map: from now on it reads as zero.
func (m *addressMap) remove(r span) {
	m.cut(r)
}

// unmap is remove for a range that the process has unmapped, unless it did that when it moved its memory away: see moves.
func (m *addressMap) unmap(r span) {
	if !m.left.ended(r, m.covers) {
		m.cut(r)
	}
}

// covers reports whether all of a range is in the map.
func (m *addressMap) covers(r span) bool {
	for i := m.at(r.start); i < len(m.pieces) && m.pieces[i].start <= r.start; i++ {
		if r.start = m.pieces[i].end; r.start >= r.end {
			return true
		}
	}
	return r.len() == 0
}

// remap moves what is mapped at [from, from+size) to to.
func (m *addressMap) remap(from, to, size uint64) {
	m.left.from(span{from, from + size})
	moving := m.cut(span{from, from + size})
	m.cut(span{to, to + size})
	for _, p := range moving {
		p.start, p.end = p.start-from+to, p.end-from+to
		m.insert(p)
	}
}

// cut removes a range from the map and returns the pieces that lay in it, clipped to it. It allocates nothing if
// there were none.
func (m *addressMap) cut(r span) []piece {
	lo := m.at(r.start)
	hi := lo
	for hi < len(m.pieces) && m.pieces[hi].start < r.end {
		hi++
	}
	if lo == hi {
		return nil
	}
	var out, keep []piece
	for _, p := range m.pieces[lo:hi] {
		if p.start != p.home {
			m.moved--
		}
		if p.start < r.start {
			left := p
			left.end = r.start
			keep = append(keep, left)
		}
		if in, ok := p.span().intersect(r); ok {
			out = append(out, piece{start: in.start, end: in.end, home: p.home + (in.start - p.start), wipe: p.wipe})
		}
		if p.end > r.end {
			right := p
			right.start, right.home = r.end, p.home+(r.end-p.start)
			keep = append(keep, right)
		}
	}
	for _, p := range keep {
		if p.start != p.home {
			m.moved++
		}
	}
	m.pieces = slices.Replace(m.pieces, lo, hi, keep...)
	return out
}

// insert puts a piece into the map, where nothing overlaps it, and joins it with neighbors that continue it.
func (m *addressMap) insert(p piece) {
	i := m.at(p.start)
	if p.start != p.home {
		m.moved++
	}
	m.pieces = slices.Insert(m.pieces, i, p)
	if i+1 < len(m.pieces) {
		m.join(i)
	}
	if i > 0 {
		m.join(i - 1)
	}
}

// join merges piece i with the one behind it if that continues it, in address and in home.
func (m *addressMap) join(i int) {
	a, b := &m.pieces[i], &m.pieces[i+1]
	if a.end != b.start || a.home+(a.end-a.start) != b.home || a.wipe != b.wipe {
		return
	}
	if b.start != b.home {
		m.moved--
	}
	a.end = b.end
	m.pieces = slices.Delete(m.pieces, i+1, i+2)
}
