package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"thaw/internal/durable"
)

// Writer makes a pack. Pages are numbered in the order in which they are entered, and may be written in any order. WritePages is
// safe for concurrent use and may run beside Add; the other methods are for one goroutine at a time.
type Writer struct {
	file    durable.File
	pages   int
	sums    []byte
	digests []byte
}

// NewWriter starts a pack in an empty file, which stays the caller's to sync and close.
func NewWriter(f durable.File) (*Writer, error) {
	if _, err := f.WriteAt(encodeHeader(), 0); err != nil {
		return nil, fmt.Errorf("write pack header: %w", err)
	}
	return &Writer{file: f}, nil
}

// Pages returns how many pages the pack has so far.
func (w *Writer) Pages() int { return w.pages }

// Room returns how many more pages fit.
func (w *Writer) Room() int { return MaxPages - w.pages }

// Add enters the next page into the tables and returns its number. The caller sees to it that the page is written.
//
// Preconditions: there is Room.
func (w *Writer) Add(digest *Digest, sum uint64) (page uint32) {
	if w.Room() == 0 {
		panic("pack: a page more than fits")
	}
	w.sums = binary.LittleEndian.AppendUint64(w.sums, sum)
	w.digests = append(w.digests, digest[:]...)
	w.pages++
	return uint32(w.pages - 1)
}

// WritePages writes pages that Add has numbered from first on. After an error the pack is unusable.
func (w *Writer) WritePages(data []byte, first uint32) error {
	if _, err := w.file.WriteAt(data, Offset(first)); err != nil {
		return fmt.Errorf("write page %d of a new pack: %w", first, err)
	}
	return nil
}

// Seal writes the footer and returns the pack's tables, checked by the code that reads them. The pack must have at
// least one page, and all of them must have been written.
func (w *Writer) Seal() (*Footer, error) {
	footer := append(w.digests, w.sums...)
	t := trailer{
		pages:      w.pages,
		id:         sha256.Sum256(footer),
		sumsSum:    xxhash.Sum64(w.sums),
		digestsSum: xxhash.Sum64(w.digests),
	}
	tail := append(footer, t.encode()...)
	parsed, err := parseTail(tail, FileSize(w.pages))
	if err != nil {
		return nil, fmt.Errorf("read back pack footer: %w", err)
	}
	if _, err := w.file.WriteAt(tail, Offset(uint32(w.pages))); err != nil {
		return nil, fmt.Errorf("write pack footer: %w", err)
	}
	return parsed, nil
}
