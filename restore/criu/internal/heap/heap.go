package heap

import "encoding/binary"

// pageSize is the size of a page in bytes.
const pageSize = 4096

// Memory is what a process has at its addresses. Read fills p with the bytes from addr on; pages without content read as
// zeros.
type Memory interface {
	Read(p []byte, addr uint64) error
}

// A Range is page-aligned addresses, [Start, End) in bytes.
type Range struct{ Start, End uint64 }

// Brk returns the range of a brk heap, [start, end), if all of it is the main arena of glibc's malloc: an unbroken chain of
// chunks from its first byte to its last.
func Brk(mem Memory, start, end uint64) (found []Range, err error) {
	w := window{mem: mem, start: start, end: end}
	ok, err := isMainArena(&w)
	if !ok || err != nil {
		return nil, err
	}
	return []Range{{start, end}}, nil
}

// Mapped returns the ranges of anonymous mappings that are chunks of glibc's malloc with a mapping of their own or pools of
// CPython's obmalloc, ascending. Each of the mappings but the first begins where the one before it ends, and there is at least one.
//
// The kernel merges such mappings with their neighbors, so what is looked for may lie anywhere; and madvise(2) on a part of a
// chunk cuts its mapping (numpy asks for huge pages so), so it may lie across several.
//
// Chunks whose block is aligned to pages are not among them: who asks for such a block may use madvise on it.
//
// The first page of a chunk is left out. realloc lets the kernel grow such a chunk with mremap(2), and a file mapping would grow by
// what follows in the file, or past its end. mremap refuses to grow what is more than one mapping, and realloc copies then; and
// what is left of a chunk that shrinks begins with that page.
func Mapped(mem Memory, mappings ...Range) (found []Range, err error) {
	w := window{mem: mem, start: mappings[0].Start, end: mappings[len(mappings)-1].End}
	// The kernel chooses the start of a mapping, and where a chunk or an arena ends the next one begins. Elsewhere the header
	// of a chunk would be too weak a sign: 16 bytes, and anything may lie in memory.
	anchor := Range{w.start, w.start}
	for at := w.start; at < w.end; {
		for len(mappings) > 0 && mappings[0].Start < at {
			mappings = mappings[1:]
		}
		begins := len(mappings) > 0 && mappings[0].Start == at
		size, plain, err := chunkAt(&w, at, begins || anchor.Start <= at && at <= anchor.End)
		if err != nil {
			return nil, err
		}
		if size > 0 {
			if plain {
				found = appendRange(found, Range{at + pageSize, at + size})
			}
			at += size
			anchor = Range{at, at}
			continue
		}
		pools, err := poolsAt(&w, at)
		if err != nil {
			return nil, err
		}
		if pools.Start < pools.End {
			found = appendRange(found, pools)
			at = pools.End
			anchor = arenaEnd(pools)
			continue
		}
		at += pageSize
	}
	return found, nil
}

// appendRange appends r, unless it is empty, as part of the last range if it continues it.
func appendRange(ranges []Range, r Range) []Range {
	if r.Start >= r.End {
		return ranges
	}
	if n := len(ranges); n > 0 && ranges[n-1].End == r.Start {
		ranges[n-1].End = r.End
		return ranges
	}
	return append(ranges, r)
}

// windowSize is how much is read at a time where one header follows close on the other.
const windowSize = 1 << 18

// A window reads mappings in pieces that are large enough.
type window struct {
	mem        Memory
	start, end uint64

	buf []byte
	at  uint64 // address of buf
}

// words fills out with 8-byte words from addr on, and reports whether they lie in the mapping. far says that what is read
// next will not be near.
func (w *window) words(out []uint64, addr uint64, far bool) (ok bool, err error) {
	n := uint64(len(out)) * 8
	if addr < w.start || n > w.end-w.start || addr > w.end-n {
		return false, nil
	}
	if addr < w.at || addr+n > w.at+uint64(len(w.buf)) {
		if err := w.fill(addr, far); err != nil {
			return false, err
		}
	}
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(w.buf[addr-w.at+uint64(i)*8:])
	}
	return true, nil
}

// fill reads what lies around addr.
func (w *window) fill(addr uint64, far bool) error {
	at, size := addr&^(pageSize-1), uint64(2*pageSize)
	if !far {
		// Pools are looked for ahead of the page that is looked at.
		at, size = max(w.start, at-min(at, poolSize)), windowSize
	}
	size = min(size, w.end-at)
	if w.buf == nil {
		w.buf = make([]byte, windowSize)
	}
	w.buf, w.at = w.buf[:size], at
	if err := w.mem.Read(w.buf, at); err != nil {
		w.buf = w.buf[:0]
		return err
	}
	return nil
}
