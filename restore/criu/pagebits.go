package criu

import (
	"math/bits"
	"sync/atomic"
)

// pageBits has a bit for each page of an image. Bits are set and never cleared. It is safe for concurrent use, and allocates nothing.
type pageBits []atomic.Uint64

func newPageBits(pages uint64) pageBits { return make(pageBits, (pages+63)/64) }

// run returns how many pages from page on have their bit, at most limit.
func (b pageBits) run(page uint64, limit int) (n int) {
	for n < limit && page/64 < uint64(len(b)) {
		missing := ^b[page/64].Load() >> (page % 64)
		run := min(bits.TrailingZeros64(missing), 64-int(page%64))
		if run == 0 {
			break
		}
		n += run
		page += uint64(run)
	}
	return min(n, limit)
}

// set sets the bits of n pages from page on.
func (b pageBits) set(page uint64, n int) {
	for end := page + uint64(n); page < end; page = page/64*64 + 64 {
		mask := ^uint64(0) << (page % 64)
		if last := end - page/64*64; last < 64 {
			mask &= 1<<last - 1
		}
		b[page/64].Or(mask)
	}
}
