package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"

	"github.com/minio/minio-go/v7"

	"thaw/pagestore/blob"
)

// ErrAnswer: the store answered something that the protocol does not provide for.
var ErrAnswer = errors.New("unexpected answer of the object store")

// Open implements blob.Reader.
func (s *store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := blob.ValidateKey(key); err != nil {
		return nil, err
	}
	if off < 0 || n > math.MaxInt64-off {
		return nil, failed("open", key, blob.ErrRange)
	}
	if n == 0 {
		return s.nothing(ctx, key, off)
	}
	r, length, err := s.get(ctx, key, off, n)
	err = failed("open", key, err)
	switch {
	case n < 0 && errors.Is(err, blob.ErrRange):
		return s.nothing(ctx, key, off) // right at the end
	case err != nil:
		return nil, err
	}
	return &body{ctx: ctx, inner: r, key: key, left: length}, nil
}

// get asks for n bytes from off on, and returns how many will come.
func (s *store) get(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	var opts minio.GetObjectOptions
	want := span{first: off, last: math.MaxInt64}
	if n > 0 {
		want.last = off + n - 1
	}
	if !want.whole() {
		opts.Set("Range", want.String())
	}
	r, _, header, err := s.core.GetObject(ctx, s.loc.bucket, s.object(key), opts)
	if err != nil {
		return nil, 0, err
	}
	length, err := want.check(header)
	if err != nil {
		return nil, 0, errors.Join(err, r.Close())
	}
	return r, length, nil
}

// span is a range of bytes, the last one included.
type span struct{ first, last int64 }

// whole reports whether it is all of any object.
func (s span) whole() bool { return s.first == 0 && s.last == math.MaxInt64 }

// String is the value of the header Range.
func (s span) String() string {
	if s.last == math.MaxInt64 {
		return fmt.Sprintf("bytes=%d-", s.first)
	}
	return fmt.Sprintf("bytes=%d-%d", s.first, s.last)
}

// check returns how many bytes an answer has. It must be the range that was asked for: a store may know no ranges, and one that ends early gives what it has.
func (s span) check(header http.Header) (int64, error) {
	if s.whole() {
		length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
		if err != nil || length < 0 {
			return 0, fmt.Errorf("%w: it has no length", ErrAnswer)
		}
		return length, nil
	}
	var first, last, size int64
	value := header.Get("Content-Range")
	if value == "" && header.Get("Content-Length") == "0" { // some say so of an empty object
		return 0, fmt.Errorf("%w: it has no bytes, asked for %v", blob.ErrRange, s)
	}
	if n, err := fmt.Sscanf(value, "bytes %d-%d/%d", &first, &last, &size); n != 3 || err != nil || first != s.first || last < first || last >= size {
		return 0, fmt.Errorf("%w: asked for %v, got the range %q", ErrAnswer, s, value)
	}
	end := min(s.last, size-1)
	switch {
	case end < s.last && s.last != math.MaxInt64:
		return 0, fmt.Errorf("%w: it has %d bytes, asked for %v", blob.ErrRange, size, s)
	case last != end:
		return 0, fmt.Errorf("%w: asked for %v, got the range %q", ErrAnswer, s, value)
	}
	return last - first + 1, nil
}

// nothing is the range without bytes at off, for which the protocol has no words.
func (s *store) nothing(ctx context.Context, key string, off int64) (io.ReadCloser, error) {
	size, err := s.Size(ctx, key)
	if err != nil {
		return nil, err
	}
	if _, err := blob.Range(size, off, 0); err != nil {
		return nil, failed("open", key, err)
	}
	return http.NoBody, nil
}

// body is an answer of a known length.
type body struct {
	ctx   context.Context
	inner io.ReadCloser
	key   string
	left  int64
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.inner.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case err == nil || errors.Is(err, io.EOF) && b.left == 0:
		return n, err
	case b.ctx.Err() != nil:
		err = b.ctx.Err()
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, failed("read", b.key, err)
}

// Close implements io.Closer.
func (b *body) Close() error { return b.inner.Close() }
