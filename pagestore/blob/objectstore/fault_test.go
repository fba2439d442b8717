package objectstore_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/blob/objectstore"
)

func TestAStoreWithoutConditionsIsABucketThatIsNotExclusive(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Bucket {
		b := newFake(t).bucket(t)
		t.Cleanup(func() {
			if b.Exclusive() {
				t.Error("the bucket says that it is exclusive")
			}
		})
		return b
	})
}

func TestTheFirstCreateFindsOutWhetherTheStoreKnowsConditions(t *testing.T) {
	const proof, key = "PUT /bucket/prefix/.thaw-exclusive", "/bucket/prefix/key"
	for _, test := range []struct {
		name       string
		conditions bool
		fault      http.HandlerFunc // of the first PUT
		setting    string
		want       []string // requests of a first Create
		exclusive  bool
	}{
		{"a store that knows them refuses the second", true, nil, "", []string{proof, proof, "PUT " + key}, true},
		{"a store that does not know them takes both", false, nil, "", []string{proof, proof, "HEAD " + key, "PUT " + key}, false},
		{"a store may say that it does not know them", true, answers(http.StatusNotImplemented, "NotImplemented"), "", []string{proof, "HEAD " + key, "PUT " + key}, false},
		{"the URL says that it does", true, nil, "exclusive=yes", []string{"PUT " + key}, true},
		{"the URL says that it does not", true, nil, "exclusive=no", []string{"HEAD " + key, "PUT " + key}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			f.conditions = test.conditions
			if test.fault != nil {
				f.fault = once(http.MethodPut, test.fault)
			}
			var settings []string
			if test.setting != "" {
				settings = append(settings, test.setting)
			}
			b := f.bucket(t, settings...)
			if err := b.Create(t.Context(), "key", strings.NewReader("x"), 1); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, f.seen()); diff != "" {
				t.Errorf("requests of the first Create (-want +got):\n%s", diff)
			}
			if b.Exclusive() != test.exclusive {
				t.Errorf("Exclusive is %t, want %t", b.Exclusive(), test.exclusive)
			}
			if err := b.Create(t.Context(), "key", strings.NewReader("y"), 1); !errors.Is(err, blob.ErrExists) {
				t.Errorf("the second Create: %v", err)
			}
			if got := f.seen(); len(got) != 1 {
				t.Errorf("the second Create made the requests %q", got)
			}
		})
	}
}

func TestAProofThatFailsIsTriedAgain(t *testing.T) {
	f := newFake(t)
	f.conditions = true
	f.fault = once(http.MethodPut, answers(http.StatusServiceUnavailable, "SlowDown"))
	b := f.bucket(t)
	if err := b.Create(t.Context(), "key", strings.NewReader("x"), 1); !errors.Is(err, blob.ErrBusy) || b.Exclusive() {
		t.Errorf("the first Create: %v; Exclusive is %t", err, b.Exclusive())
	}
	if err := b.Create(t.Context(), "key", strings.NewReader("x"), 1); err != nil || !b.Exclusive() {
		t.Errorf("the second Create: %v; Exclusive is %t", err, b.Exclusive())
	}
}

func TestAnswersBecomeErrorsOfBlobAndNothingIsTriedTwice(t *testing.T) {
	for _, test := range []struct {
		status int
		code   string
		want   error // nil: none of blob's
	}{
		{http.StatusServiceUnavailable, "SlowDown", blob.ErrBusy},
		{http.StatusServiceUnavailable, "", blob.ErrBusy},
		{http.StatusTooManyRequests, "", blob.ErrBusy},
		{http.StatusConflict, "ConditionalRequestConflict", blob.ErrBusy},
		{http.StatusForbidden, "AccessDenied", blob.ErrDenied},
		{http.StatusForbidden, "SignatureDoesNotMatch", blob.ErrDenied},
		{http.StatusUnauthorized, "", blob.ErrDenied},
		{http.StatusNotFound, "NoSuchKey", blob.ErrNotFound},
		{http.StatusNotFound, "NoSuchBucket", nil},
		{http.StatusInsufficientStorage, "", blob.ErrNoSpace},
		{http.StatusForbidden, "QuotaExceeded", blob.ErrNoSpace},
		{http.StatusInternalServerError, "InternalError", nil},
		{http.StatusBadGateway, "", nil},
		{http.StatusGatewayTimeout, "", nil},
	} {
		t.Run(http.StatusText(test.status)+" "+test.code, func(t *testing.T) {
			f := newFake(t)
			f.fault = func(w http.ResponseWriter, r *http.Request) bool {
				answers(test.status, test.code)(w, r)
				return true
			}
			b := f.bucket(t, "exclusive=yes")
			for what, call := range map[string]func() error{
				"Open":    func() error { _, err := blobtest.Read(t.Context(), b, "key", 1, 2); return err },
				"Create":  func() error { return b.Create(t.Context(), "key", strings.NewReader("x"), 1) },
				"Replace": func() error { return b.Replace(t.Context(), "key", strings.NewReader("x"), 1) },
				"List":    func() error { _, err := blobtest.Keys(t.Context(), b, ""); return err },
			} {
				if err := call(); !is(err, test.want) {
					t.Errorf("%s: error is %v, want %v", what, err, test.want)
				}
				if got := f.seen(); len(got) != 1 {
					t.Errorf("%s made the requests %q", what, got)
				}
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("another server was asked for %v", r.URL)
	}))
	t.Cleanup(other.Close)
	f := newFake(t)
	f.fault = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		return true
	}
	if _, err := blobtest.Read(t.Context(), f.bucket(t), "key", 0, -1); !is(err, nil) {
		t.Errorf("error is %v", err)
	}
}

