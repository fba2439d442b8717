package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"os"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/mapping"
	"thaw/pagestore/internal/pack"
)

// These are the format of a segment, which docs/format/store.md describes: a header, the packs, where each bucket begins,
// the entries, a checksum of all that. Another version has another magic: an index that is not understood is dropped.
const (
	magic      = "THAWIDX1"
	headerSize = 24 // magic; number of packs, of bits of a bucket's number, of entries, 0; 32 bits each
	packSize   = 36 // id, pages
	startSize  = 4
	entrySize  = 16 // key, number of the pack in the segment, page
	sumSize    = 8

	// bucketEntries is how many entries a bucket has at most, on average: two lines of the cache.
	bucketEntries = 8
	maxBits       = 32
)

// errDamaged: the file is no segment and should be deleted.
var errDamaged = errors.New("damaged index")

// Location is where a page is stored.
type Location struct {
	Pack pack.ID
	Page uint32
}

// packRow is a pack of a segment.
type packRow struct {
	id    pack.ID
	pages uint32
	// dead: entries about the pack are ignored. Not in the file.
	dead bool
}

// entry says where the page is whose SHA-256 begins with key.
type entry struct {
	key        uint64
	pack, page uint32
}

// keyOf returns the key of a digest. Its first bits are the number of the bucket.
func keyOf(d *pack.Digest) uint64 { return binary.BigEndian.Uint64(d[:]) }

// segment is a file of the index, mapped and checked.
type segment struct {
	path    string
	data    []byte
	packs   []packRow
	bits    uint32
	starts  []byte // part of data: the number of each bucket's first entry, and that of all entries
	entries []byte // part of data
	// broken is set when the disk did not deliver the file. Close deletes it then.
	broken atomic.Bool
}

func openSegment(path string) (*segment, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data, err := mapping.Map(f, info.Size())
	if err != nil {
		return nil, err
	}
	mapping.Populate(data)
	s := &segment{path: path, data: data}
	if err := s.parse(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", errDamaged, path, err), mapping.Unmap(data))
	}
	return s, nil
}

func (s *segment) parse() (err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	le := binary.LittleEndian
	body := len(s.data) - sumSize
	if body < headerSize || string(s.data[:8]) != magic {
		return errors.New("no header")
	}
	if want, got := le.Uint64(s.data[body:]), xxhash.Sum64(s.data[:body]); got != want {
		return fmt.Errorf("checksum %016x, want %016x", got, want)
	}
	packs, entries := uint64(le.Uint32(s.data[8:])), uint64(le.Uint32(s.data[16:]))
	s.bits = le.Uint32(s.data[12:])
	if s.bits > maxBits {
		return fmt.Errorf("buckets of %d bits", s.bits)
	}
	starts := headerSize + packs*packSize
	first := starts + (1<<s.bits+1)*startSize
	if want := first + entries*entrySize; uint64(body) != want {
		return fmt.Errorf("%d bytes, want %d", body, want)
	}
	s.starts, s.entries = s.data[starts:first], s.data[first:body]
	for row := range packs {
		b := s.data[headerSize+row*packSize:]
		s.packs = append(s.packs, packRow{id: pack.ID(b[:32]), pages: le.Uint32(b[32:])})
	}
	return nil
}

// lookup returns where a page with the digest is said to be, in a pack that is not dead.
func (s *segment) lookup(digest *pack.Digest) (at Location, ok bool) {
	le := binary.LittleEndian
	key := keyOf(digest)
	bucket := key >> (64 - s.bits)
	last := uint64(len(s.entries) / entrySize)
	from := min(uint64(le.Uint32(s.starts[bucket*startSize:])), last)
	to := min(uint64(le.Uint32(s.starts[(bucket+1)*startSize:])), last)
	for ; from < to; from++ {
		if e := s.entry(from); e.key == key && int(e.pack) < len(s.packs) && !s.packs[e.pack].dead {
			return Location{Pack: s.packs[e.pack].id, Page: e.page}, true
		}
	}
	return Location{}, false
}

func (s *segment) entry(i uint64) entry {
	b := s.entries[i*entrySize:][:entrySize]
	le := binary.LittleEndian
	return entry{key: le.Uint64(b), pack: le.Uint32(b[8:]), page: le.Uint32(b[12:])}
}

// pages returns how many pages the packs have, and how many those that are not dead.
func (s *segment) pages() (all, live uint64) {
	for _, p := range s.packs {
		all += uint64(p.pages)
		if !p.dead {
			live += uint64(p.pages)
		}
	}
	return all, live
}

// live yields the entries about packs that are not dead, with numbers of packs from first on: for a segment that has those packs
// from there on.
func (s *segment) live(first uint32) iter.Seq[entry] {
	numbers := make([]uint32, len(s.packs))
	for i, p := range s.packs {
		numbers[i] = first
		if !p.dead {
			first++
		}
	}
	return func(yield func(entry) bool) {
		for i := range uint64(len(s.entries) / entrySize) {
			e := s.entry(i)
			if int(e.pack) >= len(s.packs) || s.packs[e.pack].dead {
				continue
			}
			e.pack = numbers[e.pack]
			if !yield(e) {
				return
			}
		}
	}
}

// close unmaps the segment. It deletes the file if remove is set, or the disk did not deliver it.
func (s *segment) close(remove bool) error {
	err := mapping.Unmap(s.data)
	if remove || s.broken.Load() {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

// encodeSegment returns the file of a segment. Of several entries with a key the first is found.
func encodeSegment(packs []packRow, entries iter.Seq[entry]) []byte {
	le := binary.LittleEndian
	var n uint64
	for range entries {
		n++
	}
	b := uint32(bits.Len64(n / bucketEntries))
	startsOff := headerSize + len(packs)*packSize
	entriesOff := startsOff + (1<<b+1)*startSize
	out := make([]byte, entriesOff+int(n)*entrySize, entriesOff+int(n)*entrySize+sumSize)
	copy(out, magic)
	le.PutUint32(out[8:], uint32(len(packs)))
	le.PutUint32(out[12:], b)
	le.PutUint32(out[16:], uint32(n))
	for i := range packs {
		row := out[headerSize+i*packSize:]
		copy(row, packs[i].id[:])
		le.PutUint32(row[32:], packs[i].pages)
	}
	next := bucketStarts(entries, b)
	for i, start := range next {
		le.PutUint32(out[startsOff+i*startSize:], start)
	}
	for e := range entries {
		at := &next[e.key>>(64-b)]
		row := out[entriesOff+int(*at)*entrySize:]
		le.PutUint64(row, e.key)
		le.PutUint32(row[8:], e.pack)
		le.PutUint32(row[12:], e.page)
		*at++
	}
	return le.AppendUint64(out, xxhash.Sum64(out))
}

// bucketStarts counts the entries of the buckets, whose numbers have b bits, and returns where each begins and the last
// one ends.
func bucketStarts(entries iter.Seq[entry], b uint32) []uint32 {
	starts := make([]uint32, 1<<b+1)
	for e := range entries {
		starts[e.key>>(64-b)+1]++
	}
	for i := 1; i < len(starts); i++ {
		starts[i] += starts[i-1]
	}
	return starts
}
