package frame

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/pack"
)

// These constants are part of the format; do not change them.
const (
	// Version is the one version of the format.
	Version = 1
	// HeaderSize is the size of the header in bytes.
	HeaderSize = 96
	// PackPages is how many pages a frame of a pack has, but for the last: 128 KiB, which is what a fault may have to wait for.
	PackPages = pack.FramePages
	// HotPages is how many pages a frame of hot pages has, but for the last: 256 KiB. They are only ever read in order.
	HotPages = 64
	// NodeSize is the size of a node in bytes.
	NodeSize = sha256.Size

	magic     = "THAWFRAM"
	entrySize = 4 + NodeSize

	pageSizeOff  = 12
	perFrameOff  = 16
	pagesOff     = 20
	kindOff      = 24
	reservedOff  = 28
	idOff        = 32
	indexSumOff  = 64
	reserved2Off = 72
	headerSumOff = 88
)

// Errors of the package.
var (
	// ErrCorrupt: the bytes are not those of the object that was asked for.
	ErrCorrupt = errors.New("corrupt framed object")
	// ErrOtherRoot is an ErrCorrupt: the object is sound by itself.
	ErrOtherRoot = fmt.Errorf("%w: it is another", ErrCorrupt)
	// ErrVersion: an object of a version that this code does not know.
	ErrVersion = errors.New("unknown version of a framed object")
)

// Kind is what the pages of an object are.
type Kind uint32

// The kinds are part of the format.
const (
	// Pack: the pages of a pack, in its order. The id is that of the pack.
	Pack Kind = 1
	// Hot: pages of an image in the order in which a restore wants them. The id is the digest of the snapshot's manifest.
	Hot Kind = 2
)

// FramePages returns how many pages a frame has, but for the last one; 0 if there is no such kind.
func (k Kind) FramePages() int {
	switch k {
	case Pack:
		return PackPages
	case Hot:
		return HotPages
	}
	return 0
}

func (k Kind) maxPages() uint32 {
	if k == Pack {
		return pack.MaxPages
	}
	return hot.MaxPages
}

// Header says what an object is.
type Header struct {
	Kind  Kind
	ID    pack.Digest
	Pages uint32

	indexSum uint64
}

// Frames returns how many frames the object has.
func (h *Header) Frames() int {
	per := h.Kind.FramePages()
	return (int(h.Pages) + per - 1) / per
}

// FramePages returns how many pages a frame has.
func (h *Header) FramePages(frame int) int {
	per := h.Kind.FramePages()
	return min(per, int(h.Pages)-frame*per)
}

// RawSize returns how many bytes the content of a frame has.
func (h *Header) RawSize(frame int) int { return h.FramePages(frame) * pack.PageSize }

// IndexSize returns how many bytes the index has, which follows the header.
func (h *Header) IndexSize() int64 { return int64(h.Frames()) * entrySize }

// HeadSize returns how many bytes come before the first frame.
func (h *Header) HeadSize() int64 { return HeaderSize + h.IndexSize() }

// check returns an error unless an object can have these counts.
func (h *Header) check() error {
	if h.Kind.FramePages() == 0 {
		return fmt.Errorf("%w: kind %d", ErrCorrupt, h.Kind)
	}
	if h.Pages == 0 || h.Pages > h.Kind.maxPages() {
		return fmt.Errorf("%w: %d pages, want 1 to %d", ErrCorrupt, h.Pages, h.Kind.maxPages())
	}
	return nil
}

func (h *Header) encode() []byte {
	b := make([]byte, HeaderSize)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], Version)
	binary.LittleEndian.PutUint32(b[pageSizeOff:], pack.PageSize)
	binary.LittleEndian.PutUint32(b[perFrameOff:], uint32(h.Kind.FramePages()))
	binary.LittleEndian.PutUint32(b[pagesOff:], h.Pages)
	binary.LittleEndian.PutUint32(b[kindOff:], uint32(h.Kind))
	copy(b[idOff:], h.ID[:])
	binary.LittleEndian.PutUint64(b[indexSumOff:], h.indexSum)
	binary.LittleEndian.PutUint64(b[headerSumOff:], xxhash.Sum64(b[:headerSumOff]))
	return b
}

