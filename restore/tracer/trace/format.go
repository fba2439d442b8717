package trace

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// These constants are part of the format; do not change them.
const (
	// Version is the one version of the format.
	Version = 1
	// MaxSize bounds a file in bytes: the largest number of touches at 16 bytes each, more than any of them takes on average.
	MaxSize = 1 << 30

	magic        = "THAWTRAC"
	headerSize   = 88
	spaceSize    = 32
	regionSize   = 24 // and its name
	threadSize   = 8
	minTouchSize = 3
	sumSize      = 8

	maxName = 255

	flagComplete = 1 << 0

	touchWrite  = 1 << 0
	touchKernel = 1 << 1
	threadShift = 2

	// addressLimit is where the addresses of programs end on any processor: 57 bits have 5 levels of page tables.
	addressLimit = 1 << 56

	aliveMark = 1<<64 - 1
)

var (
	// ErrCorrupt is what Decode returns, wrapped, for bytes that are no trace as it was written.
	ErrCorrupt = errors.New("corrupt trace")

	// ErrVersion is what Decode returns, wrapped, for a trace of another version.
	ErrVersion = errors.New("trace of an unknown version")

	// ErrTooLarge is what Encode returns, wrapped, for what is no trace that the format has room for.
	ErrTooLarge = errors.New("trace is larger than the format allows")
)

// Encode appends the file to b.
//
// Preconditions: the trace is as Builder or Decode made it. Returns ErrTooLarge if it does not fit.
func (t *Trace) Encode(b []byte) ([]byte, error) {
	threads := t.threads()
	if len(t.Spaces) > maxSpaces || len(t.Regions) > maxRegions || len(threads) > maxThreads || len(t.Touches) > maxTouches || len(t.Cgroup) > 1<<16-1 {
		return nil, fmt.Errorf("%w: %d spaces, %d regions, %d threads, %d touches", ErrTooLarge, len(t.Spaces), len(t.Regions), len(threads), len(t.Touches))
	}
	begin := len(b)
	b = t.appendHeader(b, len(threads))
	b = append(b, t.Cgroup...)
	for i := range t.Spaces {
		b = appendSpace(b, &t.Spaces[i])
	}
	for i := range t.Regions {
		b = appendRegion(b, &t.Regions[i])
	}
	for _, k := range threads {
		b = binary.LittleEndian.AppendUint32(b, k.space)
		b = binary.LittleEndian.AppendUint32(b, k.tid)
	}
	b = t.appendTouches(b, threads)
	size := len(b) - begin + sumSize
	if size > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	binary.LittleEndian.PutUint64(b[begin+16:], uint64(size))
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b[begin:])), nil
}

// threads returns who touched, ascending.
func (t *Trace) threads() []threadKey {
	seen := make(map[threadKey]struct{})
	var all []threadKey
	for i := range t.Touches {
		k := threadKey{t.Touches[i].Space, t.Touches[i].TID}
		if _, known := seen[k]; !known {
			seen[k] = struct{}{}
			all = append(all, k)
		}
	}
	slices.SortFunc(all, compareThreads)
	return all
}

func compareThreads(a, b threadKey) int {
	return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.tid, b.tid))
}

func (t *Trace) appendHeader(b []byte, threads int) []byte {
	le := binary.LittleEndian
	b = append(b, magic...)
	b = le.AppendUint32(b, Version)
	b = le.AppendUint32(b, PageSize)
	b = le.AppendUint64(b, 0) // the size, when it is known
	b = append(b, byte(t.Point), byte(t.End))
	b = le.AppendUint16(b, uint16(t.Blind))
	b = le.AppendUint16(b, uint16(len(t.Cgroup)))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(t.Started.UnixNano()))
	b = le.AppendUint64(b, uint64(t.Length))
	b = le.AppendUint64(b, t.LostRing)
	b = le.AppendUint64(b, t.LostSpace)
	for _, n := range []int{len(t.Spaces), len(t.Regions), threads, len(t.Touches)} {
		b = le.AppendUint32(b, uint32(n))
	}
	var flags uint32
	if t.Complete() {
		flags |= flagComplete
	}
	b = le.AppendUint32(b, flags)
	return le.AppendUint32(b, 0)
}

func appendSpace(b []byte, s *Space) []byte {
	le := binary.LittleEndian
	for _, v := range []uint32{s.ID, s.PID, s.Parent, uint32(s.Origin)} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint64(b, uint64(s.Began))
	return le.AppendUint64(b, uint64(s.Ended)) // Alive is all ones
}

func appendRegion(b []byte, r *Region) []byte {
	le := binary.LittleEndian
	name := r.Name[:min(len(r.Name), maxName)]
	b = le.AppendUint32(b, r.Space)
	b = append(b, byte(r.Access), byte(len(name)), 0, 0)
	b = le.AppendUint64(b, r.Start)
	b = le.AppendUint64(b, r.End)
	return append(b, name...)
}

// appendTouches writes each touch as the differences to the one before: they are small.
func (t *Trace) appendTouches(b []byte, threads []threadKey) []byte {
	index := make(map[threadKey]uint64, len(threads))
	for i, k := range threads {
		index[k] = uint64(i)
	}
	var at time.Duration
	var page int64
	for i := range t.Touches {
		x := &t.Touches[i]
		who := index[threadKey{x.Space, x.TID}] << threadShift
		if x.Write {
			who |= touchWrite
		}
		if x.Kernel {
			who |= touchKernel
		}
		next := int64(x.Addr / PageSize)
		b = binary.AppendUvarint(b, uint64(x.Time-at))
		b = binary.AppendUvarint(b, who)
		b = binary.AppendVarint(b, next-page)
		at, page = x.Time, next
	}
	return b
}

// Read reads a trace of at most MaxSize bytes from r, to its end. See Decode for its errors.
func Read(r io.Reader) (*Trace, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	return Decode(data)
}

// Decode reads a file. The trace keeps nothing of data.
//
// Returns ErrVersion if another version wrote it, and ErrCorrupt if the bytes are damaged, cut off, followed by others,
// or no trace at all. What it returns without an error, Encode can write.
func Decode(data []byte) (*Trace, error) {
	d := &decoder{rest: data}
	t, err := d.trace(data)
	if err == nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w, at byte %d of %d", err, len(data)-len(d.rest), len(data))
}
