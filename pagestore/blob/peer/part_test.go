package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"thaw/pagestore/blob"
)

// partly is a place that has the first bytes of its blobs only.
type partly struct {
	*memory
	has int64
}

type partBody struct {
	io.Reader
	n int64
}

func (partBody) Close() error  { return nil }
func (b partBody) Part() int64 { return b.n }

func (p *partly) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if off >= p.has {
		return nil, blob.ErrNotFound
	}
	end := min(off+n, p.has)
	return partBody{bytes.NewReader(p.blobs[key][off:end]), end - off}, nil
}

func TestOfARangeThatIsNotAllThereTheBeginningComes(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	want := content(1000)
	held := &partly{memory: &memory{blobs: map[string][]byte{packKey: want}}, has: 600}
	protocols(t, func(t *testing.T, http2 bool) {
		n := loopback(t)
		start(t, n, NewServer(held, b, ServerOptions{Allow: onlyTeam}))
		c := connect(t, n, a, ClientOptions{http2: http2})
		for _, r := range []struct {
			off, n, come int64
			err          error
		}{
			{0, 600, 600, nil}, {100, 500, 500, nil}, {100, 501, 500, blob.ErrNotFound}, {599, 401, 1, blob.ErrNotFound}, {10, -1, 590, blob.ErrNotFound},
			{600, 1, 0, blob.ErrNotFound}, {100, 901, 0, blob.ErrRange},
		} {
			got, err := readAll(c, packKey, r.off, r.n)
			if !bytes.Equal(got, want[r.off:r.off+r.come]) || !errors.Is(err, r.err) {
				t.Errorf("%d bytes from %d on: %d came, want %d; error %v, want %v", r.n, r.off, len(got), r.come, err, r.err)
			}
		}
		// Without a range there is no way to say so.
		if got, err := readAll(c, packKey, 0, -1); err == nil {
			t.Errorf("all: %d bytes came, and no error", len(got))
		}
	})
}