func TestABodyThatEndsEarlyIsAnError(t *testing.T) {
	for name, headers := range map[string]func(h http.Header){
		"of a range": func(h http.Header) {
			h.Set("Content-Range", "bytes 10-109/1000")
			h.Set("Content-Length", "100")
		},
		"without a length": func(h http.Header) { h.Set("Content-Range", "bytes 10-109/1000") },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.fault = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
				headers(w.Header())
				w.WriteHeader(http.StatusPartialContent)
				_, _ = io.WriteString(w, strings.Repeat("x", 60))
				return true
			}
			got, err := blobtest.Read(t.Context(), f.bucket(t), "key", 10, 100)
			if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 60 {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestAnAnswerWithAnotherRangeIsRefused(t *testing.T) {
	for name, answer := range map[string]struct {
		status int
		value  string
	}{
		"none, the whole object":  {http.StatusOK, ""},
		"one that begins earlier": {http.StatusPartialContent, "bytes 0-9/100"},
		"one that begins later":   {http.StatusPartialContent, "bytes 11-20/100"},
		"one that ends early":     {http.StatusPartialContent, "bytes 10-18/100"},
		"one that ends late":      {http.StatusPartialContent, "bytes 10-20/100"},
		"one of an unknown size":  {http.StatusPartialContent, "bytes 10-19/*"},
		"nonsense":                {http.StatusPartialContent, "bytes ten"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.fault = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
				if answer.value != "" {
					w.Header().Set("Content-Range", answer.value)
				}
				w.WriteHeader(answer.status)
				_, _ = io.WriteString(w, strings.Repeat("x", 10))
				return true
			}
			if _, err := blobtest.Read(t.Context(), f.bucket(t), "key", 10, 10); !errors.Is(err, objectstore.ErrAnswer) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// stall tells a test that the answer has come as far as it will, and holds it there until the client is gone.
func stall(w http.ResponseWriter, r *http.Request, reached chan<- struct{}) {
	_ = http.NewResponseController(w).Flush()
	close(reached)
	<-r.Context().Done()
}

func TestAStoreThatStallsIsLeftWhenTheContextEnds(t *testing.T) {
	for name, before := range map[string]func(w http.ResponseWriter){
		"in the middle of a body": func(w http.ResponseWriter) {
			w.Header().Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "some")
		},
		"after the header": func(w http.ResponseWriter) {
			w.Header().Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusOK)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			reached := make(chan struct{})
			f.fault = func(w http.ResponseWriter, r *http.Request) bool {
				before(w)
				stall(w, r, reached)
				return true
			}
			wantCancelled(t, reached, func(ctx context.Context) error {
				_, err := blobtest.Read(ctx, f.bucket(t), "key", 0, -1)
				return err
			})
		})
	}
	t.Run("before the header", func(t *testing.T) {
		f := newFake(t)
		var reached chan struct{}
		f.fault = func(_ http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client is gone
			close(reached)
			<-r.Context().Done()
			return true
		}
		b := f.bucket(t, "exclusive=yes")
		for _, call := range []func(ctx context.Context) error{
			func(ctx context.Context) error { _, err := b.Size(ctx, "key"); return err },
			func(ctx context.Context) error { _, err := b.Open(ctx, "key", 0, -1); return err },
			func(ctx context.Context) error { return b.Create(ctx, "key", strings.NewReader("x"), 1) },
			func(ctx context.Context) error { return b.Replace(ctx, "key", strings.NewReader("x"), 1) },
			func(ctx context.Context) error { return b.Delete(ctx, "key") },
			func(ctx context.Context) error { _, err := blobtest.Keys(ctx, b, ""); return err },
		} {
			reached = make(chan struct{})
			wantCancelled(t, reached, call)
		}
	})
}

// wantCancelled runs call, and ends its context once the store has reached what it will reach.
func wantCancelled(t *testing.T, reached <-chan struct{}, call func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() { done <- call(ctx) }()
	<-reached
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestAStoreThatIsDownIsAnError(t *testing.T) {
	f := newFake(t)
	b := f.bucket(t)
	f.server.Close()
	_, err := b.Size(t.Context(), "key")
	if !is(err, nil) {
		t.Errorf("size: %v", err)
	}
	if err := b.Create(t.Context(), "key", strings.NewReader("x"), 1); !is(err, nil) {
		t.Errorf("create: %v", err)
	}
}
