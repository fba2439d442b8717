package frame

import (
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/pack"
)

// Writer makes an object. Frames are added in order; what comes before them is written last. It is not safe for concurrent use: to
// compress with several goroutines, have them call [Encode] and [Node], and add what they return with AddEncoded.
type Writer struct {
	w   io.WriterAt
	x   Index
	buf []byte
}

// NewWriter starts an object of so many pages at the beginning of w.
func NewWriter(w io.WriterAt, kind Kind, id pack.Digest, pages uint32) (*Writer, error) {
	x := Index{Header: Header{Kind: kind, ID: id, Pages: pages}}
	if err := x.check(); err != nil {
		return nil, err
	}
	x.offsets = append(make([]int64, 0, x.Frames()+1), x.HeadSize())
	return &Writer{w: w, x: x}, nil
}

// Frames returns how many frames were added.
func (w *Writer) Frames() int { return len(w.x.offsets) - 1 }

// Add adds the next frame, whose content is whole pages.
func (w *Writer) Add(content []byte) error {
	var room [HotPages * NodeSize]byte
	w.buf = w.buf[:0]
	b := Encode(w.buf, content)
	if len(b) < len(content) {
		w.buf = b
	}
	return w.AddEncoded(b, len(content), Node(Digests(room[:0], content)))
}

// AddEncoded adds the next frame, whose content of raw bytes has the node, as b.
func (w *Writer) AddEncoded(b []byte, raw int, node pack.Digest) error {
	frame := w.Frames()
	if frame == w.x.Frames() {
		return fmt.Errorf("a frame more than the %d of the object", frame)
	}
	if want := w.x.RawSize(frame); raw != want || len(b) == 0 || len(b) > want {
		return fmt.Errorf("frame %d has %d bytes for %d bytes of pages, want %d", frame, len(b), raw, want)
	}
	if _, err := w.w.WriteAt(b, w.x.offsets[frame]); err != nil {
		return fmt.Errorf("write frame %d: %w", frame, err)
	}
	w.x.offsets = append(w.x.offsets, w.x.offsets[frame]+int64(len(b)))
	w.x.nodes = append(w.x.nodes, node[:]...)
	return nil
}

// Finish writes header and index, and returns the index as a reader will see it. All frames must have been added.
func (w *Writer) Finish() (*Index, error) {
	if w.Frames() != w.x.Frames() {
		return nil, fmt.Errorf("object has %d frames, want %d", w.Frames(), w.x.Frames())
	}
	w.x.indexSum = xxhash.Sum64(w.x.encodeIndex())
	head := w.x.Head()
	h, err := ParseHeader(head[:HeaderSize])
	if err != nil {
		return nil, fmt.Errorf("read back header: %w", err)
	}
	x, err := ParseIndex(h, head[HeaderSize:], w.x.Root())
	if err != nil {
		return nil, fmt.Errorf("read back index: %w", err)
	}
	if _, err := w.w.WriteAt(head, 0); err != nil {
		return nil, fmt.Errorf("write head of object: %w", err)
	}
	return x, nil
}
