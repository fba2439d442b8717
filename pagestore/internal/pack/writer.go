package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

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
	id      hash.Hash // over the first hashed bytes of digests
	hashed  int
}

// hashBytes is how many bytes of digests are hashed at a time, when they are added: while Seal hashes, nobody has anything else to do.
const hashBytes = 4096

// NewWriter starts a pack in an empty file, which stays the caller's to sync and close.
func NewWriter(f durable.File) (*Writer, error) {
	if _, err := f.WriteAt(encodeHeader(), 0); err != nil {
		return nil, fmt.Errorf("write pack header: %w", err)
	}
	return &Writer{file: f, id: sha256.New()}, nil
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
	if len(w.digests)-w.hashed >= hashBytes {
		w.hash(w.digests)
	}
	return uint32(w.pages - 1)
}

// hash goes on with the ID, up to the end of what is given of the footer.
func (w *Writer) hash(footer []byte) {
	w.id.Write(footer[w.hashed:])
	w.hashed = len(footer)
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
	w.hash(footer)
	t := trailer{
		pages:      w.pages,
		id:         ID(w.id.Sum(nil)),
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
