package peer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"thaw/pagestore/blob"
)

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

func TestRangesComeAsTheyWereAskedFor(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	all := content(3*piece + 77)
	src := &memory{blobs: map[string][]byte{packKey: all, "v1/team/meta/empty": {}}}
	protocols(t, func(t *testing.T, http2 bool) {
		n := loopback(t)
		start(t, n, NewServer(src, theirs, ServerOptions{Allow: onlyTeam}))
		c := connect(t, n, mine, ClientOptions{http2: http2})
		size := int64(len(all))
		for _, tt := range []struct {
			name   string
			key    string
			off, n int64
			want   []byte
			err    error
		}{
			{"all", packKey, 0, -1, all, nil},
			{"all, by its size", packKey, 0, size, all, nil},
			{"one byte", packKey, 5, 1, all[5:6], nil},
			{"a frame", packKey, piece, piece, all[piece : 2*piece], nil},
			{"the rest", packKey, 100, -1, all[100:], nil},
			{"the last byte", packKey, size - 1, 1, all[size-1:], nil},
			{"nothing, from the end on", packKey, size, -1, nil, nil},
			{"nothing, inside", packKey, 3, 0, nil, nil},
			{"nothing, at the end", packKey, size, 0, nil, nil},
			{"nothing, beyond the end", packKey, size + 1, 0, nil, blob.ErrRange},
			{"a byte too many", packKey, 1, size, nil, blob.ErrRange},
			{"beyond the end", packKey, size + 1, -1, nil, blob.ErrRange},
			{"far beyond the end", packKey, 1 << 62, 1 << 62, nil, blob.ErrRange},
			{"before the beginning", packKey, -1, 5, nil, blob.ErrRange},
			{"an empty blob", "v1/team/meta/empty", 0, -1, nil, nil},
			{"a byte of an empty blob", "v1/team/meta/empty", 0, 1, nil, blob.ErrRange},
			{"no such blob", "v1/team/packs/abcd", 0, -1, nil, blob.ErrNotFound},
			{"no such blob, a range", "v1/team/packs/abcd", 7, 9, nil, blob.ErrNotFound},
			{"no key", "v1/team/../secret/packs/abc", 0, -1, nil, blob.ErrKey},
			{"a key of no namespace", "v1/team", 0, -1, nil, blob.ErrKey},
		} {
			t.Run(tt.name, func(t *testing.T) {
				got, err := readAll(c, tt.key, tt.off, tt.n)
				if !errors.Is(err, tt.err) {
					t.Fatalf("error is %v, want %v", err, tt.err)
				}
				if !bytes.Equal(got, tt.want) {
					t.Errorf("got %d bytes, want %d, or they differ", len(got), len(tt.want))
				}
			})
		}
		if got, err := c.Size(t.Context(), packKey); got != size || err != nil {
			t.Errorf("Size is %d, %v, want %d", got, err, size)
		}
		if _, err := c.Size(t.Context(), "v1/team/packs/x"); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("Size of what is not there: %v", err)
		}
	})
}

func TestErrorsOfTheBlobsArriveAsWhatTheyMean(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	for _, tt := range []struct{ fail, want error }{
		{blob.ErrNotFound, blob.ErrNotFound},
		{blob.ErrDenied, blob.ErrNotFound},
		{blob.ErrKey, blob.ErrNotFound},
		{blob.ErrBusy, blob.ErrBusy},
		{blob.ErrRange, blob.ErrRange},
		{errors.New("open /secret/path: input/output error"), nil},
	} {
		t.Run(tt.fail.Error(), func(t *testing.T) {
			n := loopback(t)
			start(t, n, NewServer(&memory{fail: tt.fail}, theirs, ServerOptions{Allow: onlyTeam}))
			_, err := readAll(connect(t, n, mine, ClientOptions{}), packKey, 0, -1)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error is %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret/path") {
				t.Errorf("the server's paths travel: %v", err)
			}
		})
	}
}

