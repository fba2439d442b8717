package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"thaw/pagestore/blob"
)

// Op is what is asked of a place.
type Op int

// What can be asked.
const (
	OpSize Op = iota
	OpOpen
	OpCreate
	OpReplace
	OpList
	OpDelete
)

// String names the operation as the interface does.
func (o Op) String() string {
	return [...]string{"Size", "Open", "Create", "Replace", "List", "Delete"}[o]
}

// wrapper passes all on, but for what its hooks do.
type wrapper struct {
	blob.Reader
	// before comes before each call; its error is the call's. nil: nothing.
	before func(ctx context.Context, op Op, key string) error
	// body reads a blob from off on, in the place of r, which has what the inner place delivers. nil: r itself.
	body func(ctx context.Context, key string, off int64, r io.Reader) io.Reader
	// source is what the inner place gets to read in the place of r. nil: r itself.
	source func(r io.Reader, size int64) io.Reader
}

var _ blob.Bucket = (*wrapper)(nil)

func (w *wrapper) call(ctx context.Context, op Op, key string) error {
	if w.before == nil {
		return nil
	}
	return w.before(ctx, op, key)
}

// bucket returns the inner place, if it can more than be read.
func (w *wrapper) bucket(op Op) (blob.Bucket, error) {
	b, ok := w.Reader.(blob.Bucket)
	if !ok {
		return nil, fmt.Errorf("%v: %w: %v can only be read", op, errors.ErrUnsupported, w.Reader)
	}
	return b, nil
}

// Size implements blob.Reader.
func (w *wrapper) Size(ctx context.Context, key string) (int64, error) {
	if err := w.call(ctx, OpSize, key); err != nil {
		return 0, err
	}
	return w.Reader.Size(ctx, key)
}

// Open implements blob.Reader.
func (w *wrapper) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := w.call(ctx, OpOpen, key); err != nil {
		return nil, err
	}
	inner, err := w.Reader.Open(ctx, key, off, n)
	if err != nil || w.body == nil {
		return inner, err
	}
	b := newBody(ctx, nil, inner)
	b.Reader = w.body(b.ctx, key, off, inner) // its waiting ends with Close, too
	return b, nil
}

// Create implements blob.Bucket.
func (w *wrapper) Create(ctx context.Context, key string, r io.Reader, size int64) error {
	return w.put(ctx, OpCreate, key, r, size)
}

// Replace implements blob.Bucket.
func (w *wrapper) Replace(ctx context.Context, key string, r io.Reader, size int64) error {
	return w.put(ctx, OpReplace, key, r, size)
}

func (w *wrapper) put(ctx context.Context, op Op, key string, r io.Reader, size int64) error {
	b, err := w.bucket(op)
	if err != nil {
		return err
	}
	if err := w.call(ctx, op, key); err != nil {
		return err
	}
	if w.source != nil {
		r = w.source(r, size)
	}
	if op == OpReplace {
		return b.Replace(ctx, key, r, size)
	}
	return b.Create(ctx, key, r, size)
}

// Exclusive implements blob.Bucket.
func (w *wrapper) Exclusive() bool {
	b, err := w.bucket(OpCreate)
	return err == nil && b.Exclusive()
}

// List implements blob.Bucket.
func (w *wrapper) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	b, err := w.bucket(OpList)
	if err == nil {
		err = w.call(ctx, OpList, prefix)
	}
	if err != nil {
		return func(yield func(blob.Info, error) bool) { yield(blob.Info{}, err) }
	}
	return b.List(ctx, prefix)
}

// Delete implements blob.Bucket.
func (w *wrapper) Delete(ctx context.Context, key string) error {
	b, err := w.bucket(OpDelete)
	if err != nil {
		return err
	}
	if err := w.call(ctx, OpDelete, key); err != nil {
		return err
	}
	return b.Delete(ctx, key)
}
