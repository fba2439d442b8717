package manifest

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/pack"
)

// Manifest is a view of an encoded manifest. It is immutable, as the bytes below it must be, and safe for concurrent
// use. Reading a table beyond its length panics.
type Manifest struct {
	data       []byte
	imagePages uint64
	counts     [tables]uint64
	table      [tables][]byte
}

// Parse checks all of data and returns a view of it. Errors wrap [ErrCorrupt] or [ErrVersion] and name the entry.
func Parse(data []byte) (*Manifest, error) {
	m := &Manifest{data: data}
	if err := m.parseHeader(); err != nil {
		return nil, err
	}
	if want, got := binary.LittleEndian.Uint64(data[bodySumOff:]), xxhash.Sum64(data[headerSize:]); got != want {
		return nil, fmt.Errorf("%w: tables have checksum %016x, want %016x", ErrCorrupt, got, want)
	}
	for _, check := range []func() error{m.checkPacks, m.checkSpaces, m.checkExtents} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Checksum returns the checksum in the header, which covers the whole manifest.
func (m *Manifest) Checksum() uint64 { return binary.LittleEndian.Uint64(m.data[headerSumOff:]) }

// ImagePages returns the size of the image in pages.
func (m *Manifest) ImagePages() uint64 { return m.imagePages }

// Packs returns the number of packs.
func (m *Manifest) Packs() int { return int(m.counts[tablePacks]) }

// Spaces returns the number of address spaces.
func (m *Manifest) Spaces() int { return int(m.counts[tableSpaces]) }

// Extents returns the number of extents.
func (m *Manifest) Extents() int { return int(m.counts[tableExtents]) }

// Pack returns entry i of the table of packs.
func (m *Manifest) Pack(i int) Pack {
	e := m.table[tablePacks][i*packSize:][:packSize]
	return Pack{ID: pack.ID(e[:32]), Pages: binary.LittleEndian.Uint32(e[32:])}
}

// Space returns entry i of the table of spaces.
func (m *Manifest) Space(i int) Space {
	e := m.table[tableSpaces][i*spaceSize:][:spaceSize]
	return Space{
		ID:      binary.LittleEndian.Uint32(e),
		Zombie:  binary.LittleEndian.Uint32(e[4:])&spaceZombie != 0,
		Regions: Span{First: binary.LittleEndian.Uint64(e[8:]), Count: binary.LittleEndian.Uint64(e[16:])},
		Runs:    Span{First: binary.LittleEndian.Uint64(e[24:]), Count: binary.LittleEndian.Uint64(e[32:])},
	}
}

// Region returns entry i of the table of regions.
func (m *Manifest) Region(i uint64) Region {
	e := m.table[tableRegions][i*regionSize:][:regionSize]
	return Region{
		Start: binary.LittleEndian.Uint64(e),
		End:   binary.LittleEndian.Uint64(e[8:]),
		Flags: binary.LittleEndian.Uint64(e[16:]),
	}
}

// Run returns entry i of the table of runs.
func (m *Manifest) Run(i uint64) Run {
	e := m.table[tableRuns][i*runSize:][:runSize]
	return Run{
		Addr:  binary.LittleEndian.Uint64(e),
		Pages: binary.LittleEndian.Uint64(e[8:]),
		Image: binary.LittleEndian.Uint64(e[16:]),
	}
}

// Extent returns entry i of the table of extents.
func (m *Manifest) Extent(i int) Extent {
	e := m.table[tableExtents][i*extentSize:][:extentSize]
	return Extent{
		Image: binary.LittleEndian.Uint64(e),
		Pages: binary.LittleEndian.Uint32(e[8:]),
		Pack:  binary.LittleEndian.Uint32(e[12:]),
		Page:  binary.LittleEndian.Uint32(e[16:]),
	}
}

// Find returns the number of the first extent that ends after page: the one that holds page, or the next one if page
// is zero. It is Extents() if none does. It allocates nothing.
func (m *Manifest) Find(page uint64) int {
	lo, hi := 0, m.Extents()
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if e := m.Extent(mid); e.Image+uint64(e.Pages) > page {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// parseHeader checks the header and finds the tables, so that no entry of them lies outside of data.
func (m *Manifest) parseHeader() error {
	b := m.data
	if len(b) < headerSize || string(b[:8]) != magic {
		return fmt.Errorf("%w: no manifest header", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != Version {
		return fmt.Errorf("%w: header has version %d, want %d", ErrVersion, v, Version)
	}
	if want, got := binary.LittleEndian.Uint64(b[headerSumOff:]), xxhash.Sum64(b[:headerSumOff]); got != want {
		return fmt.Errorf("%w: header has checksum %016x, want %016x", ErrCorrupt, got, want)
	}
	if n := binary.LittleEndian.Uint32(b[pageSizeOff:]); n != pack.PageSize {
		return fmt.Errorf("%w: pages of %d bytes, want %d", ErrCorrupt, n, pack.PageSize)
	}
	if n := binary.LittleEndian.Uint64(b[sizeOff:]); n != uint64(len(b)) || n > MaxSize {
		return fmt.Errorf("%w: file has %d bytes, want %d", ErrCorrupt, len(b), n)
	}
	m.imagePages = binary.LittleEndian.Uint64(b[imagePagesOff:])
	if m.imagePages > MaxImagePages {
		return fmt.Errorf("%w: image has %d pages, want at most %d", ErrCorrupt, m.imagePages, uint64(MaxImagePages))
	}
	rest := b[headerSize:]
	for t := range tables {
		n := binary.LittleEndian.Uint64(b[countsOff+8*t:])
		if n > uint64(len(rest))/entrySizes[t] {
			return fmt.Errorf("%w: table %d of %d entries does not fit the file", ErrCorrupt, t, n)
		}
		m.counts[t] = n
		m.table[t], rest = rest[:n*entrySizes[t]], rest[n*entrySizes[t]:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes after the last table", ErrCorrupt, len(rest))
	}
	return nil
}

func (m *Manifest) checkPacks() error {
	for i := range m.Packs() {
		if p := m.Pack(i); p.Pages == 0 || p.Pages > pack.MaxPages {
			return fmt.Errorf("%w: pack %d has %d pages, want 1 to %d", ErrCorrupt, i, p.Pages, pack.MaxPages)
		}
		if !isZero(m.table[tablePacks][i*packSize+36:][:4]) {
			return fmt.Errorf("%w: pack %d has reserved bytes set", ErrCorrupt, i)
		}
	}
	return nil
}

// checkSpaces checks spaces, regions and runs: the spaces divide both tables among themselves, in order.
func (m *Manifest) checkSpaces() error {
	var regions, runs uint64
	lastID := int64(-1)
	for i := range m.Spaces() {
		s := m.Space(i)
		flags := binary.LittleEndian.Uint32(m.table[tableSpaces][i*spaceSize+4:])
		switch {
		case int64(s.ID) <= lastID:
			return fmt.Errorf("%w: space %d has id %d after id %d", ErrCorrupt, i, s.ID, lastID)
		case flags&^knownSpaceFlags != 0:
			return fmt.Errorf("%w: space %d has unknown flags %#x", ErrCorrupt, i, flags)
		case s.Regions.First != regions || s.Regions.Count > m.counts[tableRegions]-regions:
			return fmt.Errorf("%w: space %d has regions %v, want them from %d on", ErrCorrupt, i, s.Regions, regions)
		case s.Runs.First != runs || s.Runs.Count > m.counts[tableRuns]-runs:
			return fmt.Errorf("%w: space %d has runs %v, want them from %d on", ErrCorrupt, i, s.Runs, runs)
		}
		if err := m.checkSpace(s); err != nil {
			return fmt.Errorf("%w: space %d: %w", ErrCorrupt, i, err)
		}
		lastID, regions, runs = int64(s.ID), regions+s.Regions.Count, runs+s.Runs.Count
	}
	if regions != m.counts[tableRegions] || runs != m.counts[tableRuns] {
		return fmt.Errorf("%w: spaces have %d regions and %d runs, the tables %d and %d",
			ErrCorrupt, regions, runs, m.counts[tableRegions], m.counts[tableRuns])
	}
	return nil
}

// checkSpace checks the regions and the runs of one space, walking both tables once.
func (m *Manifest) checkSpace(s Space) error {
	var end uint64
	for i := range s.Regions.Count {
		r := m.Region(s.Regions.First + i)
		if r.Start%pack.PageSize != 0 || r.End%pack.PageSize != 0 || r.Start >= r.End || r.Start < end {
			return fmt.Errorf("region %d is [%#x, %#x), after %#x", i, r.Start, r.End, end)
		}
		if r.Flags&^knownRegionFlags != 0 {
			return fmt.Errorf("region %d has unknown flags %#x", i, r.Flags)
		}
		end = r.End
	}
	region, end := uint64(0), uint64(0)
	for i := range s.Runs.Count {
		r := m.Run(s.Runs.First + i)
		if r.Addr%pack.PageSize != 0 || r.Pages == 0 || r.Pages > math.MaxUint64/pack.PageSize || r.Addr < end {
			return fmt.Errorf("run %d is %d pages at %#x, after %#x", i, r.Pages, r.Addr, end)
		}
		if r.Pages > m.imagePages || r.Image > m.imagePages-r.Pages {
			return fmt.Errorf("run %d has image pages [%d, %d+%d) of %d", i, r.Image, r.Image, r.Pages, m.imagePages)
		}
		for region < s.Regions.Count && m.Region(s.Regions.First+region).End <= r.Addr {
			region++
		}
		if region == s.Regions.Count || !holds(m.Region(s.Regions.First+region), r) {
			return fmt.Errorf("run %d, %d pages at %#x, lies in no region", i, r.Pages, r.Addr)
		}
		end = r.Addr + r.Pages*pack.PageSize
	}
	return nil
}

// holds reports whether the addresses of a run lie inside a region.
func holds(g Region, r Run) bool {
	return g.Start <= r.Addr && r.Addr < g.End && r.Pages <= (g.End-r.Addr)/pack.PageSize
}

func (m *Manifest) checkExtents() error {
	var end uint64
	for i := range m.Extents() {
		e := m.Extent(i)
		if e.Pages == 0 || e.Image < end || e.Image > m.imagePages || uint64(e.Pages) > m.imagePages-e.Image {
			return fmt.Errorf("%w: extent %d has image pages [%d, %d+%d) of %d, after %d",
				ErrCorrupt, i, e.Image, e.Image, e.Pages, m.imagePages, end)
		}
		if uint64(e.Pack) >= m.counts[tablePacks] {
			return fmt.Errorf("%w: extent %d names pack %d of %d", ErrCorrupt, i, e.Pack, m.Packs())
		}
		if n := m.Pack(int(e.Pack)).Pages; e.Page > n || e.Pages > n-e.Page {
			return fmt.Errorf("%w: extent %d has pages [%d, %d+%d) of a pack of %d", ErrCorrupt, i, e.Page, e.Page, e.Pages, n)
		}
		if !isZero(m.table[tableExtents][i*extentSize+20:][:4]) {
			return fmt.Errorf("%w: extent %d has reserved bytes set", ErrCorrupt, i)
		}
		end = e.Image + uint64(e.Pages)
	}
	return nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
