package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Range returns how many bytes there are to read of a blob of size bytes, from off on if n are wanted, or all that follow for n < 0. It is ErrRange if the blob
// does not have them. For implementations of [Reader].
func Range(size, off, n int64) (int64, error) {
	if off < 0 || off > size || n > size-off {
		return 0, fmt.Errorf("%w: bytes from %d on, %d of them, of %d", ErrRange, off, n, size)
	}
	if n < 0 {
		n = size - off
	}
	return n, nil
}

// ErrSize: whoever puts a blob announced another size than it delivered. The place is not to blame.
var ErrSize = errors.New("content has another size than announced")

// Exact returns a reader of exactly size bytes from r, for implementations of [Bucket.Create]. It is ErrSize if r has fewer, or more: that r has ended
// is known before the last byte is handed out, so that a place which counts bytes never has all of a blob that is too long. It ends with the context's error
// once ctx has ended.
func Exact(ctx context.Context, r io.Reader, size int64) io.Reader {
	return &exact{ctx: ctx, r: r, size: size, left: size}
}

type exact struct {
	ctx        context.Context
	r          io.Reader
	size, left int64
	err        error
}

// Read implements io.Reader.
func (e *exact) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	if e.err == nil {
		e.err = e.ctx.Err()
	}
	if e.err != nil {
		return 0, e.err
	}
	if e.left > 0 {
		n, e.err = e.r.Read(b[:min(int64(len(b)), e.left)])
		e.left -= int64(n)
	}
	if e.left == 0 && e.err == nil {
		e.err = e.end()
	}
	switch {
	case e.left > 0 && errors.Is(e.err, io.EOF):
		e.err = fmt.Errorf("%w: it ends after %d bytes of %d", ErrSize, e.size-e.left, e.size)
		return n, e.err
	case e.left == 0 && e.err != nil && !errors.Is(e.err, io.EOF):
		return 0, e.err // without the last bytes
	case n > 0 && e.left > 0:
		return n, nil // an error comes with the next call
	}
	return n, e.err
}

// end looks for the end of r.
func (e *exact) end() error {
	var b [1]byte
	switch n, err := io.ReadFull(e.r, b[:]); {
	case n > 0:
		return fmt.Errorf("%w: it has more than %d bytes", ErrSize, e.size)
	default:
		return err // io.EOF, or what went wrong
	}
}
