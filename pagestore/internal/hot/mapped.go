package hot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"thaw/pagestore/internal/mapping"
	"thaw/pagestore/internal/pack"
	"thaw/pagestore/internal/pageset"
)

// aheadPages is how much is asked for with a few pages that are wanted now, 256 KiB: what follows them is wanted next.
const aheadPages = 64

// Mapped is a hot file mapped read-only, with a note of which of its pages were found to be what they should be. All methods but
// Close are safe for concurrent use, take no lock and allocate nothing unless they fail.
type Mapped struct {
	*Table
	file     *os.File
	data     []byte // the whole file, mapped
	verified pageset.Set
}

// Open maps a hot file and takes ownership of f, also if it fails. It checks all that comes before the pages, with two reads; see
// [Parse] for snapshot and imagePages.
func Open(f *os.File, snapshot pack.Digest, imagePages uint64) (*Mapped, error) {
	m, err := open(f, snapshot, imagePages)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

func open(f *os.File, snapshot pack.Digest, imagePages uint64) (*Mapped, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is no file (%v)", ErrCorrupt, info.Mode().Type())
	}
	head := make([]byte, headerSize, pack.PageSize)
	if info.Size() < headerSize {
		return nil, fmt.Errorf("%w: file has %d bytes", ErrCorrupt, info.Size())
	}
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("read header of hot file: %w", err)
	}
	_, runs, err := parseHeader(head, info.Size(), snapshot)
	if err != nil {
		return nil, err
	}
	head = append(head, make([]byte, headSize(int64(runs))-headerSize)...)
	if _, err := f.ReadAt(head[headerSize:], headerSize); err != nil {
		return nil, fmt.Errorf("read table of hot file: %w", err)
	}
	t, err := Parse(head, info.Size(), snapshot, imagePages)
	if err != nil {
		return nil, err
	}
	data, err := mapping.MapRandom(f, info.Size())
	if err != nil {
		return nil, err
	}
	return &Mapped{Table: t, file: f, data: data, verified: pageset.New(t.pages)}, nil
}

// Close unmaps the file. No slice from Bytes may be in use.
func (m *Mapped) Close() error {
	err := errors.Join(mapping.Unmap(m.data), m.file.Close())
	m.data = nil
	return err
}

// Cached returns how many pages of the file's content are in memory; all of them if the kernel cannot tell (before Linux 6.5).
func (m *Mapped) Cached() int {
	in := unix.CachestatRange{Off: uint64(m.Offset(0)), Len: uint64(m.pages) * pack.PageSize}
	var out unix.Cachestat_t
	if err := unix.Cachestat(uint(m.file.Fd()), &in, &out, 0); err != nil {
		return int(m.pages)
	}
	return int(out.Cache)
}

// CloseAndDrop is Close, and has the kernel drop the file's pages from memory that nobody else has mapped: a hint.
func (m *Mapped) CloseAndDrop() error {
	err := mapping.Unmap(m.data)
	m.data = nil
	_ = unix.Fadvise(int(m.file.Fd()), 0, 0, unix.FADV_DONTNEED)
	return errors.Join(err, m.file.Close())
}

// Bytes returns n pages from page on, straight from the mapping: valid until Close, not to be written to. As with a pack's, hand
// them to the kernel or read them under a guard.
func (m *Mapped) Bytes(page uint32, n int) []byte {
	off := m.Offset(page)
	return m.data[off : off+int64(n)*pack.PageSize : off+int64(n)*pack.PageSize]
}

// Verified returns how many pages from page on, max at most, are known to be what Check compared them with.
func (m *Mapped) Verified(page uint32, max int) int {
	return m.verified.Run(page, page+uint32(min(int64(max), int64(m.pages-page))))
}

// Check compares pages from page on, one for each of the sums (xxh64, 8 bytes each, little endian), which may be mapped, with these,
// unless they were compared before. It returns how many are intact; the error says what is wrong with page number page+n. It reads
// the pages from where they are: have them in memory.
func (m *Mapped) Check(page uint32, sums []byte) (n int, err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	for ; n < len(sums)/pack.SumSize; n++ {
		p := page + uint32(n)
		if m.verified.Has(p) {
			continue
		}
		want := binary.LittleEndian.Uint64(sums[n*pack.SumSize:])
		if got := xxhash.Sum64(m.Bytes(p, 1)); got != want {
			return n, fmt.Errorf("%w: page %d has checksum %016x, want %016x", ErrCorrupt, p, got, want)
		}
		m.verified.Add(p)
	}
	return n, nil
}

// Fetch waits until n pages from page on are in memory, and has the disk read some more behind them. What goes wrong shows when the
// pages are read.
func (m *Mapped) Fetch(page uint32, n int) {
	mapping.WillNeed(m.Bytes(page, max(n, int(min(aheadPages, m.pages-page)))))
	mapping.Populate(m.Bytes(page, n))
}

// Stream is Fetch for many pages, of a file that is read from its beginning to its end.
func (m *Mapped) Stream(page uint32, n int) {
	mapping.Fill(m.file, m.Offset(page), int64(n)*pack.PageSize)
	mapping.Populate(m.Bytes(page, n))
}

// ReadAt implements [io.ReaderAt] with what the file has now, for a verifier.
func (m *Mapped) ReadAt(b []byte, off int64) (n int, err error) { return m.file.ReadAt(b, off) }
