package manifest

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/pack"
)

// Builder collects a manifest. The caller adds spaces and image pages in ascending order; Encode checks that it did.
type Builder struct {
	// Packs is the table of packs; extents name its positions. It may be filled in after the extents.
	Packs []Pack

	imagePages uint64
	spaces     []Space
	regions    []Region
	runs       []Run
	extents    []Extent
}

// AddSpace adds an address space.
func (b *Builder) AddSpace(id uint32, zombie bool, regions []Region, runs []Run) {
	b.spaces = append(b.spaces, Space{
		ID:      id,
		Zombie:  zombie,
		Regions: Span{First: uint64(len(b.regions)), Count: uint64(len(regions))},
		Runs:    Span{First: uint64(len(b.runs)), Count: uint64(len(runs))},
	})
	b.regions = append(b.regions, regions...)
	b.runs = append(b.runs, runs...)
}

// ImagePages returns how many pages the image has so far.
func (b *Builder) ImagePages() uint64 { return b.imagePages }

// AddZero adds one page of zeros to the end of the image.
func (b *Builder) AddZero() { b.imagePages++ }

// AddPage adds one page to the end of the image: page number page of pack number inPack in Packs.
func (b *Builder) AddPage(inPack, page uint32) {
	if n := len(b.extents); n > 0 {
		last := &b.extents[n-1]
		if last.Pack == inPack && last.Page+last.Pages == page && last.Image+uint64(last.Pages) == b.imagePages &&
			last.Pages < math.MaxUint32 {
			last.Pages++
			b.imagePages++
			return
		}
	}
	b.extents = append(b.extents, Extent{Image: b.imagePages, Pages: 1, Pack: inPack, Page: page})
	b.imagePages++
}

// Encode returns the manifest, checked by the code that reads it.
func (b *Builder) Encode() ([]byte, error) {
	le := binary.LittleEndian
	counts := [tables]int{len(b.Packs), len(b.spaces), len(b.regions), len(b.runs), len(b.extents)}
	size := uint64(headerSize)
	for t, n := range counts {
		size += uint64(n) * entrySizes[t]
	}
	if size > MaxSize {
		return nil, fmt.Errorf("manifest of %d bytes, want at most %d", size, uint64(MaxSize))
	}
	out := make([]byte, headerSize, size)
	copy(out, magic)
	le.PutUint32(out[8:], Version)
	le.PutUint32(out[pageSizeOff:], pack.PageSize)
	le.PutUint64(out[sizeOff:], size)
	le.PutUint64(out[imagePagesOff:], b.imagePages)
	for t, n := range counts {
		le.PutUint64(out[countsOff+8*t:], uint64(n))
	}
	out = b.appendTables(out)
	le.PutUint64(out[bodySumOff:], xxhash.Sum64(out[headerSize:]))
	le.PutUint64(out[headerSumOff:], xxhash.Sum64(out[:headerSumOff]))
	if _, err := Parse(out); err != nil {
		return nil, fmt.Errorf("read back manifest: %w", err)
	}
	return out, nil
}

func (b *Builder) appendTables(out []byte) []byte {
	le := binary.LittleEndian
	for _, p := range b.Packs {
		out = append(out, p.ID[:]...)
		out = le.AppendUint32(out, p.Pages)
		out = le.AppendUint32(out, 0)
	}
	for _, s := range b.spaces {
		var flags uint32
		if s.Zombie {
			flags |= spaceZombie
		}
		out = le.AppendUint32(out, s.ID)
		out = le.AppendUint32(out, flags)
		for _, v := range []uint64{s.Regions.First, s.Regions.Count, s.Runs.First, s.Runs.Count} {
			out = le.AppendUint64(out, v)
		}
	}
	for _, r := range b.regions {
		out = le.AppendUint64(out, r.Start)
		out = le.AppendUint64(out, r.End)
		out = le.AppendUint64(out, r.Flags)
	}
	for _, r := range b.runs {
		out = le.AppendUint64(out, r.Addr)
		out = le.AppendUint64(out, r.Pages)
		out = le.AppendUint64(out, r.Image)
	}
	for _, e := range b.extents {
		out = le.AppendUint64(out, e.Image)
		for _, v := range []uint32{e.Pages, e.Pack, e.Page, 0} {
			out = le.AppendUint32(out, v)
		}
	}
	return out
}
