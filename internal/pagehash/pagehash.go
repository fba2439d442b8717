package pagehash

import "crypto/sha256"

const (
	// PageSize is the size of a page in bytes.
	PageSize = 4096
	// Size is the size of a digest in bytes.
	Size = sha256.Size

	// lanes is how many pages the kernel hashes at once. A call of it takes 4 us, in which its thread heeds neither the scheduler nor the
	// garbage collector: so it is not given more.
	lanes = 4
)

// Append appends the digests of pages to b. It panics if the last page is not whole.
func Append(b, pages []byte) []byte {
	each((len(pages)+PageSize-1)/PageSize, pages, nil, func(_ int, digest [Size]byte) { b = append(b, digest[:]...) })
	return b
}

// Sum sets digests[i] to the digest of page i. Those for which skip, if it is not nil, returns true stay as they are, and the page is not read. It
// panics if there are fewer pages than digests.
func Sum[D ~[Size]byte](digests []D, pages []byte, skip func(i int) bool) {
	each(len(digests), pages, skip, func(i int, digest [Size]byte) { digests[i] = D(digest) })
}

// each calls put with the digest of each of the first n pages that is not skipped, in order.
func each(n int, pages []byte, skip func(i int) bool, put func(i int, digest [Size]byte)) {
	var group [lanes]*[PageSize]byte
	var number [lanes]int
	var digests [lanes][Size]byte
	taken := 0
	flush := func() {
		sum(&digests, &group, taken)
		for lane := range taken {
			put(number[lane], digests[lane])
		}
		taken = 0
	}
	for i := range n {
		if skip != nil && skip(i) {
			continue
		}
		group[taken], number[taken] = (*[PageSize]byte)(pages[i*PageSize:]), i
		if taken++; taken == lanes {
			flush()
		}
	}
	flush()
}

// sum hashes the first n pages of a group.
func sum(digests *[lanes][Size]byte, group *[lanes]*[PageSize]byte, n int) {
	if !fast || n < 2 { // the kernel would take twice as long for one
		for lane := range n {
			digests[lane] = sha256.Sum256(group[lane][:])
		}
		return
	}
	for lane := n; lane < lanes; lane++ {
		group[lane] = group[0] // the kernel takes as long for two as for four
	}
	sumLanes(digests, group)
}
