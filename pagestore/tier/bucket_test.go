package tier

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
	"time"

	"thaw/pagestore/blob"
)

// memoryBucket is a bucket in memory. Before each request it asks before, which may block it or make it fail.
type memoryBucket struct {
	before func(ctx context.Context, op, key string) error
	// exclusive is whether Create looks and puts in one step.
	exclusive bool

	mu    sync.Mutex
	blobs map[string]memoryBlob
	ops   map[string]int
}

type memoryBlob struct {
	data     []byte
	modified int64
}

var _ blob.Bucket = (*memoryBucket)(nil)

func newMemoryBucket() *memoryBucket {
	return &memoryBucket{exclusive: true, blobs: make(map[string]memoryBlob), ops: make(map[string]int)}
}

func (b *memoryBucket) String() string  { return "memory" }
func (b *memoryBucket) Exclusive() bool { return b.exclusive }

func (b *memoryBucket) enter(ctx context.Context, op, key string) error {
	b.mu.Lock()
	b.ops[op]++
	before := b.before
	b.mu.Unlock()
	if before != nil {
		if err := before(ctx, op, key); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (b *memoryBucket) get(key string) (memoryBlob, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.blobs[key]
	if !ok {
		return m, fmt.Errorf("%s: %w", key, blob.ErrNotFound)
	}
	return m, nil
}

func (b *memoryBucket) Size(ctx context.Context, key string) (int64, error) {
	if err := b.enter(ctx, "size", key); err != nil {
		return 0, err
	}
	m, err := b.get(key)
	return int64(len(m.data)), err
}

func (b *memoryBucket) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := b.enter(ctx, "open", key); err != nil {
		return nil, err
	}
	m, err := b.get(key)
	if err != nil {
		return nil, err
	}
	size := int64(len(m.data))
	if n < 0 {
		n = size - off
	}
	if off < 0 || n < 0 || off+n > size {
		return nil, fmt.Errorf("[%d, +%d) of %d bytes of %s: %w", off, n, size, key, blob.ErrRange)
	}
	return io.NopCloser(bytes.NewReader(m.data[off : off+n])), nil
}

func (b *memoryBucket) put(key string, data []byte, replace bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.blobs[key]; ok && !replace {
		return fmt.Errorf("%s: %w", key, blob.ErrExists)
	}
	b.blobs[key] = memoryBlob{data, time.Now().UnixNano()}
	return nil
}

func (b *memoryBucket) Create(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := b.enter(ctx, "create", key); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != size {
		return fmt.Errorf("put %d bytes, want %d: %w", len(data), size, err)
	}
	if !b.exclusive {
		if _, err := b.get(key); err == nil {
			return fmt.Errorf("%s: %w", key, blob.ErrExists)
		}
		if err := b.enter(ctx, "create-late", key); err != nil {
			return err
		}
		return b.put(key, data, true)
	}
	return b.put(key, data, false)
}

func (b *memoryBucket) Replace(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := b.enter(ctx, "replace", key); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != size {
		return fmt.Errorf("put %d bytes, want %d: %w", len(data), size, err)
	}
	return b.put(key, data, true)
}

// listPage is how many blobs a listing reads at a time: what is put meanwhile may be in it or not, as elsewhere.
const listPage = 3

func (b *memoryBucket) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for after := ""; ; {
			if err := b.enter(ctx, "list", prefix); err != nil {
				yield(blob.Info{}, err)
				return
			}
			page := b.listAfter(prefix, after)
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
			}
			if len(page) < listPage {
				return
			}
			after = page[len(page)-1].Key
		}
	}
}

func (b *memoryBucket) listAfter(prefix, after string) (page []blob.Info) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(b.blobs)) {
		if strings.HasPrefix(key, prefix) && key > after && len(page) < listPage {
			m := b.blobs[key]
			page = append(page, blob.Info{Key: key, Size: int64(len(m.data)), Modified: m.modified})
		}
	}
	return page
}

func (b *memoryBucket) Delete(ctx context.Context, key string) error {
	if err := b.enter(ctx, "delete", key); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.blobs, key)
	return nil
}

// keys returns the keys that begin with prefix.
func (b *memoryBucket) keys(prefix string) (keys []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range b.blobs {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// laggingBucket lists what there was before.
type laggingBucket struct{ *memoryBucket }

func (b laggingBucket) List(context.Context, string) iter.Seq2[blob.Info, error] {
	return func(func(blob.Info, error) bool) {}
}
