package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"thaw/pagestore/blob"
)

// Memory is a bucket in memory. Its clock counts puts. The zero value is empty; it is safe for concurrent use.
type Memory struct {
	mu    sync.Mutex
	blobs map[string]version // protected by mu
	clock int64              // protected by mu
}

// version is what a key has; data is never changed.
type version struct {
	data     []byte
	modified int64
}

var _ blob.Bucket = (*Memory)(nil)

// String implements blob.Reader.
func (m *Memory) String() string { return "memory" }

// Exclusive implements blob.Bucket.
func (m *Memory) Exclusive() bool { return true }

// Size implements blob.Reader.
func (m *Memory) Size(ctx context.Context, key string) (int64, error) {
	v, err := m.get(ctx, key)
	return int64(len(v.data)), err
}

// Open implements blob.Reader.
func (m *Memory) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	v, err := m.get(ctx, key)
	if err != nil {
		return nil, err
	}
	if n, err = blob.Range(int64(len(v.data)), off, n); err != nil {
		return nil, err
	}
	return newBody(ctx, bytes.NewReader(v.data[off:off+n]), nil), nil
}

func (m *Memory) get(ctx context.Context, key string) (version, error) {
	if err := check(ctx, key); err != nil {
		return version{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.blobs[key]
	if !ok {
		return version{}, fmt.Errorf("%s: %w", key, blob.ErrNotFound)
	}
	return v, nil
}

// Create implements blob.Bucket.
func (m *Memory) Create(ctx context.Context, key string, r io.Reader, size int64) error {
	return m.put(ctx, key, r, size, false)
}

// Replace implements blob.Bucket.
func (m *Memory) Replace(ctx context.Context, key string, r io.Reader, size int64) error {
	return m.put(ctx, key, r, size, true)
}

func (m *Memory) put(ctx context.Context, key string, r io.Reader, size int64, replace bool) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if size < 0 {
		return fmt.Errorf("%s: %w", key, blob.ErrSize)
	}
	data, err := io.ReadAll(blob.Exact(ctx, r, size))
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.blobs[key]; ok && !replace {
		return fmt.Errorf("%s: %w", key, blob.ErrExists)
	}
	if m.blobs == nil {
		m.blobs = make(map[string]version)
	}
	m.clock++
	m.blobs[key] = version{data: data, modified: m.clock}
	return nil
}

// List implements blob.Bucket: what there is at its beginning.
func (m *Memory) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		if err := checkPrefix(ctx, prefix); err != nil {
			yield(blob.Info{}, err)
			return
		}
		for _, info := range m.infos(prefix) {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (m *Memory) infos(prefix string) []blob.Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []blob.Info
	for _, key := range slices.Sorted(maps.Keys(m.blobs)) {
		if strings.HasPrefix(key, prefix) {
			v := m.blobs[key]
			out = append(out, blob.Info{Key: key, Size: int64(len(v.data)), Modified: v.modified})
		}
	}
	return out
}

// Delete implements blob.Bucket.
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, key)
	return nil
}

func check(ctx context.Context, key string) error {
	if err := blob.ValidateKey(key); err != nil {
		return err
	}
	return ctx.Err()
}

func checkPrefix(ctx context.Context, prefix string) error {
	if err := blob.ValidatePrefix(prefix); err != nil {
		return err
	}
	return ctx.Err()
}
