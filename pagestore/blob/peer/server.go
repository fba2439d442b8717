package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"thaw/pagestore/blob"
)

// ServerOptions say what a Server allows.
type ServerOptions struct {
	// Allow says whether a node may read the blobs of a namespace; [Access.Allows] does. nil: nobody may read anything.
	Allow func(node, namespace string) bool

	// Send bounds what is sent, to all nodes together; nil: no bound.
	Send *Limiter

	// NodeRequests is how many requests of one node are answered at the same time; more are answered "busy". 0: 64.
	NodeRequests int

	// Connections is how many connections there may be; more are closed at once. 0: 1024.
	Connections int

	// Stall is how long a client may take to accept a piece of at most 128 KiB, or to send the head of a request. 0: 30 s.
	Stall time.Duration

	// Log is told what goes wrong; nil: nobody is.
	Log *slog.Logger

	// Served, if not nil, is told of each request when it has been answered. It may be called by several goroutines at once.
	Served func(Served)
}

// Served is what was done for one request.
type Served struct {
	Node      string        // that asked
	Namespace string        // that it asked for; "" if the request was malformed
	Status    int           // of the answer
	Bytes     int64         // of content that were sent
	Elapsed   time.Duration // from the head of the request to the last byte
}

func (o *ServerOptions) setDefaults() {
	if o.Allow == nil {
		o.Allow = func(string, string) bool { return false }
	}
	if o.NodeRequests <= 0 {
		o.NodeRequests = 64
	}
	if o.Connections <= 0 {
		o.Connections = 1024
	}
	if o.Stall <= 0 {
		o.Stall = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Served == nil {
		o.Served = func(Served) {}
	}
}

// Server lets other nodes read the blobs of a blob.Reader. It is safe for concurrent use.
type Server struct {
	blobs blob.Reader
	keys  *Keys
	opts  ServerOptions

	mu   sync.Mutex
	busy map[string]int // requests that are being answered, by node
}

// NewServer returns a server of what blobs holds. It closes neither.
func NewServer(blobs blob.Reader, keys *Keys, opts ServerOptions) *Server {
	opts.setDefaults()
	return &Server{blobs: blobs, keys: keys, opts: opts, busy: make(map[string]int)}
}

// Settings of the connections. A request has a short line and few headers, whatever its key.
const (
	maxHeader   = 16 << 10
	idleTimeout = 2 * time.Minute
)

// Serve accepts connections until ctx ends. Then it closes the listener and all connections, also those with transfers under way, and waits for what it started.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var handlers gate
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !handlers.enter() {
				panic(http.ErrAbortHandler)
			}
			defer handlers.leave()
			s.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSConfig:         s.keys.server(func(chi *tls.ClientHelloInfo) { known(chi.Conn) }),
		ReadHeaderTimeout: s.opts.Stall,
		ReadTimeout:       0, // a request has no body; its head has its own bound
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
		HTTP2:             http2Settings(),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err := server.ServeTLS(newListener(l, s.opts.Connections), "", "")
	server.Close()
	handlers.close()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// gate lets handlers in until it is closed, and knows when the last has left: net/http closes connections, and waits for no handler.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.inside.Add(1)
	}
	return !g.closed
}

func (g *gate) leave() { g.inside.Done() }

func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.inside.Wait()
}

// ServeHTTP answers one request, which came over a connection of [Server.Serve], or over another that asked for a client's certificate and verified it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	done := Served{Status: http.StatusUnauthorized}
	defer func() {
		done.Elapsed = time.Since(start)
		s.opts.Served(done)
	}()
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || !inTime(r.TLS.PeerCertificates[0]) {
		w.Header().Set("Connection", "close") // the next connection may be made with a newer one
		answer(w, http.StatusUnauthorized)
		return
	}
	node, err := NodeOf(r.TLS.PeerCertificates[0])
	if err != nil {
		answer(w, http.StatusUnauthorized)
		return
	}
	done.Node = node
	if !s.enter(node) {
		w.Header().Set("Retry-After", "1")
		done.Status = answer(w, http.StatusServiceUnavailable)
		return
	}
	defer s.leave(node)
	s.serve(w, r, &done)
}

func (s *Server) enter(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[node] >= s.opts.NodeRequests {
		return false
	}
	s.busy[node]++
	return true
}

func (s *Server) leave(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[node]--; s.busy[node] == 0 {
		delete(s.busy, node)
	}
}

