package peer

import (
	"context"
	"crypto/tls"
	"io"
	"testing"
	"time"

	"thaw/pagestore/blob"
)

// endless is a blob.Reader of one blob whose bytes cost nothing but their copy, as those of a mapped pack.
type endless struct{ frames []byte }

const endlessSize = 256 << 20

func (endless) String() string                              { return "endless" }
func (endless) Size(context.Context, string) (int64, error) { return endlessSize, nil }
func (e endless) Open(_ context.Context, _ string, _, n int64) (io.ReadCloser, error) {
	return io.NopCloser(&repeat{e.frames, 0, n}), nil
}

// repeat reads n bytes, b again and again.
type repeat struct {
	b    []byte
	at   int
	left int64
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), r.left)], r.b[r.at:])
	r.at = (r.at + n) % len(r.b)
	r.left -= int64(n)
	return n, nil
}

// BenchmarkStream reads 256 MiB as one stream in frames of 128 KiB, by a plain copy over crypto/tls and as a peer's client.
// Run it several times with -count=1, so that what is compared is measured in turns.
func BenchmarkStream(b *testing.B) {
	authority := must(NewAuthority())(b)
	mine, _ := keysOf(b, authority, "a", time.Hour)
	theirs, _ := keysOf(b, authority, "b", time.Hour)
	src := endless{content(8 << 20)}
	var _ blob.Reader = src

	b.Run("over=tls", func(b *testing.B) {
		n := loopback(b)
		l := tls.NewListener(n, theirs.server(nil))
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if _, err := c.Read(make([]byte, 1)); err == nil {
					r, _ := src.Open(b.Context(), "", 0, endlessSize)
					io.CopyBuffer(struct{ io.Writer }{c}, r, make([]byte, piece))
				}
				c.Close()
			}
		}()
		b.SetBytes(endlessSize)
		for b.Loop() {
			c, err := tls.Dial("tcp", n.Addr().String(), mine.w.get().client("b"))
			if err != nil {
				b.Fatal(err)
			}
			c.Write([]byte{1})
			readFrames(b, c)
			c.Close()
		}
		l.Close()
		<-done
	})
	for _, protocol := range []string{"http1", "http2"} {
		b.Run("over="+protocol, func(b *testing.B) {
			n := loopback(b)
			start(b, n, NewServer(src, theirs, ServerOptions{Allow: onlyTeam}))
			c := connect(b, n, mine, ClientOptions{http2: protocol == "http2"})
			b.SetBytes(endlessSize)
			for b.Loop() {
				r, err := c.Open(b.Context(), packKey, 0, -1)
				if err != nil {
					b.Fatal(err)
				}
				readFrames(b, r)
				r.Close()
			}
		})
	}
}

func readFrames(b *testing.B, r io.Reader) {
	frame := make([]byte, 128<<10)
	total := 0
	for {
		n, err := io.ReadFull(r, frame)
		total += n
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if total != endlessSize {
		b.Fatalf("%d bytes", total)
	}
}

// BenchmarkFrame reads one frame of 128 KiB for each request, as a demand does.
func BenchmarkFrame(b *testing.B) {
	authority := must(NewAuthority())(b)
	mine, _ := keysOf(b, authority, "a", time.Hour)
	theirs, _ := keysOf(b, authority, "b", time.Hour)
	src := endless{content(8 << 20)}
	for _, protocol := range []string{"http1", "http2"} {
		b.Run("over="+protocol, func(b *testing.B) {
			n := loopback(b)
			start(b, n, NewServer(src, theirs, ServerOptions{Allow: onlyTeam}))
			c := connect(b, n, mine, ClientOptions{http2: protocol == "http2"})
			frame := make([]byte, 128<<10)
			b.SetBytes(int64(len(frame)))
			for b.Loop() {
				r, err := c.Open(b.Context(), packKey, 128<<10, int64(len(frame)))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, frame); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}
