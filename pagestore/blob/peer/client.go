package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"thaw/pagestore/blob"
)

// ErrSlow: the peer sends too little, or nothing. Another may be faster.
var ErrSlow = errors.New("peer is too slow")

// ClientOptions say how a Client behaves. The zero value is useful.
type ClientOptions struct {
	// Receive bounds what is received, from all peers together that it is given to; nil: no bound.
	Receive *Limiter

	// Window is how long the peer may take to begin an answer, and for each next Window·MinRate bytes of it, or all that are left. Only time
	// in which somebody waits for bytes counts. 0: 10 s.
	Window time.Duration

	// MinRate is how many bytes a second must come, over a Window. 0: 16 KiB.
	MinRate int64

	// Dial makes connections; nil: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// http2 has all requests share one connection. It is slower (docs/protocol/peer.md has figures), and does not tell why a server refused
	// a certificate; it is for tests of the server, and for measuring.
	http2 bool
}

func (o *ClientOptions) setDefaults() {
	if o.Window <= 0 {
		o.Window = 10 * time.Second
	}
	if o.MinRate <= 0 {
		o.MinRate = 16 << 10
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
}

// Client reads the blobs of one node. It is safe for concurrent use.
type Client struct {
	node    string
	address string
	keys    *Keys
	opts    ClientOptions

	mu        sync.Mutex
	transport *http.Transport // of the connections that are made with material; nil: none yet
	material  *material
}

var _ blob.Reader = (*Client)(nil)

// NewClient returns a client of the node of that name, which listens at address, "host:port". It closes no keys.
func NewClient(node, address string, keys *Keys, opts ClientOptions) *Client {
	opts.setDefaults()
	return &Client{node: node, address: address, keys: keys, opts: opts}
}

// String names the node and its address.
func (c *Client) String() string { return c.node + " at " + c.address }

// Node returns the name of the node that is asked.
func (c *Client) Node() string { return c.node }

// Close closes the connections that carry nothing; the others close when they do not, any more. The client stays usable.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked()
}

// Size returns how many bytes a blob has.
func (c *Client) Size(ctx context.Context, key string) (int64, error) {
	t, err := c.ask(ctx, http.MethodHead, key, "")
	if err != nil {
		return 0, c.wrap("size", key, err)
	}
	defer t.Close()
	if t.resp.StatusCode != http.StatusOK {
		return 0, c.wrap("size", key, statusError(t.resp))
	}
	if t.resp.ContentLength < 0 {
		return 0, c.wrap("size", key, errors.New("the answer has no length"))
	}
	return t.resp.ContentLength, nil
}

// Open returns n bytes of a blob from off on, as they come from the peer: they are as many as were asked for, and nothing else is known of them.
func (c *Client) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if off < 0 || off > maxNumber || n > maxNumber {
		return nil, c.wrap("open", key, blob.ErrRange)
	}
	if n == 0 { // HTTP has no empty range
		size, err := c.Size(ctx, key)
		if err == nil && off > size {
			err = c.wrap("open", key, blob.ErrRange)
		}
		return http.NoBody, err
	}
	asked := span{off, max(n, -1)}
	header := ""
	if asked != (span{0, -1}) {
		header = asked.header()
	}
	t, err := c.ask(ctx, http.MethodGet, key, header)
	if err != nil {
		return nil, c.wrap("open", key, err)
	}
	length, all, err := answered(t.resp, asked)
	if err != nil || length == 0 {
		t.Close()
		if err != nil {
			return nil, c.wrap("open", key, err)
		}
		return http.NoBody, nil
	}
	t.total, t.left, t.part = length, length, !all
	t.wrap = func(err error) error { return c.wrap("read", key, err) }
	return t, nil
}

// answered returns how many bytes the answer has: those that were asked for, or, unless all, the first of them.
func answered(resp *http.Response, asked span) (n int64, all bool, err error) {
	switch resp.StatusCode {
	case http.StatusOK:
		if asked != (span{0, -1}) {
			return 0, false, errors.New("asked for a range, it sends all")
		}
		if resp.ContentLength < 0 {
			return 0, false, errors.New("the answer has no length")
		}
		return resp.ContentLength, true, nil
	case http.StatusPartialContent:
		got, size, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || got.n != resp.ContentLength {
			return 0, false, fmt.Errorf("Content-Range %.80q and Content-Length %d make no answer", resp.Header.Get("Content-Range"), resp.ContentLength)
		}
		want, _ := asked.within(size)
		switch {
		case got.off != want.off || got.n < 1 || got.n > want.n:
			return 0, false, fmt.Errorf("asked for %s, it sends %.80q", asked.header(), resp.Header.Get("Content-Range"))
		case asked.n >= 0 && want.n < asked.n:
			return 0, false, fmt.Errorf("%w: it has %d bytes", blob.ErrRange, size)
		}
		return got.n, got == want, nil
	case http.StatusRequestedRangeNotSatisfiable:
		// From the very end on there are no bytes, and that is no error here.
		if _, size, ok := parseContentRange(resp.Header.Get("Content-Range")); ok && asked.n < 0 && asked.off == size {
			return 0, true, nil
		}
	}
	return 0, false, statusError(resp)
}

