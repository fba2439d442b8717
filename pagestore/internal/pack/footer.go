package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
)

// Footer is the tables of a pack, read and, unless they are [Presence.Tables], checked. It is immutable.
type Footer struct {
	// ID is the name that the tables give the pack.
	ID ID

	sums    []byte
	digests []byte
}

// Pages returns how many pages the pack has.
func (f *Footer) Pages() int { return len(f.sums) / sumSize }

// Sum returns the fast checksum of a page.
func (f *Footer) Sum(page uint32) uint64 {
	return binary.LittleEndian.Uint64(f.sums[int(page)*sumSize:])
}

// Digest returns the SHA-256 of a page.
func (f *Footer) Digest(page uint32) Digest {
	return Digest(f.digests[int(page)*digestSize:][:digestSize])
}

// ReadFooter reads and checks everything of a pack of size bytes but its pages. Errors of the content wrap
// [ErrCorrupt] or [ErrVersion].
func ReadFooter(r io.ReaderAt, size int64) (*Footer, error) {
	pages, err := pagesOf(size)
	if err != nil {
		return nil, err
	}
	header := make([]byte, headerSize)
	if _, err := r.ReadAt(header, 0); err != nil {
		return nil, fmt.Errorf("read pack header: %w", err)
	}
	if err := checkHeader(header); err != nil {
		return nil, err
	}
	tail := make([]byte, pages*(sumSize+digestSize)+trailerSize)
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil {
		return nil, fmt.Errorf("read pack footer: %w", err)
	}
	return parseTail(tail, size)
}

// parseTail checks footer and trailer, which tail holds exactly. The Footer keeps tail.
func parseTail(tail []byte, fileSize int64) (*Footer, error) {
	if len(tail) < trailerSize {
		return nil, fmt.Errorf("%w: no pack trailer", ErrCorrupt)
	}
	tables := tail[:len(tail)-trailerSize]
	t, err := decodeTrailer(tail[len(tables):], fileSize)
	if err != nil {
		return nil, err
	}
	if want := t.pages * (sumSize + digestSize); len(tables) != want {
		return nil, fmt.Errorf("%w: footer of %d pages has %d bytes, want %d", ErrCorrupt, t.pages, len(tables), want)
	}
	f := &Footer{ID: t.id, digests: tables[:t.pages*digestSize], sums: tables[t.pages*digestSize:]}
	if got := xxhash.Sum64(f.sums); got != t.sumsSum {
		return nil, fmt.Errorf("%w: table of sums has checksum %016x, want %016x", ErrCorrupt, got, t.sumsSum)
	}
	if got := xxhash.Sum64(f.digests); got != t.digestsSum {
		return nil, fmt.Errorf("%w: table of digests has checksum %016x, want %016x", ErrCorrupt, got, t.digestsSum)
	}
	if got := ID(sha256.Sum256(tables)); got != t.id {
		return nil, fmt.Errorf("%w: footer has id %s, want %s", ErrCorrupt, got, t.id)
	}
	return f, nil
}
