package pageset

import (
	"math/bits"
	"sync/atomic"
)

// Set is a set of the pages of one file. It is safe for concurrent use and never allocates after New.
type Set []atomic.Uint64

// New returns an empty set of the pages 0 to pages-1.
func New(pages uint32) Set { return make(Set, (uint64(pages)+63)/64) }

// Add puts a page into the set.
func (s Set) Add(page uint32) { s[page/64].Or(1 << (page % 64)) }

// Has reports whether a page is in the set.
func (s Set) Has(page uint32) bool { return s[page/64].Load()&(1<<(page%64)) != 0 }

// Run returns how many pages from page on, before end, are in the set without a gap.
func (s Set) Run(page, end uint32) int {
	for p := page; p < end; {
		word := s[p/64].Load() >> (p % 64)
		run := uint32(bits.TrailingZeros64(^word))
		if run < 64-p%64 {
			return int(min(p+run, end) - page)
		}
		p += 64 - p%64
	}
	return int(end - page)
}
