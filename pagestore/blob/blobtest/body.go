package blobtest

import (
	"context"
	"io"
	"sync"
)

// body is what Open returns here: it ends with its context, and can be closed while another goroutine waits in Read.
type body struct {
	io.Reader
	inner io.Closer // nil: none
	ctx   context.Context
	end   context.CancelFunc
	once  sync.Once
	err   error // of closing
}

// newBody returns a body that reads r and closes inner.
func newBody(ctx context.Context, r io.Reader, inner io.Closer) *body {
	b := &body{Reader: r, inner: inner}
	b.ctx, b.end = context.WithCancel(ctx)
	return b
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.once.Do(func() {
		b.end()
		if b.inner != nil {
			b.err = b.inner.Close()
		}
	})
	return b.err
}

// readerFunc is an io.Reader.
type readerFunc func(b []byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