// serve answers a node. Nothing is looked up, and no answer depends on what is here, before the node is known to be a member of the namespace.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, done *Served) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		done.Status = answer(w, http.StatusMethodNotAllowed)
		return
	}
	key, namespace, ok := parsePath(r.URL.Path)
	asked, err := oneSpan(r)
	if !ok || err != nil || r.URL.RawQuery != "" || r.URL.RawPath != "" || r.ContentLength != 0 {
		done.Status = answer(w, http.StatusBadRequest)
		return
	}
	done.Namespace = namespace
	if !s.opts.Allow(done.Node, namespace) {
		s.opts.Log.Debug("a node asked for a namespace that it is not a member of", "node", done.Node, "namespace", namespace)
		done.Status = answer(w, http.StatusNotFound)
		return
	}
	r = r.WithContext(WithAsker(r.Context(), done.Node))
	size, err := s.blobs.Size(r.Context(), key)
	if err != nil {
		done.Status = s.refuse(w, r, key, err)
		return
	}
	part, ok := asked.within(size)
	ranged := r.Header.Get("Range") != ""
	if !ok && ranged {
		w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		done.Status = answer(w, http.StatusRequestedRangeNotSatisfiable)
		return
	}
	var body io.ReadCloser = http.NoBody
	if r.Method == http.MethodGet && part.n > 0 {
		if body, err = s.blobs.Open(r.Context(), key, part.off, part.n); err != nil {
			done.Status = s.refuse(w, r, key, err)
			return
		}
	}
	defer body.Close()
	done.Status = head(w, part, size, ranged)
	if r.Method == http.MethodHead {
		return
	}
	if done.Bytes, err = s.send(w, r, body, part.n); err != nil {
		s.opts.Log.Debug("a transfer ended early", "node", done.Node, "key", key, "sent", done.Bytes, "of", part.n, "err", err)
		// The head with the length is gone: only the end of the connection, or stream, can say that there is no more.
		panic(http.ErrAbortHandler)
	}
}

func oneSpan(r *http.Request) (span, error) {
	h := r.Header.Values("Range")
	if len(h) > 1 {
		return span{}, errSpan
	}
	return parseSpan(r.Header.Get("Range"))
}

// head sends the head of a good answer.
func head(w http.ResponseWriter, part span, size int64, ranged bool) int {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(part.n, 10))
	status := http.StatusOK
	if ranged {
		h.Set("Content-Range", part.contentRange(size))
		status = http.StatusPartialContent
	}
	w.WriteHeader(status)
	return status
}

// refuse answers with what an error of the blobs means to a node. The error's text stays here.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, key string, err error) int {
	switch {
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrKey), errors.Is(err, blob.ErrDenied):
		return answer(w, http.StatusNotFound)
	case errors.Is(err, blob.ErrRange):
		return answer(w, http.StatusRequestedRangeNotSatisfiable)
	case errors.Is(err, blob.ErrBusy):
		w.Header().Set("Retry-After", "1")
		return answer(w, http.StatusServiceUnavailable)
	case r.Context().Err() != nil: // nobody is there to read it
		return answer(w, http.StatusInternalServerError)
	}
	s.opts.Log.Error("a blob cannot be read for a node", "key", key, "err", err)
	return answer(w, http.StatusInternalServerError)
}

// answer answers with a status and its name, and nothing else.
func answer(w http.ResponseWriter, status int) int {
	text := http.StatusText(status) + "\n"
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	io.WriteString(w, text)
	return status
}

// piece is what is read, waited for at the limiter, and written at a time.
const piece = 128 << 10

var pieces = sync.Pool{New: func() any { return new([piece]byte) }}

// send sends exactly n bytes of body.
func (s *Server) send(w http.ResponseWriter, r *http.Request, body io.Reader, n int64) (sent int64, err error) {
	buf := pieces.Get().(*[piece]byte)
	defer pieces.Put(buf)
	control := http.NewResponseController(w)
	for sent < n {
		p := buf[:min(piece, n-sent)]
		if _, err := io.ReadFull(body, p); err != nil {
			return sent, err
		}
		if err := s.opts.Send.wait(r.Context(), len(p), n); err != nil {
			return sent, err
		}
		if err := control.SetWriteDeadline(time.Now().Add(s.opts.Stall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return sent, err
		}
		m, err := w.Write(p)
		sent += int64(m)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}
