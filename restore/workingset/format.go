package workingset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/cespare/xxhash/v2"
)

// These constants are part of the format; do not change them.
const (
	// Magic is what a file begins with.
	Magic = "THAWWSET"
	// Version is the one version of the format.
	Version = 1
	// MaxSize bounds a file in bytes: 32 GiB of touched memory, if each page takes 8 bytes.
	MaxSize = 64 << 20

	headerSize    = 88
	sumSize       = 8
	minObjectSize = 2 // lengths of path and entries
	minEntrySize  = 4
	minHiddenSize = 3

	// The head of an entry: bucket, and which parts it has.
	headBucket  = 0x0f
	headWrite   = 1 << 4
	headStart   = 1 << 5
	headRequest = 1 << 6
	headLater   = 1 << 7
)

var (
	// ErrCorrupt is what Decode returns, wrapped, for bytes that are no working set as it was written.
	ErrCorrupt = errors.New("corrupt working set")

	// ErrVersion is what Decode returns, wrapped, for a working set of another version.
	ErrVersion = errors.New("working set of an unknown version")

	// ErrTooLarge is returned, wrapped, for what the format has no room for.
	ErrTooLarge = errors.New("working set is larger than the format allows")
)

// Encode appends the file to b. Returns ErrTooLarge if it does not fit, and another error if the set is none that this
// package made.
func (s *Set) Encode(b []byte) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("encode working set: %w", err)
	}
	if len(s.Hidden) > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d hidden ranges", ErrTooLarge, len(s.Hidden))
	}
	begin := len(b)
	b = s.appendHeader(b)
	for i := range s.Objects {
		o := &s.Objects[i]
		b = binary.AppendUvarint(b, uint64(len(o.Path)))
		b = append(b, o.Path...)
		b = binary.AppendUvarint(b, uint64(len(o.Entries)))
		b = appendEntries(b, o.Entries)
	}
	var end uint64
	for _, h := range s.Hidden {
		b = binary.AppendUvarint(b, h.Page-end)
		b = binary.AppendUvarint(b, h.Pages)
		b = append(b, h.Known)
		end = h.Page + h.Pages
	}
	size := len(b) - begin + sumSize
	if size > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	binary.LittleEndian.PutUint64(b[begin+16:], uint64(size))
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b[begin:])), nil
}

func (s *Set) appendHeader(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, Magic...)
	b = le.AppendUint32(b, Version)
	b = le.AppendUint32(b, PageSize)
	b = le.AppendUint64(b, 0) // the size, when it is known
	b = append(b, s.Digest[:]...)
	b = le.AppendUint64(b, s.ImagePages)
	for _, n := range []uint32{s.Recordings, s.Partial, uint32(len(s.Objects)), uint32(len(s.Hidden)), 0, 0} {
		b = le.AppendUint32(b, n)
	}
	return b
}

// appendEntries writes each page as its distance from the one before, and of the history the masks that are not 0: most pages
// have one.
func appendEntries(b []byte, entries []Entry) []byte {
	var next uint64
	for i := range entries {
		e := &entries[i]
		b = binary.AppendUvarint(b, e.Page-next)
		next = e.Page + 1
		head := byte(e.Bucket)
		if e.Write {
			head |= headWrite
		}
		masks := e.masks()
		for _, m := range masks {
			if *m.bits != 0 {
				head |= m.head
			}
		}
		b = append(b, head, e.Known)
		for _, m := range masks {
			if *m.bits != 0 {
				b = binary.AppendUvarint(b, uint64(*m.bits))
			}
		}
	}
	return b
}

// A mask is one of those of an entry, with the bit of the head that says that it is there.
type mask struct {
	head byte
	bits *uint32
}

func (e *Entry) masks() [3]mask {
	return [3]mask{{headStart, &e.Start}, {headRequest, &e.Request}, {headLater, &e.Later}}
}

// Read reads a working set of at most MaxSize bytes from r, to its end. See Decode for its errors.
func Read(r io.Reader) (*Set, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read working set: %w", err)
	}
	return Decode(data)
}

// Decode reads a file. The set keeps nothing of data. Whether it is of the right snapshot, Match says.
//
// Returns ErrVersion if another version wrote it, and ErrCorrupt if the bytes are damaged, cut off, followed by others, or no
// working set at all. What it returns without an error, Encode writes as the same bytes.
func Decode(data []byte) (*Set, error) {
	d := &decoder{rest: data}
	s, err := d.set(data)
	if err == nil {
		return s, nil
	}
	return nil, fmt.Errorf("%w, at byte %d of %d", err, len(data)-len(d.rest), len(data))
}
