package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/mapping"
)

// populatePages is how many pages are asked of the kernel at once before they are hashed: 256 KiB, which keeps a
// demand fault's wait short and is past the size where more batching pays (2.1 of 2.8 GB/s at 64 KiB already).
const populatePages = 64

// prefetchPages is how many pages one request for read-ahead names: 1 MiB. The kernel caps a request at the larger of the
// device's read-ahead and its largest transfer (force_page_cache_ra in mm/readahead.c) and drops the rest silently; no
// disk met so far had less.
const prefetchPages = 256

// Mapped is a pack mapped read-only, with a note of which of its pages were found intact. All methods but Close are
// safe for concurrent use, take no lock and allocate nothing unless they fail.
type Mapped struct {
	id    ID
	pages uint32
	data  []byte // the whole file; immutable
	sums  []byte // part of data

	// verified has one bit for each page whose content matched its sum since the pack was opened. Bits are only
	// ever set. Two goroutines may hash the same page at the same time; both find the same.
	verified []atomic.Uint64
}

// Open maps the pack in the file path, which must be the one named want. It checks header, trailer, size and the
// table of sums; pages are checked when they are used, the table of digests by CheckFooter.
func Open(path string, want ID) (*Mapped, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the mapping keeps the file
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	t, err := readEnds(f, info.Size())
	if err != nil {
		return nil, err
	}
	if t.id != want {
		return nil, fmt.Errorf("%w: file holds pack %s, want %s", ErrCorrupt, t.id, want)
	}
	data, err := mapping.Map(f, info.Size())
	if err != nil {
		return nil, err
	}
	sumsOff := Offset(uint32(t.pages))
	m := &Mapped{
		id:       t.id,
		pages:    uint32(t.pages),
		data:     data,
		sums:     data[sumsOff : sumsOff+int64(t.pages)*sumSize],
		verified: make([]atomic.Uint64, (t.pages+63)/64),
	}
	if err := m.checkSums(t.sumsSum); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// readEnds reads and checks the fixed parts of a pack file.
func readEnds(f *os.File, size int64) (trailer, error) {
	if size < FileSize(1) || size > FileSize(MaxPages) {
		return trailer{}, fmt.Errorf("%w: file has %d bytes, want %d to %d", ErrCorrupt, size, FileSize(1), FileSize(MaxPages))
	}
	header, end := make([]byte, headerSize), make([]byte, trailerSize)
	if _, err := f.ReadAt(header, 0); err != nil {
		return trailer{}, fmt.Errorf("read pack header: %w", err)
	}
	if err := checkHeader(header); err != nil {
		return trailer{}, err
	}
	if _, err := f.ReadAt(end, size-trailerSize); err != nil {
		return trailer{}, fmt.Errorf("read pack trailer: %w", err)
	}
	return decodeTrailer(end, size)
}

// ID returns the pack's name.
func (m *Mapped) ID() ID { return m.id }

// Pages returns how many pages the pack has.
func (m *Mapped) Pages() uint32 { return m.pages }

// Bytes returns n pages from page on, straight from the mapping: valid until Close, not to be written to. Storage
// that fails makes a read of them a SIGBUS, so hand them to the kernel or read them under a guard.
func (m *Mapped) Bytes(page uint32, n int) []byte {
	off := Offset(page)
	return m.data[off : off+int64(n)*PageSize : off+int64(n)*PageSize]
}

// Close unmaps the pack. No slice from Bytes may be in use.
func (m *Mapped) Close() error {
	err := mapping.Unmap(m.data)
	m.data, m.sums = nil, nil
	return err
}

// Verified returns how many pages from page on, max at most, are known to be intact.
func (m *Mapped) Verified(page uint32, max int) int {
	end := m.end(page, max)
	for p := page; p < end; {
		word := m.verified[p/64].Load() >> (p % 64)
		run := uint32(bits.TrailingZeros64(^word))
		if run < 64-p%64 {
			return int(min(p+run, end) - page)
		}
		p += 64 - p%64
	}
	return int(end - page)
}

// Verify makes sure that pages from page on, max at most, are intact, and returns how many are. It reads and hashes
// those that are not known to be. The error says what is wrong with page number page+n.
func (m *Mapped) Verify(page uint32, max int) (n int, err error) {
	end := m.end(page, max)
	for p := page; p < end; {
		if known := m.Verified(p, int(end-p)); known > 0 {
			p += uint32(known)
			continue
		}
		batch := min(p+populatePages, end)
		done, err := m.hash(p, batch)
		p += done
		if err != nil {
			return int(p - page), err
		}
	}
	return int(end - page), nil
}

// Prefetch starts to read pages from page on, n at most, from the disk; see mapping.WillNeed. The kernel takes at most
// its own largest request of one call, so the range goes down in steps.
func (m *Mapped) Prefetch(page uint32, n int) {
	for end := m.end(page, n); page < end; page += prefetchPages {
		mapping.WillNeed(m.Bytes(page, int(min(end-page, prefetchPages))))
	}
}

// CheckFooter makes sure that both tables are those that gave the pack its name. Digest may be used after it.
func (m *Mapped) CheckFooter() (err error) {
	footer := m.data[Offset(m.pages) : len(m.data)-trailerSize]
	mapping.Populate(footer)
	defer mapping.Recover(mapping.Guard(), &err)
	if got := ID(sha256.Sum256(footer)); got != m.id {
		return fmt.Errorf("%w: footer has id %s, want %s", ErrCorrupt, got, m.id)
	}
	return nil
}

// HasDigest reports whether page is in the pack and has the SHA-256 want, according to the pack's table.
func (m *Mapped) HasDigest(page uint32, want *Digest) (ok bool, err error) {
	if page >= m.pages {
		return false, nil
	}
	defer mapping.Recover(mapping.Guard(), &err)
	off := Offset(m.pages) + int64(m.pages)*sumSize + int64(page)*digestSize
	return string(m.data[off:off+digestSize]) == string(want[:]), nil
}

// end clamps page+max to the pages of the pack.
func (m *Mapped) end(page uint32, max int) uint32 {
	if page >= m.pages || max <= 0 {
		return page
	}
	return page + uint32(min(int64(max), int64(m.pages-page)))
}

// hash checks the pages of [page, end) and marks those that are intact, up to the first that is not.
func (m *Mapped) hash(page, end uint32) (done uint32, err error) {
	mapping.Populate(m.Bytes(page, int(end-page)))
	defer mapping.Recover(mapping.Guard(), &err)
	for p := page; p < end; p++ {
		want := binary.LittleEndian.Uint64(m.sums[int(p)*sumSize:])
		if got := xxhash.Sum64(m.data[Offset(p):][:PageSize]); got != want {
			return done, fmt.Errorf("%w: page has checksum %016x, want %016x", ErrCorrupt, got, want)
		}
		m.verified[p/64].Or(1 << (p % 64))
		done++
	}
	return done, nil
}

// checkSums compares the table of sums with its checksum.
func (m *Mapped) checkSums(want uint64) (err error) {
	mapping.Populate(m.sums)
	defer mapping.Recover(mapping.Guard(), &err)
	if got := xxhash.Sum64(m.sums); got != want {
		return fmt.Errorf("%w: table of sums has checksum %016x, want %016x", ErrCorrupt, got, want)
	}
	return nil
}
