package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"thaw/pagestore/internal/mapping"
	"thaw/pagestore/internal/pageset"
)

// How pages that are not in memory are read. The kernel would read around a fault on a mapping as much as the device's
// read-ahead says, which may be 8 MiB, half of which comes before the page that somebody waits for. So the mapping is
// one for random access, small ranges are asked for as they are, and large ones are read in order through the file.
const (
	// bulkPages is the size from which on a range is a part of a stream and not what a fault wants: over 256 KiB.
	bulkPages = 65
	// stepPages is how much of a stream is read and then hashed: 1 MiB.
	stepPages = 256
	// aheadPages is how much is asked for behind a small range that came from the disk: 256 KiB.
	aheadPages = 64
	// diskWait tells a wait for the disk from one for the kernel to map 64 pages, some 10 us. To be wrong costs an
	// idle request.
	diskWait = 50 * time.Microsecond
)

// Mapped is a pack mapped read-only, with a note of which of its pages were found intact. All methods but Close are
// safe for concurrent use, take no lock and allocate nothing unless they fail.
type Mapped struct {
	id    ID
	pages uint32
	file  *os.File
	data  []byte // the whole file, mapped
	sums  []byte // part of data

	// verified has the pages whose content matched its sum since the pack was opened. Two goroutines may hash the same
	// page at the same time; both find the same.
	verified pageset.Set
}

// Open maps the pack in the file path, which must be the one named want. It checks the trailer, the size and the table
// of sums, with one read; pages are checked when they are used, the table of digests by CheckFooter.
func Open(path string, want ID) (*Mapped, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	m, err := open(f, want)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

func open(f *os.File, want ID) (*Mapped, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	t, err := readEnd(f, info.Size())
	if err != nil {
		return nil, err
	}
	if t.id != want {
		return nil, fmt.Errorf("%w: file holds pack %s, want %s", ErrCorrupt, t.id, want)
	}
	data, err := mapping.MapRandom(f, info.Size())
	if err != nil {
		return nil, err
	}
	return newMapped(f, data, t.id, uint32(t.pages)), nil
}

// newMapped takes the mapping of f.
func newMapped(f *os.File, data []byte, id ID, pages uint32) *Mapped {
	sums := len(data) - trailerSize - int(pages)*sumSize
	return &Mapped{
		id:       id,
		pages:    pages,
		file:     f,
		data:     data,
		sums:     data[sums : len(data)-trailerSize],
		verified: pageset.New(pages),
	}
}

// readEnd reads and checks the trailer and the table of sums.
func readEnd(f *os.File, size int64) (trailer, error) {
	pages, err := pagesOf(size)
	if err != nil {
		return trailer{}, err
	}
	end := make([]byte, pages*sumSize+trailerSize)
	if _, err := f.ReadAt(end, size-int64(len(end))); err != nil {
		return trailer{}, fmt.Errorf("read end of pack: %w", err)
	}
	sums := end[:pages*sumSize]
	t, err := decodeTrailer(end[len(sums):], size)
	if err != nil {
		return t, err
	}
	if got := xxhash.Sum64(sums); got != t.sumsSum {
		return t, fmt.Errorf("%w: table of sums has checksum %016x, want %016x", ErrCorrupt, got, t.sumsSum)
	}
	return t, nil
}

// ID returns the pack's name.
func (m *Mapped) ID() ID { return m.id }

// Pages returns how many pages the pack has.
func (m *Mapped) Pages() uint32 { return m.pages }

// Deleted reports whether the pack's file has no name any more.
func (m *Mapped) Deleted() bool {
	var st unix.Stat_t
	return unix.Fstat(int(m.file.Fd()), &st) == nil && st.Nlink == 0
}

// Rest gives the pack's memory back to the page cache, where the kernel can drop it; nothing else is forgotten.
func (m *Mapped) Rest() { mapping.Forget(m.data) }

// Bytes returns n pages from page on, straight from the mapping: valid until Close, not to be written to. Storage
// that fails makes a read of them a SIGBUS, so hand them to the kernel or read them under a guard.
func (m *Mapped) Bytes(page uint32, n int) []byte {
	off := Offset(page)
	return m.data[off : off+int64(n)*PageSize : off+int64(n)*PageSize]
}

// Close unmaps the pack. No slice from Bytes may be in use.
func (m *Mapped) Close() error {
	err := errors.Join(mapping.Unmap(m.data), m.file.Close())
	m.data, m.sums = nil, nil
	return err
}

// Verified returns how many pages from page on, max at most, are known to be intact.
func (m *Mapped) Verified(page uint32, max int) int {
	return m.verified.Run(page, m.end(page, max))
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
		batch := min(p+stepPages, end)
		done, err := m.hash(p, batch)
		p += done
		if err != nil {
			return int(p - page), err
		}
	}
	return int(end - page), nil
}