// A peer that misbehaves, with what the client says of it.
func TestWhatAPeerDoesWrong(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	all := content(1000)
	length := func(w http.ResponseWriter, n int) { w.Header().Set("Content-Length", fmt.Sprint(n)) }
	for _, tt := range []struct {
		name string
		do   http.HandlerFunc
		want error  // that the error is
		text string // that it says
	}{
		{"truncates", func(w http.ResponseWriter, r *http.Request) {
			length(w, 1000)
			w.Write(all[:700])
		}, io.ErrUnexpectedEOF, "700 of 1000 bytes came"},
		{"dies", func(w http.ResponseWriter, r *http.Request) {
			length(w, 1000)
			w.Write(all[:300])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, io.ErrUnexpectedEOF, "300 of 1000 bytes came"},
		{"dies before it answers", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, nil, ""},
		{"has fewer bytes than it was asked for, and says so", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				length(w, 10)
				w.Write(all[:10])
			}
		}, nil, ""},
		{"redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/elsewhere", http.StatusFound)
		}, nil, "302 Found"},
		{"says that it moved, in the good answer's clothes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://127.0.0.1:1/")
			w.WriteHeader(http.StatusPermanentRedirect)
			w.Write(all)
		}, nil, "308"},
		{"sends without a length", func(w http.ResponseWriter, r *http.Request) {
			w.Write(all[:10])
			w.(http.Flusher).Flush()
			w.Write(all[10:])
		}, nil, "no length"},
		{"sends a range that nobody asked for", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 1-10/1000")
			length(w, 10)
			w.WriteHeader(http.StatusPartialContent)
			w.Write(all[1:11])
		}, nil, "it sends"},
		{"sends a Content-Range that is none", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", strings.Repeat("junk", 1000))
			length(w, 10)
			w.WriteHeader(http.StatusPartialContent)
			w.Write(all[1:11])
		}, nil, "make no answer"},
		{"says that it is busy", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, blob.ErrBusy, ""},
		{"says that it is asked too often", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }, blob.ErrBusy, ""},
		{"says no", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, blob.ErrDenied, ""},
		{"does not know who we are", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }, blob.ErrDenied, "certificate"},
		{"breaks", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }, nil, "500"},
		{"sends huge headers", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Junk", strings.Repeat("x", 100<<10))
			length(w, 1000)
			w.Write(all)
		}, nil, ""},
		{"sends many headers", func(w http.ResponseWriter, r *http.Request) {
			for i := range 5000 {
				w.Header().Set(fmt.Sprintf("X-Junk-%d", i), "x")
			}
			length(w, 1000)
			w.Write(all)
		}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			protocols(t, func(t *testing.T, http2 bool) {
				n := loopback(t)
				handle(t, n, theirs, tt.do)
				c := connect(t, n, mine, ClientOptions{http2: http2})
				off, want := int64(0), int64(-1)
				if strings.HasPrefix(tt.name, "has fewer") {
					off, want = 0, 20
				}
				got, err := readAll(c, packKey, off, want)
				if err == nil {
					t.Fatalf("no error, and %d bytes", len(got))
				}
				if tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("error is %v, want %v", err, tt.want)
				}
				if !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), "b at ") {
					t.Errorf("%q does not say %q, or not of whom", err, tt.text)
				}
			})
		})
	}
}

func TestARangeOfAnAnswerThatIsShorterIsNotInsideTheBlob(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	n := loopback(t)
	start(t, n, NewServer(&memory{blobs: map[string][]byte{packKey: content(10)}}, theirs, ServerOptions{Allow: onlyTeam}))
	if got, err := readAll(connect(t, n, mine, ClientOptions{}), packKey, 5, 6); !errors.Is(err, blob.ErrRange) || len(got) > 0 {
		t.Errorf("%d bytes and %v", len(got), err)
	}
}

