package suite

import (
	"thaw/bench/baseline"
	"thaw/restore"
)

// base is where the memory of the processes begins.
const base = 0x10_0000_0000

// A placement is where an image's pages lie in a process, as engine and baselines are told it.
type placement struct{ baseline.Placement }

// contiguous places so many pages one after the other.
func contiguous(pages uint64) placement { return inRuns(pages, pages, 0) }

// inRuns places runs of so many pages with gaps between them, pages in all.
func inRuns(pages, run, gap uint64) placement {
	return placement{baseline.Placement{Base: base, Pages: pages, Run: run, Gap: gap}}
}

func (p placement) end() uint64 { return p.Base + p.Pages*page }

func (p placement) region() restore.Region { return restore.Region{Start: p.Base, End: p.end()} }

// content is the number of pages that have content.
func (p placement) content() uint64 {
	period := p.Run + p.Gap
	return p.Pages/period*p.Run + min(p.Pages%period, p.Run)
}

// layout returns the placement as the engine takes it: one region, an extent for each run.
func (p placement) layout() *restore.Layout {
	l := &restore.Layout{Regions: []restore.Region{p.region()}}
	var at uint64 // of the image
	for i := uint64(0); i < p.Pages; i += p.Run + p.Gap {
		n := min(p.Run, p.Pages-i)
		l.Extents = append(l.Extents, restore.Extent{Addr: p.Base + i*page, Pages: n, Image: at})
		at += n
	}
	return l
}

// scatter is what the number of a page is multiplied with to find its content in a scattered image: odd, so that of a
// power of two of pages each is used once, and neighbors are far apart.
const scatter = 1_000_003

// scattered returns a layout of a power of two of pages, neighbors of which are no neighbors in the image: no two can
// come in one copy.
func scattered(pages uint64) *restore.Layout {
	l := &restore.Layout{Regions: []restore.Region{{Start: base, End: base + pages*page}}}
	for i := range pages {
		l.Extents = append(l.Extents, restore.Extent{Addr: base + i*page, Pages: 1, Image: i * scatter % pages})
	}
	return l
}