// Sums returns the sums of n pages from page on, [SumSize] bytes each, as they stand in the file. They are mapped: read them
// under a guard, and not after Close.
func (m *Mapped) Sums(page uint32, n int) []byte {
	return m.sums[int(page)*sumSize:][:n*sumSize]
}

// Copy copies as many pages from page on as fit into to and returns how many of the copies are intact; to must not reach beyond
// the pack. It checks what it has copied, also of pages that are known. The error says what is wrong with page number page+n.
func (m *Mapped) Copy(to []byte, page uint32) (n int, err error) {
	m.fetch(page, page+uint32(len(to)/PageSize))
	defer mapping.Recover(mapping.Guard(), &err)
	copy(to, m.Bytes(page, len(to)/PageSize))
	for ; n < len(to)/PageSize; n++ {
		if err := m.compare(to[n*PageSize:][:PageSize], page+uint32(n)); err != nil {
			return n, err
		}
	}
	return n, nil
}

// Cached returns how many of the n pages from page on are in memory; 0 if the kernel cannot tell (before Linux 6.5).
func (m *Mapped) Cached(page uint32, n int) int {
	end := m.end(page, n)
	if end == page {
		return 0
	}
	in := unix.CachestatRange{Off: uint64(Offset(page)), Len: uint64(end-page) * PageSize}
	var out unix.Cachestat_t
	if err := unix.Cachestat(uint(m.file.Fd()), &in, &out, 0); err != nil {
		return 0
	}
	return int(out.Cache)
}

// Prefetch reads pages from page on, n at most, from the disk, waits for them, and checks and maps them, so that a fault
// finds them ready; stop, asked now and then, ends it early. What is wrong with a page shows when it is used.
func (m *Mapped) Prefetch(page uint32, n int, stop func() bool) {
	for end := m.end(page, n); page < end && !stop(); page += stepPages {
		step := int(min(end-page, stepPages))
		if m.Verified(page, step) == step { // but perhaps dropped from memory since
			mapping.Fill(m.file, Offset(page), int64(step)*PageSize)
		} else {
			_, _ = m.Verify(page, step)
		}
	}
}

// CheckFooter makes sure that both tables are those that gave the pack its name. Digest may be used after it.
func (m *Mapped) CheckFooter() (err error) {
	footer := m.data[Offset(m.pages) : len(m.data)-trailerSize]
	mapping.Fill(m.file, Offset(m.pages), int64(len(footer)))
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
	off := Offset(m.pages) + int64(page)*digestSize
	return string(m.data[off:off+digestSize]) == string(want[:]), nil
}

// Digests returns a copy of the table of digests, which it checks.
func (m *Mapped) Digests() (digests []byte, err error) {
	if err := m.CheckFooter(); err != nil {
		return nil, err
	}
	defer mapping.Recover(mapping.Guard(), &err)
	return bytes.Clone(m.data[Offset(m.pages):][:int(m.pages)*digestSize]), nil
}

// fetch waits until pages [page, end) are in memory.
func (m *Mapped) fetch(page, end uint32) {
	data := m.Bytes(page, int(end-page))
	if end-page >= bulkPages {
		mapping.Fill(m.file, Offset(page), int64(len(data)))
		mapping.Populate(data)
		return
	}
	start := time.Now()
	mapping.WillNeed(data)
	mapping.Populate(data)
	if time.Since(start) > diskWait {
		mapping.WillNeed(m.Bytes(end, int(min(aheadPages, m.pages-end))))
	}
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
	m.fetch(page, end)
	defer mapping.Recover(mapping.Guard(), &err)
	for p := page; p < end; p++ {
		if err := m.compare(m.data[Offset(p):][:PageSize], p); err != nil {
			return done, err
		}
		m.verified.Add(p)
		done++
	}
	return done, nil
}

// compare returns an error unless content is that of page, according to the table of sums.
func (m *Mapped) compare(content []byte, page uint32) error {
	want := binary.LittleEndian.Uint64(m.sums[int(page)*sumSize:])
	if got := xxhash.Sum64(content); got != want {
		return fmt.Errorf("%w: page has checksum %016x, want %016x", ErrCorrupt, got, want)
	}
	return nil
}
