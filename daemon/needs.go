package daemon

import (
	"math/bits"

	"thaw/restore"
)

// maxFilePages bounds what is looked at of one file, and of all files of a process together: 4 GiB. Libraries are smaller, and a
// process may map any number at any offset.
const maxFilePages = 1 << 20

// maxSetPages bounds the files of a working set together, each counted up to the last of its pages that is needed: they take a bit for each,
// 2 MiB. A set comes from elsewhere, and some bytes of it can name the last page of a large file.
const maxSetPages = 16 * maxFilePages

// needs is what the processes of a snapshot touch soon after their restore: pages of its image, and of files by their path for the
// processes. It is immutable once it is made. A nil one says that nothing is known.
type needs struct {
	image   pageSet
	written pageSet // pages of the image that they write to, as far as that is known
	files   map[string]pageSet
}

// union returns what is in either, which may be nil.
func (n *needs) union(o *needs) *needs {
	out := &needs{files: make(map[string]pageSet)}
	for _, part := range []*needs{n, o} {
		if part == nil {
			continue
		}
		out.image, out.written = out.image.union(part.image), out.written.union(part.written)
		for path, pages := range part.files {
			out.files[path] = out.files[path].union(pages)
		}
	}
	return out
}

// withWritten returns n with the pages that o knows as written, too. A recording sees only those whose first access is a write; the page
// tables of processes that map memory from packs tell the others. o may be nil.
func (n *needs) withWritten(o *needs) *needs {
	if o == nil || o.written == nil {
		return n
	}
	more := *n
	more.written = n.written.union(o.written)
	return &more
}

// imageRuns returns the pages of the image among the extents that are touched.
func (n *needs) imageRuns(extents []restore.Extent) []pageRun {
	if n == nil {
		return nil
	}
	var out []pageRun
	for _, e := range extents {
		out = append(out, n.image.runs(e.Image, e.Pages)...)
	}
	return out
}

// sparse reports whether little of an extent is touched: the pages around one that is wanted are not worth reading then. Of an
// extent that is touched for the most part they are, because what comes from the disk in single pages comes slowly.
func (n *needs) sparse(e restore.Extent) bool {
	return n != nil && n.image.count(e.Image, e.Pages) < e.Pages/2
}

// fileRuns returns the pages of files that are touched, by path; nil if nothing is known.
func (n *needs) fileRuns() map[string][]pageRun {
	if n == nil {
		return nil
	}
	out := make(map[string][]pageRun, len(n.files))
	for path, pages := range n.files {
		out[path] = pages.all()
	}
	return out
}

// A pageSet has a bit for each page of an image or a file.
type pageSet []uint64

func (s pageSet) has(page uint64) bool {
	return page/64 < uint64(len(s)) && s[page/64]&(1<<(page%64)) != 0
}

// count returns how many of the n pages from first on are in the set.
func (s pageSet) count(first, n uint64) (found uint64) {
	end := min(first+n, uint64(len(s))*64)
	for p := first; p < end; p = p/64*64 + 64 {
		found += uint64(bits.OnesCount64(s[p/64] & wordMask(p, end)))
	}
	return found
}

// wordMask has the bits of the pages from page on in its word, but for those from end on. end is behind page.
func wordMask(page, end uint64) uint64 {
	mask := ^uint64(0) << (page % 64)
	if last := end - page/64*64; last < 64 {
		mask &= 1<<last - 1
	}
	return mask
}

// add returns s with a page.
func (s pageSet) add(page uint64) pageSet {
	if need := page/64 + 1; need > uint64(len(s)) {
		s = append(s, make([]uint64, need-uint64(len(s)))...)
	}
	s[page/64] |= 1 << (page % 64)
	return s
}

// union returns a set of the pages of both.
func (s pageSet) union(o pageSet) pageSet {
	out := make(pageSet, max(len(s), len(o)))
	copy(out, s)
	for i, word := range o {
		out[i] |= word
	}
	return out
}

// A pageRun is n pages from page first on.
type pageRun struct{ first, n uint64 }

// runs returns the pages of the set from first on, n at most, as runs.
func (s pageSet) runs(first, n uint64) []pageRun {
	var out []pageRun
	end := min(first+n, uint64(len(s))*64)
	for p := s.next(first, end, true); p < end; {
		behind := s.next(p, end, false)
		out = append(out, pageRun{p, behind - p})
		p = s.next(behind, end, true)
	}
	return out
}

// next returns the first page from page on, before end, that is in the set, or that is not; end if there is none. The set has words up to
// end.
func (s pageSet) next(page, end uint64, in bool) uint64 {
	for page < end {
		word := s[page/64]
		if !in {
			word = ^word
		}
		if word >>= page % 64; word != 0 {
			return min(page+uint64(bits.TrailingZeros64(word)), end)
		}
		page = page/64*64 + 64
	}
	return end
}

// all returns all pages of the set as runs.
func (s pageSet) all() []pageRun { return s.runs(0, uint64(len(s))*64) }

// addRun returns s with n pages from page first on.
func (s pageSet) addRun(first, n uint64) pageSet {
	if n == 0 {
		return s
	}
	s = s.add(first + n - 1)
	for p, end := first, first+n; p < end; p = p/64*64 + 64 {
		s[p/64] |= wordMask(p, end)
	}
	return s
}
