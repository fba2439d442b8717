package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"thaw/pagestore/blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a blob.Reader of a map.
type memory struct {
	blobs   map[string][]byte
	lookups atomic.Int64
	// wrap, if set, may replace what is read.
	wrap func(r io.Reader) io.Reader
	// fail, if set, is what both methods return.
	fail error
}

func (m *memory) String() string { return "memory" }

func (m *memory) Size(_ context.Context, key string) (int64, error) {
	m.lookups.Add(1)
	b, ok := m.blobs[key]
	if m.fail != nil {
		return 0, m.fail
	}
	if !ok {
		return 0, blob.ErrNotFound
	}
	return int64(len(b)), nil
}

func (m *memory) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if _, err := m.Size(ctx, key); err != nil {
		return nil, err
	}
	var r io.Reader = bytes.NewReader(m.blobs[key][off : off+n])
	if m.wrap != nil {
		r = m.wrap(r)
	}
	return io.NopCloser(r), nil
}

const (
	packKey   = "v1/team/packs/abc"
	secretKey = "v1/secret/packs/abc"
)

func content(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(b)
	return b
}

// members lets node "a" read namespace "team", and nobody anything else.
func onlyTeam(node, namespace string) bool { return node == "a" && namespace == "team" }

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// keysOf returns keys for a node of that authority which hold for that long, and their files.
func keysOf(t testing.TB, a *Authority, node string, life time.Duration) (*Keys, Files) {
	t.Helper()
	files := must(must(a.Issue(node, life))(t).Write(t.TempDir()))(t)
	return must(OpenKeys(files, nil))(t), files
}

// network connects clients with servers: by TCP on the loopback interface, or, where the clock is not the real one, in memory.
type network struct {
	net.Listener
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func loopback(t testing.TB) *network {
	t.Helper()
	return &network{Listener: must(net.Listen("tcp", "127.0.0.1:0"))(t)}
}

// inMemory is a network of net.Pipe, with which testing/synctest knows who waits.
func inMemory() *network {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	return &network{Listener: l, dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case l.conns <- theirs:
			return ours, nil
		case <-l.closed:
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe:1", Net: "pipe"} }

// start runs a server until stop is called, or the test ends.
func start(t testing.TB, n *network, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, n) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// handle serves what a misbehaving handler says, over TLS as a node's server has it.
func handle(t testing.TB, n *network, keys *Keys, h http.HandlerFunc) (stop func()) {
	t.Helper()
	s := &http.Server{Handler: h, TLSConfig: keys.server(nil), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeTLS(n, "", "")
	}()
	stop = sync.OnceFunc(func() {
		s.Close()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// raw serves connections byte by byte, each with its handshake done and the first request read.
func raw(t testing.TB, n *network, keys *Keys, f func(c net.Conn)) (stop func()) {
	t.Helper()
	l := tls.NewListener(n, http1Only(keys.server(nil)))
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				if _, err := http.ReadRequest(newReader(c)); err == nil {
					f(c)
				}
			})
		}
	})
	stop = sync.OnceFunc(func() {
		l.Close()
		all.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func http1Only(c *tls.Config) *tls.Config {
	inner := c.GetConfigForClient
	c.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := inner(chi)
		if c != nil {
			c.NextProtos = []string{"http/1.1"}
		}
		return c, err
	}
	return c
}

// connect returns a client of node b, which the test closes.
func connect(t testing.TB, n *network, keys *Keys, opts ClientOptions) *Client {
	t.Helper()
	if opts.Dial == nil {
		opts.Dial = n.dial
	}
	c := NewClient("b", n.Addr().String(), keys, opts)
	t.Cleanup(c.Close)
	return c
}

func readAll(c *Client, key string, off, n int64) ([]byte, error) {
	r, err := c.Open(context.Background(), key, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func protocols(t *testing.T, f func(t *testing.T, http2 bool)) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%t", http2), func(t *testing.T) { f(t, http2) })
	}
}

func mustChain(k *Keys) []*x509.Certificate { return []*x509.Certificate{k.w.get().cert.Leaf} }