func statusError(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusNotFound:
		return blob.ErrNotFound
	case http.StatusRequestedRangeNotSatisfiable:
		return blob.ErrRange
	case http.StatusUnauthorized, http.StatusForbidden:
		return blob.ErrDenied
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return blob.ErrBusy
	}
	return fmt.Errorf("it answered %.80q", resp.Status)
}

// ask sends a request and returns with the head of its answer, whatever that is. A connection that was made with a certificate whose time is over by now is
// not used: once more is asked, over one with newer keys if there are any.
func (c *Client) ask(ctx context.Context, method, key, rang string) (*transfer, error) {
	if err := blob.ValidateKey(key); err != nil {
		return nil, err
	}
	if _, ok := namespaceOf(key); !ok {
		return nil, fmt.Errorf("%w %q: it does not begin with v1/NAMESPACE/", blob.ErrKey, key)
	}
	for again := false; ; again = true {
		transport, err := c.connections()
		if err != nil {
			return nil, err
		}
		t, err := c.askOver(ctx, transport, method, key, rang)
		if err != nil {
			return nil, err
		}
		stale := t.resp.StatusCode == http.StatusUnauthorized || !inTime(t.resp.TLS.PeerCertificates[0])
		if !stale {
			return t, nil
		}
		t.Close()
		c.drop(transport)
		if again {
			return nil, fmt.Errorf("%w: %w: the time of a certificate, ours or theirs, is over", blob.ErrDenied, ErrCertificate)
		}
	}
}

func (c *Client) askOver(ctx context.Context, transport *http.Transport, method, key, rang string) (*transfer, error) {
	t := newTransfer(ctx, &c.opts)
	req, err := http.NewRequestWithContext(t.ctx, method, "https://"+c.address+prefix+key, nil)
	if err != nil {
		t.Close()
		return nil, err
	}
	req.URL = &url.URL{Scheme: "https", Host: c.address, Path: prefix + key}
	if rang != "" {
		req.Header.Set("Range", rang)
	}
	t.watch.begin()
	// The transport itself: it follows no redirects, and knows no proxies.
	t.resp, err = transport.RoundTrip(req) //nolint:bodyclose // transfer.Close does
	t.watch.end(0)
	t.watch.restart()
	if err != nil {
		err = c.explain(t.cause(err))
		t.Close()
		return nil, err
	}
	return t, nil
}

// connections returns the transport for a new request: one whose connections are made with the keys as they are now.
func (c *Client) connections() (*http.Transport, error) {
	m := c.keys.w.get()
	if !inTime(m.cert.Leaf) {
		return nil, fmt.Errorf("%w: %w: the time of our own, %s, was over at %s", blob.ErrDenied, ErrCertificate,
			c.keys.files.Certificate, m.cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport == nil || c.material != m {
		c.dropLocked()
		c.transport, c.material = c.newTransport(m), m
	}
	return c.transport, nil
}

// Sizes of buffers, and how many connections are kept for later.
const (
	readBuffer = 32 << 10
	idleConns  = 16
)

func (c *Client) newTransport(m *material) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(!c.opts.http2)
	protocols.SetHTTP2(c.opts.http2)
	return &http.Transport{
		DialContext:            c.opts.Dial,
		TLSClientConfig:        m.client(c.node),
		Protocols:              &protocols,
		HTTP2:                  http2Settings(),
		DisableCompression:     true,
		ReadBufferSize:         readBuffer,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        idleTimeout / 2, // before the server does
	}
}

// drop has no request use that transport any more.
func (c *Client) drop(transport *http.Transport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport == transport {
		c.dropLocked()
	}
}

func (c *Client) dropLocked() {
	if c.transport != nil {
		c.transport.CloseIdleConnections() // and those that are in use once they are not
		c.transport = nil
	}
}

// explain says what an error of a connection means, where that can be known.
func (c *Client) explain(err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, ErrCertificate):
		return fmt.Errorf("%w: %w", blob.ErrDenied, err)
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("%w: %w: ours, %s, by them: %w", blob.ErrDenied, ErrCertificate, c.keys.files.Certificate, err)
	}
	return err
}

func (c *Client) wrap(op, key string, err error) error {
	if errors.Is(err, blob.ErrKey) { // it says which one, as far as that can be printed
		return fmt.Errorf("%s blob of %s: %w", op, c, err)
	}
	return fmt.Errorf("%s %s of %s: %w", op, key, c, err)
}

// http2Settings are those of both ends. Measured: docs/protocol/peer.md.
func http2Settings() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          128,
		MaxReadFrameSize:              256 << 10,
		MaxReceiveBufferPerConnection: 4<<20 - 1,
		MaxReceiveBufferPerStream:     4<<20 - 1,
	}
}
