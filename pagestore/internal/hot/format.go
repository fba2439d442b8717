package hot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

// These constants are part of the format; do not change them.
const (
	// Version is the one version of the format.
	Version = 1
	// MaxPages bounds a file to 16 GiB of pages: what a process needs first is much less, and the tables of an open file, 32
	// bytes a run, stay below 128 MiB.
	MaxPages = 1 << 22

	magic      = "THAWHOTP"
	headerSize = 72
	runSize    = 16

	pageSizeOff  = 12
	pagesOff     = 16
	runsOff      = 20
	digestOff    = 24
	tableSumOff  = 56
	headerSumOff = 64
)

// Errors of the package.
var (
	// ErrCorrupt: the bytes are not a hot file as it was written, or that of another snapshot.
	ErrCorrupt = errors.New("corrupt hot file")
	// ErrVersion: a hot file of a version that this code does not know.
	ErrVersion = errors.New("unknown hot file version")
)

// Run is Pages pages of the image from Image on. They lie one after the other in the file.
type Run struct {
	Image uint64
	Pages uint32
}

// Table says which pages of an image a hot file has, and where. It is immutable.
type Table struct {
	pages uint32
	head  int64   // bytes before the first page
	runs  []place // in the order of the file
	find  finder
}

// place is where the file has a run.
type place struct {
	Run
	page uint32 // in the file
}

// Pages returns how many pages the file has.
func (t *Table) Pages() uint32 { return t.pages }

// Runs returns how many runs the file has.
func (t *Table) Runs() int { return len(t.runs) }

// Run returns run number i of the file and the page of the file at which it begins.
func (t *Table) Run(i int) (r Run, page uint32) { return t.runs[i].Run, t.runs[i].page }

// Find returns the page of the file that is a copy of a page of the image, and how many pages follow it in the file as they do in the
// image, itself included; n is 0 if the file has no copy.
func (t *Table) Find(image uint64) (page uint32, n int) { return t.find.find(image) }

// Gap returns how many pages of the image from image on are not in the table: those before the next one that is, or more than there are if none is.
func (t *Table) Gap(image uint64) uint64 { return t.find.gap(image) }

// Offset returns where a page starts in the file, in bytes.
func (t *Table) Offset(page uint32) int64 { return t.head + int64(page)*pack.PageSize }

// FileSize returns the size of the file in bytes.
func (t *Table) FileSize() int64 { return t.Offset(t.pages) }

// headSize returns how many bytes come before the pages of a file with n runs: whole pages.
func headSize(n int64) int64 {
	const page = pack.PageSize
	return (headerSize + n*runSize + page - 1) / page * page
}

// Encode returns what comes before the pages of a hot file, and the table that its readers will see.
//
// Preconditions: runs are not empty, have at most MaxPages pages, none twice, and none begins where the one before it ends.
func Encode(snapshot pack.Digest, imagePages uint64, runs []Run) (head []byte, t *Table, err error) {
	head = make([]byte, headSize(int64(len(runs))))
	var pages uint32
	for i, r := range runs {
		b := head[headerSize+i*runSize:]
		binary.LittleEndian.PutUint64(b, r.Image)
		binary.LittleEndian.PutUint32(b[8:], r.Pages)
		pages += r.Pages
	}
	copy(head, magic)
	binary.LittleEndian.PutUint32(head[8:], Version)
	binary.LittleEndian.PutUint32(head[pageSizeOff:], pack.PageSize)
	binary.LittleEndian.PutUint32(head[pagesOff:], pages)
	binary.LittleEndian.PutUint32(head[runsOff:], uint32(len(runs)))
	copy(head[digestOff:], snapshot[:])
	binary.LittleEndian.PutUint64(head[tableSumOff:], xxhash.Sum64(head[headerSize:]))
	binary.LittleEndian.PutUint64(head[headerSumOff:], xxhash.Sum64(head[:headerSumOff]))
	if t, err = Parse(head, int64(len(head))+int64(pages)*pack.PageSize, snapshot, imagePages); err != nil {
		return nil, nil, fmt.Errorf("read back head of hot file: %w", err)
	}
	return head, t, nil
}

// MaxHeadSize is the most bytes that may come before the pages of a hot file.
const MaxHeadSize = (headerSize + MaxPages*runSize + pack.PageSize - 1) / pack.PageSize * pack.PageSize

// ParseHead is [Parse] for a head without a file behind it: the size of the file is what the head says.
func ParseHead(head []byte, snapshot pack.Digest, imagePages uint64) (*Table, error) {
	if len(head) < headerSize {
		return nil, fmt.Errorf("%w: no header", ErrCorrupt)
	}
	pages := int64(binary.LittleEndian.Uint32(head[pagesOff:]))
	return Parse(head, int64(len(head))+pages*pack.PageSize, snapshot, imagePages)
}

