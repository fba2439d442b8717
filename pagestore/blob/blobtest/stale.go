package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"thaw/pagestore/blob"
)

// Stale answers readers, and List, with what the inner bucket held when NewStale or Refresh was called, and passes changes on, as a cache in front of it does:
// a blob that is replaced has its old content, one that is created is not found, one that is deleted is there. It is safe for concurrent use.
type Stale struct {
	inner blob.Bucket

	mu  sync.Mutex
	old *Memory // protected by mu, its content not
}

var _ blob.Bucket = (*Stale)(nil)

// NewStale returns a bucket that answers with what inner holds now. It copies all of it.
func NewStale(ctx context.Context, inner blob.Bucket) (*Stale, error) {
	s := &Stale{inner: inner}
	return s, s.Refresh(ctx)
}

// Refresh makes it answer with what the inner bucket holds now.
func (s *Stale) Refresh(ctx context.Context) error {
	old := &Memory{}
	for info, err := range s.inner.List(ctx, "") {
		if err != nil {
			return err
		}
		data, err := Read(ctx, s.inner, info.Key, 0, -1)
		if errors.Is(err, blob.ErrNotFound) {
			continue // deleted meanwhile
		} else if err != nil {
			return err
		}
		if err := old.Create(ctx, info.Key, bytes.NewReader(data), int64(len(data))); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.old = old
	return nil
}

func (s *Stale) view() *Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.old
}

// String implements blob.Reader.
func (s *Stale) String() string { return fmt.Sprintf("%v, as it was", s.inner) }

// Size implements blob.Reader.
func (s *Stale) Size(ctx context.Context, key string) (int64, error) { return s.view().Size(ctx, key) }

// Open implements blob.Reader.
func (s *Stale) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return s.view().Open(ctx, key, off, n)
}

// List implements blob.Bucket.
func (s *Stale) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return s.view().List(ctx, prefix)
}

// Create implements blob.Bucket.
func (s *Stale) Create(ctx context.Context, key string, r io.Reader, size int64) error {
	return s.inner.Create(ctx, key, r, size)
}

// Replace implements blob.Bucket.
func (s *Stale) Replace(ctx context.Context, key string, r io.Reader, size int64) error {
	return s.inner.Replace(ctx, key, r, size)
}

// Exclusive implements blob.Bucket.
func (s *Stale) Exclusive() bool { return s.inner.Exclusive() }

// Delete implements blob.Bucket.
func (s *Stale) Delete(ctx context.Context, key string) error { return s.inner.Delete(ctx, key) }
