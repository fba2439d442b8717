package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"thaw/internal/durable"
)

// Writer makes a pack, front to back. It is not safe for concurrent use.
type Writer struct {
	file    durable.File
	pages   int
	sums    []byte
	digests []byte
}

// NewWriter starts a pack in an empty file, which stays the caller's to sync and close.
func NewWriter(f durable.File) (*Writer, error) {
	if _, err := f.Write(encodeHeader()); err != nil {
		return nil, fmt.Errorf("write pack header: %w", err)
	}
	return &Writer{file: f}, nil
}

// Pages returns how many pages the pack has so far.
func (w *Writer) Pages() int { return w.pages }

// Room returns how many more pages fit.
func (w *Writer) Room() int { return MaxPages - w.pages }

// Append writes pages, which are one after the other in data, in one write.
//
// Preconditions: len(data) is len(digests) pages; so is len(sums); they fit in Room.
//
// After an error the pack is unusable.
func (w *Writer) Append(data []byte, digests []Digest, sums []uint64) error {
	if len(data) != len(digests)*PageSize || len(sums) != len(digests) || len(sums) > w.Room() {
		panic(fmt.Sprintf("pack: append of %d bytes, %d digests, %d sums to %d pages", len(data), len(digests), len(sums), w.pages))
	}
	if _, err := w.file.Write(data); err != nil {
		return fmt.Errorf("write page %d of a new pack: %w", w.pages, err)
	}
	for i := range digests {
		w.sums = binary.LittleEndian.AppendUint64(w.sums, sums[i])
		w.digests = append(w.digests, digests[i][:]...)
	}
	w.pages += len(digests)
	return nil
}

// Seal writes the footer and returns the pack's tables, checked by the code that reads them. The pack must have at
// least one page.
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
	if _, err := w.file.Write(tail); err != nil {
		return nil, fmt.Errorf("write pack footer: %w", err)
	}
	return parsed, nil
}
