package fleet

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Credentials of the object store's only user.
const (
	accessKey = "thaw-fleet"
	secretKey = "thaw-fleet-secret"
)

const (
	bucketName = "snapshots"
	storePort  = "9000"
)

// Trouble is what is wrong with the object store.
type Trouble int32

// The troubles.
const (
	// NoTrouble: it answers.
	NoTrouble Trouble = iota
	// Stopped: connections end without an answer.
	Stopped
	// Unavailable: each request is answered 503.
	Unavailable
)

// ObjectStore is an S3 server in a namespace of its own, and a proxy in front of it that counts, and can get into [Trouble]. It is safe for concurrent
// use.
type ObjectStore struct {
	url    string
	folder string
	space  *space
	link   *link
	server *program
	front  *http.Server
	done   chan struct{} // closed when front has ended

	mu      sync.Mutex
	trouble Trouble
	refused int
	reads   map[string]*Reads
}

// Reads is what was read of one object. The sizes are in bytes.
type Reads struct {
	// Requests counts those that were answered with content.
	Requests int
	// Bytes were sent, Distinct of them for the first time.
	Bytes, Distinct int64

	seen []extent // sorted, apart from each other
}

// An extent is a part of an object.
type extent struct{ off, end int64 }

// add counts that [off, end) was sent.
func (r *Reads) add(off, end int64) {
	r.Requests++
	if off >= end {
		return
	}
	r.Bytes += end - off
	// What touches the new one becomes a part of it.
	grown := extent{off, end}
	kept := make([]extent, 0, len(r.seen)+1)
	for _, e := range r.seen {
		if e.end < off || e.off > end {
			kept = append(kept, e)
			continue
		}
		grown = extent{min(grown.off, e.off), max(grown.end, e.end)}
	}
	kept = append(kept, grown)
	slices.SortFunc(kept, func(a, b extent) int { return int(min(max(a.off-b.off, -1), 1)) })
	r.seen, r.Distinct = kept, 0
	for _, e := range kept {
		r.Distinct += e.end - e.off
	}
}

// startObjectStore runs the server with its files in dir, in a namespace joined to the hub, and the proxy in the hub.
func startObjectStore(ctx context.Context, hub *space, binary, dir string) (_ *ObjectStore, err error) {
	s := &ObjectStore{folder: filepath.Join(dir, "objects"), reads: make(map[string]*Reads), done: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := os.MkdirAll(filepath.Join(s.folder, bucketName), 0o700); err != nil {
		return nil, err
	}
	if s.space, err = newSpace(); err != nil {
		return nil, err
	}
	if s.link, err = join(hub, s.space, "objects", address(objectsAt)); err != nil {
		return nil, err
	}
	behind := net.JoinHostPort(address(objectsAt).String(), storePort)
	cmd := exec.Command(binary, "--quiet", "--keep-alive", "--port", behind, "posix", s.folder)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+accessKey, "ROOT_SECRET_ACCESS_KEY="+secretKey)
	if s.server, err = startProgram(s.space, cmd, filepath.Join(dir, "versitygw.log")); err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return hub.dial(ctx, behind) }
	err = s.server.await(ctx, func() bool {
		conn, err := dial(ctx, "", "")
		return err == nil && conn.Close() == nil
	})
	if err != nil {
		return nil, err
	}
	front := net.JoinHostPort(address(hubAt).String(), storePort)
	l, err := hub.listen(front)
	if err != nil {
		return nil, err
	}
	s.serve(l, behind, dial)
	s.url = "s3://" + bucketName + "/fleet?exclusive=yes&endpoint=" + url.QueryEscape("http://"+front)
	return s, nil
}

// serve runs the proxy.
func (s *ObjectStore) serve(l net.Listener, behind string, dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	transport := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 64, DisableCompression: true}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			// The signature is over the host's name that the client knows.
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", behind, r.In.Host
		},
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // clients that go away are none of our business
	}
	s.front = &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch s.refuse() {
		case Stopped:
			panic(http.ErrAbortHandler)
		case Unavailable:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case NoTrouble:
		}
		counted := &counter{ResponseWriter: w, store: s}
		defer func() { s.count(r, counted) }()
		proxy.ServeHTTP(counted, r)
	})}
	go func() {
		defer close(s.done)
		_ = s.front.Serve(l)
		transport.CloseIdleConnections()
	}()
}

// A counter counts what is sent of an object, and breaks off when the store gets into trouble.
type counter struct {
	http.ResponseWriter
	store  *ObjectStore
	status int
	bytes  int64
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(b []byte) (int, error) {
	if c.store.now() != NoTrouble {
		panic(http.ErrAbortHandler)
	}
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}

// Unwrap lets the proxy flush.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// count notes what was sent of an object for one request.
func (s *ObjectStore) count(r *http.Request, c *counter) {
	if r.Method != http.MethodGet || c.status != http.StatusOK && c.status != http.StatusPartialContent {
		return
	}
	var off int64
	if c.status == http.StatusPartialContent {
		span, _, _ := strings.Cut(strings.TrimPrefix(c.Header().Get("Content-Range"), "bytes "), "-")
		off, _ = strconv.ParseInt(span, 10, 64) // the server's, which is right
	}
	key := strings.TrimPrefix(r.URL.Path, "/"+bucketName+"/fleet/")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reads[key] == nil {
		s.reads[key] = &Reads{}
	}
	s.reads[key].add(off, off+c.bytes)
}

// refuse returns what is wrong, and counts the request if that is anything.
func (s *ObjectStore) refuse() Trouble {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble != NoTrouble {
		s.refused++
	}
	return s.trouble
}

// Refused returns how many requests came while the store was in trouble.
func (s *ObjectStore) Refused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

func (s *ObjectStore) now() Trouble {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// SetTrouble says what is wrong from now on. Answers under way break off.
func (s *ObjectStore) SetTrouble(t Trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = t
}

// TakeReads returns what was read of each object, by its key, since it was called the last time.
func (s *ObjectStore) TakeReads() map[string]*Reads {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.reads
	s.reads = make(map[string]*Reads)
	return was
}

// Sizes returns the sizes in bytes of all objects whose key begins with prefix, by their keys.
func (s *ObjectStore) Sizes(prefix string) (map[string]int64, error) {
	root := filepath.Join(s.folder, bucketName, "fleet")
	sizes := make(map[string]int64)
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if key := strings.TrimPrefix(path, root+"/"); strings.HasPrefix(key, prefix) {
			sizes[key] = info.Size()
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return sizes, err
}

// Folder is where the objects lie, as files.
func (s *ObjectStore) Folder() string { return s.folder }

// URL is what nodes know it by.
func (s *ObjectStore) URL() string { return s.url }

func credentials() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey}
}

func (s *ObjectStore) close() error {
	var errs []error
	if s.front != nil {
		errs = append(errs, s.front.Close())
		<-s.done
	}
	if s.server != nil {
		s.server.stop(syscall.SIGKILL) // it has nothing to lose
	}
	if s.space != nil {
		errs = append(errs, s.space.close())
	}
	return errors.Join(errs...)
}
