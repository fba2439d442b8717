package hot

import (
	"cmp"
	"math"
	"slices"
)

// finder finds the run of a page of the image. A look-up is on the path of every fault, and in a process's first second most pages
// that are asked for are not here.
type finder struct {
	sorted []place // by page of the image

	// first has, for each part of 1<<shift pages of the image, the number of the first run that ends in it or behind it, and
	// one more number for what is behind all runs. There are at most four parts for a run.
	first []uint32
	shift uint
}

// newFinder sorts runs, which are not empty; twice says that two of them overlap.
func newFinder(runs []place) (f finder, twice bool) {
	f.sorted = slices.Clone(runs)
	slices.SortFunc(f.sorted, func(a, b place) int { return cmp.Compare(a.Image, b.Image) })
	var end uint64
	for _, r := range f.sorted {
		if r.Image < end {
			return finder{}, true
		}
		end = r.end()
	}
	for end>>f.shift >= 4*uint64(len(runs)) {
		f.shift++
	}
	f.first = make([]uint32, end>>f.shift+2)
	run := 0
	for part := range f.first {
		for run < len(f.sorted) && f.sorted[run].end() <= uint64(part)<<f.shift {
			run++
		}
		f.first[part] = uint32(run)
	}
	return f, false
}

// end returns the page of the image behind the run.
func (p *place) end() uint64 { return p.Image + uint64(p.Pages) }

// find is Table.Find.
func (f *finder) find(image uint64) (page uint32, n int) {
	i := f.search(image)
	if i == len(f.sorted) || f.sorted[i].Image > image {
		return 0, 0
	}
	skip := uint32(image - f.sorted[i].Image)
	return f.sorted[i].page + skip, int(f.sorted[i].Pages - skip)
}

// gap is Table.Gap.
func (f *finder) gap(image uint64) uint64 {
	i := f.search(image)
	if i == len(f.sorted) {
		return math.MaxUint64
	}
	return max(f.sorted[i].Image, image) - image
}

// search returns the number of the run with a page, or of the first one behind it, in the order of the image; the number of runs if there is none.
func (f *finder) search(image uint64) int {
	part := image >> f.shift
	if part >= uint64(len(f.first)-1) {
		return len(f.sorted)
	}
	// The run that ends behind the page is one of those that do not end before this part, up to the first that ends behind it.
	lo, hi := int(f.first[part]), int(f.first[part+1])
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if f.sorted[mid].end() > image {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}