func TestBytesThatAPeerFlipsComeThroughAsTheyAre(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	all := content(1000)
	flipped := bytes.Clone(all)
	flipped[500] ^= 1
	n := loopback(t)
	start(t, n, NewServer(&memory{blobs: map[string][]byte{packKey: flipped}}, theirs, ServerOptions{Allow: onlyTeam}))
	got, err := readAll(connect(t, n, mine, ClientOptions{}), packKey, 0, -1)
	if err != nil || !bytes.Equal(got, flipped) {
		t.Errorf("the client changes or hides what the peer sent: %v", err)
	}
}

func TestABlobThatEndsEarlyInTheServerIsTruncatedForTheClient(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	src := &memory{blobs: map[string][]byte{packKey: content(3 * piece)}, wrap: func(r io.Reader) io.Reader { return io.LimitReader(r, piece+5) }}
	protocols(t, func(t *testing.T, http2 bool) {
		n := loopback(t)
		start(t, n, NewServer(src, theirs, ServerOptions{Allow: onlyTeam}))
		if _, err := readAll(connect(t, n, mine, ClientOptions{http2: http2}), packKey, 0, -1); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("error is %v, want an unexpected end", err)
		}
	})
}

func TestTheContextHoldsForTheReading(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	protocols(t, func(t *testing.T, http2 bool) {
		n := loopback(t)
		handle(t, n, theirs, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write(content(10))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		c := connect(t, n, mine, ClientOptions{http2: http2})
		ctx, cancel := context.WithCancel(t.Context())
		r, err := c.Open(ctx, packKey, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := r.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want the context's", err)
		}
		if _, err := c.Size(ctx, packKey); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want the context's", err)
		}
	})
}

func TestCloseEndsAReadThatWaits(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	protocols(t, func(t *testing.T, http2 bool) {
		n := loopback(t)
		gone := make(chan struct{})
		handle(t, n, theirs, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write(content(10))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			close(gone)
		})
		r, err := connect(t, n, mine, ClientOptions{http2: http2}).Open(t.Context(), packKey, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		read := make(chan error)
		go func() {
			_, err := r.Read(make([]byte, 10))
			read <- err
		}()
		r.Close()
		if err := <-read; err == nil {
			t.Error("the read had no error")
		}
		<-gone // and the peer learns of it
	})
}

func TestNobodyListens(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	n := loopback(t)
	n.Close()
	if _, err := readAll(connect(t, n, mine, ClientOptions{}), packKey, 0, -1); err == nil || errors.Is(err, blob.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
}

func TestWhatIsNoHTTPIsAnError(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	for name, answer := range map[string]string{
		"junk":                   "\x00\x01\x02 junk\r\n\r\n",
		"nothing":                "",
		"half a head":            "HTTP/1.1 200 OK\r\nContent-Le",
		"two lengths":            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
		"a length below zero":    "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabcde",
		"a head that never ends": "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 100_000),
		"an offer of protocols":  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: junk\r\nConnection: Upgrade\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			n := loopback(t)
			raw(t, n, theirs, func(c net.Conn) { io.WriteString(c, answer) })
			if got, err := readAll(connect(t, n, mine, ClientOptions{}), packKey, 0, -1); err == nil {
				t.Errorf("no error, and %q", got)
			}
		})
	}
}

func TestManyReadAtTheSameTime(t *testing.T) {
	a := must(NewAuthority())(t)
	mine, _ := keysOf(t, a, "a", time.Hour)
	theirs, _ := keysOf(t, a, "b", time.Hour)
	all := content(2*piece + 5)
	protocols(t, func(t *testing.T, http2 bool) {
		n := loopback(t)
		src := &memory{blobs: map[string][]byte{packKey: all}}
		start(t, n, NewServer(src, theirs, ServerOptions{Allow: onlyTeam, NodeRequests: 1000}))
		c := connect(t, n, mine, ClientOptions{http2: http2, Receive: NewLimiter(1 << 40)})
		var group sync.WaitGroup
		for i := range 200 {
			group.Go(func() {
				off := int64(i * 1000)
				if got, err := readAll(c, packKey, off, -1); err != nil || !bytes.Equal(got, all[off:]) {
					t.Errorf("%d bytes from %d on, %v", len(got), off, err)
				}
			})
		}
		group.Wait()
	})
}
