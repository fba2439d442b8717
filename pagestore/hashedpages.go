package pagestore

import (
	"io"

	"thaw/internal/pagehash"
	"thaw/pagestore/internal/pack"
)

// hashedPages is room for pages that are read to be compared with their digests.
type hashedPages struct {
	data    []byte
	digests []Digest
	failed  map[int]error // why pages could not be read
}

func newHashedPages(n int) *hashedPages {
	return &hashedPages{data: make([]byte, n*PageSize), digests: make([]Digest, n)}
}

func (h *hashedPages) page(i int) []byte { return h.data[i*PageSize:][:PageSize] }

// read reads n pages of r from offset off on, and hashes them.
func (h *hashedPages) read(r io.ReaderAt, off int64, n int) {
	h.failed = nil
	if _, err := r.ReadAt(h.data[:n*PageSize], off); err != nil { // find out which pages it was
		h.failed = make(map[int]error)
		for i := range n {
			if _, err := r.ReadAt(h.page(i), off+int64(i)*PageSize); err != nil {
				h.failed[i] = err
			}
		}
	}
	pagehash.Sum(h.digests[:n], h.data, func(i int) bool { return h.failed[i] != nil })
}

// check returns an error unless page i could be read and is what the tables of a pack say of page number of that.
func (h *hashedPages) check(i int, tables *pack.Footer, number uint32) error {
	if err := h.failed[i]; err != nil {
		return err
	}
	if want, got := tables.Digest(number), h.digests[i]; got != want {
		return corruptf("page has SHA-256 %s, want %s", got, want)
	}
	if want, got := tables.Sum(number), pack.Sum(h.page(i)); got != want {
		return corruptf("page has checksum %016x, want %016x", got, want)
	}
	return nil
}
