package blobtest

import (
	"context"
	"io"
	"iter"
	"sync/atomic"

	"thaw/pagestore/blob"
)

// Switch passes each call to the place that was set last: so a place becomes another while it is used. Bodies stay with the place that opened them. It
// is safe for concurrent use.
type Switch struct{ to atomic.Pointer[wrapper] }

var _ blob.Bucket = (*Switch)(nil)

// NewSwitch returns one that passes calls to r.
func NewSwitch(r blob.Reader) *Switch {
	s := &Switch{}
	s.Set(r)
	return s
}

// Set makes later calls go to r.
func (s *Switch) Set(r blob.Reader) { s.to.Store(&wrapper{Reader: r}) }

// String implements blob.Reader.
func (s *Switch) String() string { return s.to.Load().String() }

// Size implements blob.Reader.
func (s *Switch) Size(ctx context.Context, key string) (int64, error) {
	return s.to.Load().Size(ctx, key)
}

// Open implements blob.Reader.
func (s *Switch) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return s.to.Load().Open(ctx, key, off, n)
}

// Create implements blob.Bucket.
func (s *Switch) Create(ctx context.Context, key string, r io.Reader, size int64) error {
	return s.to.Load().Create(ctx, key, r, size)
}

// Replace implements blob.Bucket.
func (s *Switch) Replace(ctx context.Context, key string, r io.Reader, size int64) error {
	return s.to.Load().Replace(ctx, key, r, size)
}

// Exclusive implements blob.Bucket.
func (s *Switch) Exclusive() bool { return s.to.Load().Exclusive() }

// List implements blob.Bucket.
func (s *Switch) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return s.to.Load().List(ctx, prefix)
}

// Delete implements blob.Bucket.
func (s *Switch) Delete(ctx context.Context, key string) error { return s.to.Load().Delete(ctx, key) }