// ParseHeader reads the first [HeaderSize] bytes of an object, which b is. Errors wrap [ErrCorrupt] or [ErrVersion].
func ParseHeader(b []byte) (Header, error) {
	if len(b) != HeaderSize || string(b[:8]) != magic {
		return Header{}, fmt.Errorf("%w: no header", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != Version {
		return Header{}, fmt.Errorf("%w: %d, want %d", ErrVersion, v, Version)
	}
	h := Header{
		Kind:     Kind(binary.LittleEndian.Uint32(b[kindOff:])),
		ID:       pack.Digest(b[idOff:indexSumOff]),
		Pages:    binary.LittleEndian.Uint32(b[pagesOff:]),
		indexSum: binary.LittleEndian.Uint64(b[indexSumOff:]),
	}
	if err := h.check(); err != nil {
		return Header{}, err
	}
	if string(b) != string(h.encode()) { // sizes, what is reserved, the checksum
		return Header{}, fmt.Errorf("%w: header differs from that of version %d", ErrCorrupt, Version)
	}
	return h, nil
}

// Index says where the frames of an object are, and what is in them. It is immutable.
type Index struct {
	Header

	offsets []int64 // one more than frames
	nodes   []byte
}

// ParseIndex reads the index, which b is. root is what the object is to have; the zero digest stands for any, and then nothing says that
// the nodes are right. Errors wrap [ErrCorrupt], and [ErrOtherRoot] if the object is sound, and another.
func ParseIndex(h Header, b []byte, root pack.Digest) (*Index, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	if int64(len(b)) != h.IndexSize() {
		return nil, fmt.Errorf("%w: index has %d bytes, want %d", ErrCorrupt, len(b), h.IndexSize())
	}
	if got := xxhash.Sum64(b); got != h.indexSum {
		return nil, fmt.Errorf("%w: index has checksum %016x, want %016x", ErrCorrupt, got, h.indexSum)
	}
	x := &Index{Header: h, offsets: make([]int64, 1, h.Frames()+1), nodes: make([]byte, 0, h.Frames()*NodeSize)}
	off := h.HeadSize()
	x.offsets[0] = off
	for i := range h.Frames() {
		e := b[i*entrySize:][:entrySize]
		n := binary.LittleEndian.Uint32(e)
		if n == 0 || int64(n) > int64(h.RawSize(i)) {
			return nil, fmt.Errorf("%w: frame %d has %d bytes, want 1 to %d", ErrCorrupt, i, n, h.RawSize(i))
		}
		off += int64(n)
		x.offsets = append(x.offsets, off)
		x.nodes = append(x.nodes, e[4:]...)
	}
	if got := x.Root(); root != (pack.Digest{}) && got != root {
		return nil, fmt.Errorf("%w: object has root %s, want %s", ErrOtherRoot, got, root)
	}
	return x, nil
}

// Raw returns the index of the object in the raw layout: no frame is compressed, so that whoever has the nodes, which are not copied, knows
// where everything is. Errors wrap [ErrCorrupt].
func Raw(kind Kind, id pack.Digest, pages uint32, nodes []byte) (*Index, error) {
	x := &Index{Header: Header{Kind: kind, ID: id, Pages: pages}, nodes: nodes}
	if err := x.check(); err != nil {
		return nil, err
	}
	if want := x.Frames() * NodeSize; len(nodes) != want {
		return nil, fmt.Errorf("%w: nodes have %d bytes, want %d", ErrCorrupt, len(nodes), want)
	}
	x.offsets = make([]int64, 1, x.Frames()+1)
	x.offsets[0] = x.HeadSize()
	for i := range x.Frames() {
		x.offsets = append(x.offsets, x.offsets[i]+int64(x.RawSize(i)))
	}
	x.indexSum = xxhash.Sum64(x.encodeIndex())
	return x, nil
}

// Offset returns where the bytes of a frame begin, from the start of the object.
func (x *Index) Offset(frame int) int64 { return x.offsets[frame] }

// Length returns how many bytes a frame has in the object.
func (x *Index) Length(frame int) int { return int(x.offsets[frame+1] - x.offsets[frame]) }

// Size returns how many bytes the object has.
func (x *Index) Size() int64 { return x.offsets[x.Frames()] }

// Node returns the node of a frame.
func (x *Index) Node(frame int) pack.Digest { return pack.Digest(x.nodes[frame*NodeSize:][:NodeSize]) }

// Nodes returns all nodes, [NodeSize] bytes each. They must not be changed.
func (x *Index) Nodes() []byte { return x.nodes }

// Root returns the root of the object.
func (x *Index) Root() pack.Digest { return Root(x.nodes) }

// Head returns what comes before the first frame: header and index.
func (x *Index) Head() []byte { return append(x.encode(), x.encodeIndex()...) }

func (x *Index) encodeIndex() []byte {
	b := make([]byte, 0, x.IndexSize())
	for i := range x.Frames() {
		b = binary.LittleEndian.AppendUint32(b, uint32(x.Length(i)))
		b = append(b, x.nodes[i*NodeSize:][:NodeSize]...)
	}
	return b
}
