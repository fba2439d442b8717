package heap

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// base is where memory begins in the tests. It is no border of a pool.
const base = 0x7f00_0000_1000

// memory is bytes from base on.
type memory []byte

func (m memory) Read(p []byte, addr uint64) error {
	copy(p, m[addr-base:])
	return nil
}

func (m memory) end() uint64 { return base + uint64(len(m)) }

// put writes words at an offset.
func (m memory) put(off uint64, words ...uint64) {
	for i, w := range words {
		binary.LittleEndian.PutUint64(m[off+uint64(i)*8:], w)
	}
}

// noise returns memory full of bytes that are nobody's.
func noise(size uint64) memory {
	m := make(memory, size)
	rand.NewChaCha8([32]byte{3}).Read(m)
	return m
}

// arena writes the heads of chunks of the given sizes; a free one has a negative size.
func arena(m memory, sizes ...int64) {
	off, prevFree, before := uint64(0), false, uint64(0)
	for _, s := range sizes {
		size := uint64(max(s, -s))
		head := size | chunkPrevInUse
		prev := uint64(0x1234) // the end of the block before
		if prevFree {
			head, prev = size, before
		}
		m.put(off, prev, head)
		off, prevFree, before = off+size, s < 0, size
	}
}

func TestAnUnbrokenChainOfChunksIsAHeap(t *testing.T) {
	const size = 1 << 20
	for _, tt := range []struct {
		name   string
		spoil  func(memory)
		chunks []int64
		want   bool
	}{
		{name: "chunks up to the end", chunks: []int64{0x290, 0x30, 0x20000, size - 0x202c0}, want: true},
		{name: "with free ones", chunks: []int64{0x290, -0x30, 0x20000, -0x1000, size - 0x212c0}, want: true},
		{name: "of one chunk", chunks: []int64{size}, want: true},
		{name: "the last chunk ends before", chunks: []int64{0x290, 0x30, 0x20000}},
		{name: "the last chunk ends behind", chunks: []int64{0x290, size}},
		{name: "a size is not aligned", chunks: []int64{0x290, 0x38, size - 0x2c8}},
		{name: "a size is too small", chunks: []int64{0x290, 0x10, size - 0x2a0}},
		{name: "a size is zero", chunks: []int64{0x290, size - 0x290}, spoil: func(m memory) { m.put(0x298, 0) }},
		{name: "a chunk of another arena", chunks: []int64{0x290, size - 0x290}, spoil: func(m memory) { m.put(0x298, (size-0x290)|chunkOther) }},
		{name: "a chunk with a mapping", chunks: []int64{0x290, size - 0x290}, spoil: func(m memory) { m.put(0x298, (size-0x290)|chunkMapped) }},
		{name: "a free chunk of another size", chunks: []int64{-0x290, size - 0x290}, spoil: func(m memory) { m.put(0x290, 0x280) }},
		{name: "noise"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := noise(size)
			arena(m, tt.chunks...)
			if tt.spoil != nil {
				tt.spoil(m)
			}
			var want []Range
			if tt.want {
				want = []Range{{base, m.end()}}
			}
			got, err := Brk(m, base, m.end())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// block writes the head of a chunk with a mapping of its own.
func block(m memory, off, size uint64) { m.put(off, 0, size|chunkMapped) }

// aligned writes the heads of one whose block is aligned: the first may be as old as before a realloc.
func aligned(m memory, off, old, size, lead uint64) {
	block(m, off, old)
	m.put(off+lead, lead, (size-lead)|chunkMapped)
}

// pools writes the heads of n pools of one size class, from the first border of one at or behind off on.
func pools(m memory, off uint64, n int, class, arena uint64) (first uint64) {
	first = (base+off+poolSize-1)&^(poolSize-1) - base
	size := (class + 1) * blockAlign
	for i := range uint64(n) {
		at := first + i*poolSize
		next := poolHead + size*(i%3)
		m.put(at, i%2, 0, base+at, base+at, class<<32|arena, (poolSize-size)<<32|next)
	}
	return first
}

func TestABlockWhoseMappingWasCutIsFound(t *testing.T) {
	const mib = 1 << 20
	m := noise(6 * mib)
	block(m, 0, 3*mib)
	block(m, 4*mib, 2*mib)
	// As numpy leaves them: all but the first page of a block has another advice. Between them is something else.
	cut := []Range{
		{base, base + pageSize}, {base + pageSize, base + 3*mib}, {base + 3*mib, base + 4*mib}, {base + 4*mib, base + 4*mib + pageSize},
		{base + 4*mib + pageSize, base + 6*mib},
	}
	want := []Range{{base + pageSize, base + 3*mib}, {base + 4*mib + pageSize, base + 6*mib}}
	got, err := Mapped(m, cut...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// In one mapping the second block begins nowhere in particular.
	if got, err = Mapped(m, Range{base, m.end()}); err != nil || len(got) != 1 {
		t.Errorf("in one mapping: %v, %v", got, err)
	}
}

func TestMemoryOfAllocatorsIsFoundWithoutTheFirstPageOfABlock(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name string
		size uint64
		make func(m memory)
		want []Range // offsets
	}{
		{"nothing", 4 * mib, func(memory) {}, nil},
		{"one block", 3 * mib, func(m memory) { block(m, 0, 3*mib) }, []Range{{pageSize, 3 * mib}}},
		{"blocks in a row", 4 * mib, func(m memory) { block(m, 0, mib); block(m, mib, 3*mib) },
			[]Range{{pageSize, mib}, {mib + pageSize, 4 * mib}}},
		{"a block and something behind it", 3 * mib, func(m memory) { block(m, 0, mib) }, []Range{{pageSize, mib}}},
		{"an aligned block", 2 * mib, func(m memory) { aligned(m, 0, 2*mib, 2*mib, 0x30) }, []Range{{pageSize, 2 * mib}}},
		{"an aligned block that grew", 3 * mib, func(m memory) { aligned(m, 0, mib, 3*mib, 0x30) }, []Range{{pageSize, 3 * mib}}},
		{"an aligned block that shrank, and something behind it", 3 * mib, func(m memory) { aligned(m, 0, 3*mib, mib, 0x30) }, []Range{{pageSize, mib}}},
		{"a block that is aligned to a page", 3 * mib, func(m memory) { aligned(m, 0, 2*mib, 2*mib, pageSize-16) }, nil},
		{"a block behind one that is aligned to a page", 3 * mib, func(m memory) {
			aligned(m, 0, 2*mib, 2*mib, pageSize-16)
			block(m, 2*mib, mib)
		}, []Range{{2*mib + pageSize, 3 * mib}}},
		{"a block that is aligned to more than a page and shrank", 12 * mib, func(m memory) {
			const lead = 2*mib - base%(2*mib) - 16
			aligned(m, 0, 10*mib+pageSize, 5*mib, lead)
		}, nil},
		{"an aligned block behind something else", 3 * mib, func(m memory) { aligned(m, mib, 2*mib, 2*mib, 0x30) }, []Range{{mib + pageSize, 3 * mib}}},
		{"16 bytes that look like a block, behind something else", 3 * mib, func(m memory) { block(m, mib, 2*mib) }, nil},
		{"a block that would end behind the mapping", 2 * mib, func(m memory) { block(m, 0, 3*mib) }, nil},
		{"a block that is no number of pages", 2 * mib, func(m memory) { block(m, 0, mib+16) }, nil},
		{"a small block", 2 * mib, func(m memory) { block(m, 0, minMappedChunk/2) }, nil},
		{"pools", mib, func(m memory) { pools(m, 0, 63, 17, 5) }, []Range{{0x3000, 0x3000 + 63*poolSize}}},
		{"too few pools", mib, func(m memory) { pools(m, 0, minPoolsSeen-1, 17, 5) }, nil},
		{"an arena and a block behind it", 2 * mib, func(m memory) {
			pools(m, 0, 63, 3, 5)
			block(m, mib, mib)
		}, []Range{{0x3000, 0x3000 + 63*poolSize}, {mib + pageSize, 2 * mib}}},
		{"an arena that is not full and a block behind it", 3 * mib, func(m memory) {
			pools(m, 0, 63, 3, 5)
			pools(m, mib, 20, 3, 6)
			block(m, 2*mib, mib)
		}, []Range{{0x3000, 0x3000 + 63*poolSize}, {mib + 0x3000, mib + 0x3000 + 20*poolSize}, {2*mib + pageSize, 3 * mib}}},
		{"16 bytes that look like a block in an arena that is not full", 2 * mib, func(m memory) {
			pools(m, 0, 20, 3, 5)
			block(m, mib/2, mib)
		}, []Range{{0x3000, 0x3000 + 20*poolSize}}},
		{"pools behind something else", 2 * mib, func(m memory) { pools(m, mib, 20, 31, 1) }, []Range{{mib + 0x3000, mib + 0x3000 + 20*poolSize}}},
		{"a pool that is none ends them", mib, func(m memory) {
			pools(m, 0, 40, 3, 5)
			m.put(0x3000+20*poolSize+40, 0)
		}, []Range{{0x3000, 0x3000 + 20*poolSize}, {0x3000 + 21*poolSize, 0x3000 + 40*poolSize}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := noise(tt.size)
			tt.make(m)
			var want []Range
			for _, r := range tt.want {
				want = append(want, Range{base + r.Start, base + r.End})
			}
			got, err := Mapped(m, Range{base, m.end()})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAPoolMustMakeSense(t *testing.T) {
	for name, spoil := range map[string]func(m memory, at uint64){
		"more blocks in use than there is room for": func(m memory, at uint64) { m.put(at, poolSize) },
		"a free block outside":                      func(m memory, at uint64) { m.put(at+8, base+at+poolSize) },
		"a free block in the head":                  func(m memory, at uint64) { m.put(at+8, base+at) },
		"no such size class":                        func(m memory, at uint64) { m.put(at+32, sizeClasses<<32) },
		"an arena that cannot be":                   func(m memory, at uint64) { m.put(at+32, 3<<32|maxArena) },
		"the last offset is of another size":        func(m memory, at uint64) { m.put(at+40, (poolSize-16)<<32|poolHead) },
		"the next offset lies inside a block":       func(m memory, at uint64) { m.put(at+40, (poolSize-64)<<32|(poolHead+8)) },
		"the next offset lies in the head":          func(m memory, at uint64) { m.put(at+40, (poolSize-64)<<32) },
	} {
		m := noise(1 << 20)
		first := pools(m, 0, 20, 3, 5)
		w := window{mem: m, start: base, end: m.end()}
		if ok, err := isPool(&w, base+first); !ok || err != nil {
			t.Fatalf("a pool is taken for none: %v", err)
		}
		spoil(m, first)
		w = window{mem: m, start: base, end: m.end()}
		if ok, err := isPool(&w, base+first); ok || err != nil {
			t.Errorf("%s: it is taken for a pool: %v", name, err)
		}
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Read([]byte, uint64) error { return errBroken }

func TestMemoryThatCannotBeReadIsAnError(t *testing.T) {
	if _, err := Brk(broken{}, base, base+1<<20); !errors.Is(err, errBroken) {
		t.Errorf("Brk: %v", err)
	}
	if _, err := Mapped(broken{}, Range{base, base + 1<<20}); !errors.Is(err, errBroken) {
		t.Errorf("Mapped: %v", err)
	}
}

// FuzzFind looks for allocators in arbitrary memory: what is found lies in the mapping, in order, in whole pages.
func FuzzFind(f *testing.F) {
	m := noise(1 << 20)
	block(m, 0, 1<<18)
	pools(m, 1<<18, 18, 3, 5)
	f.Add([]byte(m[:64<<10]), uint8(3))
	f.Add([]byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, pages uint8) {
		m := make(memory, (uint64(pages)+1)*16*pageSize)
		copy(m, data)
		brk, err := Brk(m, base, m.end())
		if err != nil || len(brk) > 1 {
			t.Fatalf("Brk: %v, %v", brk, err)
		}
		found, err := Mapped(m, Range{base, m.end()})
		if err != nil {
			t.Fatal(err)
		}
		at := uint64(base)
		for _, r := range found {
			if r.Start < at || r.End <= r.Start || r.End > m.end() || r.Start%pageSize != 0 || r.End%pageSize != 0 {
				t.Fatalf("found %v in [%#x, %#x)", found, uint64(base), m.end())
			}
			at = r.End
		}
	})
}
