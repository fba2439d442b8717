package blobtest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"thaw/pagestore/blob"
)

// Slow delivers bodies one byte at a time, and calls pause before each; what it returns, reading returns. pause ends with its context, which ends
// when the body is closed, too. See [Pause].
func Slow(inner blob.Reader, pause func(ctx context.Context) error) blob.Bucket {
	return &wrapper{Reader: inner, body: func(ctx context.Context, _ string, _ int64, r io.Reader) io.Reader {
		return readerFunc(func(b []byte) (int, error) {
			if err := pause(ctx); err != nil {
				return 0, err
			}
			return r.Read(b[:min(1, len(b))])
		})
	}}
}

// Pause returns a pause for [Slow] by the clock. Only in a bubble of testing/synctest, where time costs none.
func Pause(d time.Duration) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Short ends each body after so many bytes with io.EOF, against what [blob.Reader] promises.
func Short(inner blob.Reader, after int64) blob.Bucket { return Broken(inner, after, io.EOF) }

// Broken ends each body that is longer with err, after so many bytes.
func Broken(inner blob.Reader, after int64, err error) blob.Bucket {
	return &wrapper{Reader: inner, body: func(_ context.Context, _ string, _ int64, r io.Reader) io.Reader {
		return cut(r, after, func() error { return err })
	}}
}

// cut reads r, and what then returns in the place of what follows after so many bytes.
func cut(r io.Reader, after int64, then func() error) io.Reader {
	left, ended := after, false
	return readerFunc(func(b []byte) (int, error) {
		if left == 0 && len(b) > 0 {
			if !ended {
				if n, err := r.Read(make([]byte, 1)); n == 0 && err != nil {
					return 0, err // it ends here by itself
				}
				ended = true
			}
			return 0, then()
		}
		n, err := r.Read(b[:min(int64(len(b)), left)])
		left -= int64(n)
		return n, err
	})
}

// Failing returns err from the first so many calls of all sorts; then it behaves. A place that is busy is Failing(inner, k, blob.ErrBusy).
func Failing(inner blob.Reader, calls int64, err error) blob.Bucket {
	var n atomic.Int64
	return &wrapper{Reader: inner, before: func(_ context.Context, op Op, key string) error {
		if n.Add(1) <= calls {
			return fmt.Errorf("%v %s: %w", op, key, err)
		}
		return nil
	}}
}

// Lying flips a bit of each byte that wrong names by its place in the blob; so it tells the same lie each time, whatever ranges are asked for.
func Lying(inner blob.Reader, wrong func(key string, off int64) bool) blob.Bucket {
	return &wrapper{Reader: inner, body: func(_ context.Context, key string, off int64, r io.Reader) io.Reader {
		return readerFunc(func(b []byte) (int, error) {
			n, err := r.Read(b)
			for i := range n {
				if wrong(key, off) {
					b[i] ^= 1
				}
				off++
			}
			return n, err
		})
	}}
}

// At is a lie about the one byte at off of each blob.
func At(off int64) func(key string, off int64) bool {
	return func(_ string, o int64) bool { return o == off }
}

// Hanging delivers so many bytes of each body and then nothing until its context ends, or it is closed; with after < 0 every call hangs, until its context ends.
func Hanging(inner blob.Reader, after int64) blob.Bucket {
	if after < 0 {
		return &wrapper{Reader: inner, before: func(ctx context.Context, _ Op, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}}
	}
	return &wrapper{Reader: inner, body: func(ctx context.Context, _ string, _ int64, r io.Reader) io.Reader {
		return cut(r, after, func() error {
			<-ctx.Done()
			return ctx.Err()
		})
	}}
}

// Full has room for so many bytes in all that are put from now on; of a blob that does not fit it reads half and is blob.ErrNoSpace. What is deleted makes no room.
func Full(inner blob.Bucket, room int64) blob.Bucket {
	var mu sync.Mutex // protects room
	return &wrapper{Reader: inner, source: func(r io.Reader, size int64) io.Reader {
		mu.Lock()
		defer mu.Unlock()
		if size <= room {
			room -= size
			return r
		}
		return cut(r, size/2, func() error { return blob.ErrNoSpace })
	}}
}

// Call is what was asked of a [Recorder].
type Call struct {
	Op  Op
	Key string // the prefix, for OpList
	// Off and N are the range of OpOpen, in bytes; N as it was given, -1 for all that follow.
	Off, N int64
}

// Recorder behaves, and notes what is asked of it. It is safe for concurrent use.
type Recorder struct {
	wrapper
	mu    sync.Mutex
	calls []Call // protected by mu
	bytes int64  // protected by mu
}

// NewRecorder returns a recorder around a place.
func NewRecorder(inner blob.Reader) *Recorder {
	r := &Recorder{}
	r.Reader = inner
	r.before = func(_ context.Context, op Op, key string) error {
		if op != OpOpen {
			r.note(Call{Op: op, Key: key})
		}
		return nil
	}
	r.body = func(_ context.Context, _ string, _ int64, body io.Reader) io.Reader {
		return readerFunc(func(b []byte) (int, error) {
			n, err := body.Read(b)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.bytes += int64(n)
			return n, err
		})
	}
	return r
}

func (r *Recorder) note(c Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
}

// Open implements blob.Reader.
func (r *Recorder) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r.note(Call{Op: OpOpen, Key: key, Off: off, N: n})
	return r.wrapper.Open(ctx, key, off, n)
}

// Calls returns what was asked so far, in its order.
func (r *Recorder) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Call(nil), r.calls...)
}

// Bytes returns how many bytes of bodies were read so far.
func (r *Recorder) Bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}