// ReadHead returns the bytes of a hot file that come before its pages, which nobody has checked.
func ReadHead(r io.ReaderAt) ([]byte, error) {
	header := make([]byte, headerSize)
	if _, err := r.ReadAt(header, 0); err != nil {
		return nil, fmt.Errorf("read header of hot file: %w", err)
	}
	head := make([]byte, headSize(int64(min(binary.LittleEndian.Uint32(header[runsOff:]), MaxPages))))
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("read head of hot file: %w", err)
	}
	return head, nil
}

// parseHeader checks the first bytes of a file of the given size and returns the counts in them. They are bounded by the size.
func parseHeader(b []byte, fileSize int64, snapshot pack.Digest) (pages, runs uint32, err error) {
	if len(b) < headerSize || string(b[:8]) != magic {
		return 0, 0, fmt.Errorf("%w: no header", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != Version {
		return 0, 0, fmt.Errorf("%w: %d, want %d", ErrVersion, v, Version)
	}
	if want, got := binary.LittleEndian.Uint64(b[headerSumOff:]), xxhash.Sum64(b[:headerSumOff]); got != want {
		return 0, 0, fmt.Errorf("%w: header has checksum %016x, want %016x", ErrCorrupt, got, want)
	}
	if n := binary.LittleEndian.Uint32(b[pageSizeOff:]); n != pack.PageSize {
		return 0, 0, fmt.Errorf("%w: pages of %d bytes, want %d", ErrCorrupt, n, pack.PageSize)
	}
	pages, runs = binary.LittleEndian.Uint32(b[pagesOff:]), binary.LittleEndian.Uint32(b[runsOff:])
	if pages == 0 || pages > MaxPages || runs == 0 || runs > pages {
		return 0, 0, fmt.Errorf("%w: %d runs of %d pages, want 1 to %d", ErrCorrupt, runs, pages, MaxPages)
	}
	if want := headSize(int64(runs)) + int64(pages)*pack.PageSize; fileSize != want {
		return 0, 0, fmt.Errorf("%w: file of %d runs and %d pages has %d bytes, want %d", ErrCorrupt, runs, pages, fileSize, want)
	}
	if got := pack.Digest(b[digestOff:tableSumOff]); got != snapshot {
		return 0, 0, fmt.Errorf("%w: it is that of the snapshot %s, want %s", ErrCorrupt, got, snapshot)
	}
	return pages, runs, nil
}

// Parse checks head, all of a hot file before its pages, against the size of the file in bytes, the digest of the snapshot's manifest
// and the size of its image. Errors wrap [ErrCorrupt] or [ErrVersion].
func Parse(head []byte, fileSize int64, snapshot pack.Digest, imagePages uint64) (*Table, error) {
	pages, n, err := parseHeader(head, fileSize, snapshot)
	if err != nil {
		return nil, err
	}
	if want := headSize(int64(n)); int64(len(head)) != want {
		return nil, fmt.Errorf("%w: head has %d bytes, want %d", ErrCorrupt, len(head), want)
	}
	if want, got := binary.LittleEndian.Uint64(head[tableSumOff:]), xxhash.Sum64(head[headerSize:]); got != want {
		return nil, fmt.Errorf("%w: table has checksum %016x, want %016x", ErrCorrupt, got, want)
	}
	t := &Table{pages: pages, head: int64(len(head)), runs: make([]place, n)}
	if err := t.parseRuns(head[headerSize:], min(imagePages, manifest.MaxImagePages)); err != nil {
		return nil, err
	}
	return t, nil
}

// parseRuns reads the table of runs, with what pads it to a page.
func (t *Table) parseRuns(b []byte, imagePages uint64) error {
	var page uint32
	var end uint64 // of the run before
	for i := range t.runs {
		r := Run{Image: binary.LittleEndian.Uint64(b), Pages: binary.LittleEndian.Uint32(b[8:])}
		switch {
		case r.Pages == 0 || r.Pages > t.pages-page:
			return fmt.Errorf("%w: run %d has %d pages, after %d of %d", ErrCorrupt, i, r.Pages, page, t.pages)
		case uint64(r.Pages) > imagePages || r.Image > imagePages-uint64(r.Pages):
			return fmt.Errorf("%w: run %d is image pages [%d, %d+%d) of %d", ErrCorrupt, i, r.Image, r.Image, r.Pages, imagePages)
		case i > 0 && r.Image == end:
			return fmt.Errorf("%w: run %d continues the one before it", ErrCorrupt, i)
		case binary.LittleEndian.Uint32(b[12:]) != 0:
			return fmt.Errorf("%w: run %d has reserved bytes set", ErrCorrupt, i)
		}
		t.runs[i] = place{r, page}
		page, end, b = page+r.Pages, r.Image+uint64(r.Pages), b[runSize:]
	}
	if page != t.pages {
		return fmt.Errorf("%w: runs have %d pages, the header says %d", ErrCorrupt, page, t.pages)
	}
	if slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return fmt.Errorf("%w: bytes behind the table are set", ErrCorrupt)
	}
	var twice bool
	if t.find, twice = newFinder(t.runs); twice {
		return fmt.Errorf("%w: a page of the image is in two runs", ErrCorrupt)
	}
	return nil
}
