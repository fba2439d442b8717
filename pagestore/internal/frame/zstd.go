package frame

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"thaw/pagestore/internal/pack"
)

// leastSaved is how much, in percent, compression has to save to be worth the time that it takes to undo.
const leastSaved = 12

var encoder = sync.OnceValue(func() *zstd.Encoder {
	// Frames are small and have nodes: no checksum.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // options that contradict each other
	}
	return e
})

var decoder = sync.OnceValue(func() *zstd.Decoder {
	const most = HotPages * pack.PageSize
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(most), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // options that contradict each other
	}
	return d
})

// Encode returns the bytes that a frame of content has in an object: as zstd if that saves enough, else content itself. buf is memory
// for it to use, from its beginning on. It is safe for concurrent use.
func Encode(buf, content []byte) []byte {
	b := encoder().EncodeAll(content, buf[:0])
	if len(b)*100 > len(content)*(100-leastSaved) {
		return content
	}
	return b
}

// Decode returns the content of a frame whose bytes in the object are b: b itself if it is raw, else what is decompressed
// into buf, which is not grown. It is checked for its size alone; see [Index.Verify]. It is safe for concurrent use.
//
// Preconditions: buf has room for [Header.RawSize] bytes.
func (h *Header) Decode(buf, b []byte, frame int) ([]byte, error) {
	raw := h.RawSize(frame)
	if len(b) == raw {
		return b, nil
	}
	content, err := decoder().DecodeAll(b, buf[:0:raw])
	if err != nil {
		return nil, fmt.Errorf("%w: frame %d: %w", ErrCorrupt, frame, err)
	}
	if len(content) != raw {
		return nil, fmt.Errorf("%w: frame %d has %d bytes of pages, want %d", ErrCorrupt, frame, len(content), raw)
	}
	return content, nil
}
