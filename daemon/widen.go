package daemon

import (
	"cmp"
	"slices"

	"thaw/restore"
	"thaw/restore/workingset"
)

// windowPages is how many pages of a file the kernel maps with one that is touched.
const windowPages = aroundBytes / restore.PageSize

// widen makes of each touch of memory that is mapped from packs one of all pages that the kernel maps with it: touches of those do not
// fault, and so are not seen.
func widen(rec *workingset.Recording, fromPacks map[int][]restore.Extent) {
	var packs []window
	for _, extents := range fromPacks {
		for _, e := range extents {
			packs = append(packs, window{first: e.Image, pages: e.Pages, addr: e.Addr / restore.PageSize})
		}
	}
	rec.Image = widened(rec.Image, packs)
}

// addPresent adds pages of files that were there at the end and that nobody was seen to touch, as if that had been before the processes ran.
func addPresent(rec *workingset.Recording, present map[string]pageSet) {
	for path, pages := range present {
		i := slices.IndexFunc(rec.Files, func(f workingset.FileTouches) bool { return f.Path == path })
		if i < 0 {
			i = len(rec.Files)
			rec.Files = append(rec.Files, workingset.FileTouches{Path: path})
		}
		f := &rec.Files[i]
		var seen pageSet
		for _, t := range f.Touches {
			if t.Page < maxFilePages {
				seen = seen.add(t.Page)
			}
		}
		for _, r := range pages.all() {
			for p := r.first; p < r.first+r.n; p++ {
				if !seen.has(p) {
					f.Touches = append(f.Touches, workingset.Touch{Page: p, Time: -1, Phase: workingset.PhaseStart})
				}
			}
		}
	}
}

// A window is a mapping of pages of the image; addr is the number of the page at which the first one is mapped.
type window struct{ first, pages, addr uint64 }

func widened(touches []workingset.Touch, mappings []window) []workingset.Touch {
	slices.SortFunc(mappings, func(a, b window) int { return cmp.Compare(a.first, b.first) })
	for _, t := range slices.Clone(touches) {
		// The last mapping that begins at the page or before it; if several have the page, any of them will do.
		i, exact := slices.BinarySearchFunc(mappings, t.Page, func(m window, page uint64) int { return cmp.Compare(m.first, page) })
		if !exact {
			i--
		}
		if i < 0 || t.Page >= mappings[i].first+mappings[i].pages {
			continue
		}
		m := &mappings[i]
		at := m.addr + t.Page - m.first
		from, to := max(at/windowPages*windowPages, m.addr), min(at/windowPages*windowPages+windowPages, m.addr+m.pages)
		for p := from; p < to; p++ {
			if around := t; p != at {
				around.Page, around.Write = m.first+p-m.addr, false
				touches = append(touches, around)
			}
		}
	}
	return touches
}
