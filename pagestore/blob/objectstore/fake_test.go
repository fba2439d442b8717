package objectstore_test

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"thaw/pagestore/blob"
)

// fake is an object store in memory that does as it is told. It does not know If-None-Match unless conditions is set, and lists two objects at a time.
type fake struct {
	server     *httptest.Server
	conditions bool
	// fault answers a request in the fake's place if it returns true. nil: none.
	fault func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	objects  map[string][]byte // protected by mu
	requests []string          // protected by mu: method and path
}

func newFake(t *testing.T) *fake {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	f := &fake{objects: make(map[string][]byte)}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

// bucket opens the place in the fake's only bucket.
func (f *fake) bucket(t *testing.T, settings ...string) blob.Bucket {
	t.Helper()
	u := "s3://bucket/prefix?endpoint=" + url.QueryEscape(f.server.URL)
	for _, s := range settings {
		u += "&" + s
	}
	return open(t, u)
}

// seen returns what was asked since the last time.
func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.requests = nil }()
	return f.requests
}

// ServeHTTP implements http.Handler.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
	f.mu.Unlock()
	if f.fault != nil && f.fault(w, r) {
		return
	}
	key, ok := strings.CutPrefix(r.URL.Path, "/bucket/")
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "NoSuchBucket")
	case key == "":
		f.list(w, r.URL.Query())
	default:
		f.object(w, r, key)
	}
}

func (f *fake) object(w http.ResponseWriter, r *http.Request, key string) {
	var content []byte
	if r.Method == http.MethodPut {
		var err error
		if content, err = uploaded(r); err != nil {
			refuse(w, http.StatusBadRequest, "IncompleteBody")
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old, exists := f.objects[key]
	switch {
	case r.Method == http.MethodPut && exists && f.conditions && r.Header.Get("If-None-Match") == "*":
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
	case r.Method == http.MethodPut:
		f.objects[key] = content
	case r.Method == http.MethodDelete:
		delete(f.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case !exists:
		refuse(w, http.StatusNotFound, "NoSuchKey")
	default:
		w.Header().Set("ETag", `"tag"`)
		http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(old))
	}
}

// uploaded returns the content of an upload, of signed chunks perhaps.
func uploaded(r *http.Request) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(r.Body)
	}
	in := bufio.NewReader(r.Body)
	var out bytes.Buffer
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		length, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseInt(length, 16, 32)
		if err != nil {
			return nil, err
		}
		if _, err := io.CopyN(&out, in, n); err != nil {
			return nil, err
		}
		if _, err := in.Discard(len("\r\n")); err != nil {
			return nil, err
		}
		if n == 0 {
			return out.Bytes(), nil
		}
	}
}

func (f *fake) list(w http.ResponseWriter, query url.Values) {
	const page = 2
	type content struct {
		Key          string
		Size         int
		LastModified string
	}
	var out struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string
		Contents              []content
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if !strings.HasPrefix(key, query.Get("prefix")) || key <= query.Get("continuation-token") {
			continue
		}
		if len(out.Contents) == page {
			out.IsTruncated, out.NextContinuationToken = true, out.Contents[page-1].Key
			break
		}
		out.Contents = append(out.Contents, content{key, len(f.objects[key]), "2026-01-01T00:00:00.000Z"})
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(out)
}

// refuse answers with an error as S3 does.
func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: code, Message: "the fake says " + code})
}

// once returns a fault that comes with the first request that matches, and no other.
func once(method string, fault http.HandlerFunc) func(w http.ResponseWriter, r *http.Request) bool {
	var first sync.Once
	return func(w http.ResponseWriter, r *http.Request) (done bool) {
		if r.Method == method {
			first.Do(func() {
				done = true
				fault(w, r)
			})
		}
		return done
	}
}

// answers returns a fault of a status and a code.
func answers(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if code == "" {
			w.WriteHeader(status)
			return
		}
		refuse(w, status, code)
	}
}

// is reports whether err is one of blob's, or want is nil and it is none of them.
func is(err, want error) bool {
	if want != nil {
		return errors.Is(err, want)
	}
	for _, kind := range []error{blob.ErrNotFound, blob.ErrExists, blob.ErrRange, blob.ErrKey, blob.ErrDenied, blob.ErrBusy, blob.ErrNoSpace, blob.ErrSize} {
		if errors.Is(err, kind) {
			return false
		}
	}
	return err != nil
}
