package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// memory is a Backend that keeps its sessions in a map.
type memory struct {
	mu       sync.Mutex
	sessions map[string]Session
	draining bool
	marks    []Mark
	failWith error // what Create returns, if set
}

func (m *memory) Create(_ context.Context, r *SessionRequest) (*Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failWith != nil {
		return nil, m.failWith
	}
	s := Session{
		ID: fmt.Sprint("s", len(m.sessions)+1), Snapshot: r.Snapshot, ImagesDir: "/store/skeleton", WorkDir: "/run/w",
		Socket: "/run/w/lazy-pages.socket", Stream: StreamAll, RateBytesPerSecond: r.RateBytesPerSecond,
		State: StateWaiting, Created: time.Unix(1700000000, 0).UTC(), Counters: Counters{Faults: map[string]uint64{"installed": 3}},
	}
	if m.sessions == nil {
		m.sessions = map[string]Session{}
	}
	m.sessions[s.ID] = s
	return &s, nil
}

func (m *memory) Sessions() []Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Session
	for _, s := range m.sessions {
		out = append(out, s)
	}
	return out
}

func (m *memory) Session(id string) (*Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok {
		return nil, &Error{Code: CodeNotFound, Message: "there is no session " + id}
	}
	return &s, nil
}

func (m *memory) Delete(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.sessions[id]; !ok {
		return &Error{Code: CodeNotFound, Message: "there is no session " + id}
	}
	delete(m.sessions, id)
	return nil
}

func (m *memory) Mark(id string, mark Mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.sessions[id]; !ok {
		return &Error{Code: CodeNotFound, Message: "there is no session " + id}
	}
	m.marks = append(m.marks, mark)
	return nil
}

func (m *memory) Pull(_ context.Context, namespace, snapshot string, r *PullRequest) (*PullReport, error) {
	if snapshot == "gone" {
		return nil, &Error{Code: CodeSnapshotNotFound, Message: "no place knows it"}
	}
	return &PullReport{Snapshot: namespace + "/" + snapshot, Source: string(r.Mode)}, nil
}

func (m *memory) Tiers() (*Tiers, error) {
	return nil, &Error{Code: CodeNoTiers, Message: "there are no other places"}
}

func (m *memory) Drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.draining = true
}

func (m *memory) Health() Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := Health{Status: HealthOK, Version: "test", PID: 7, Store: "/store", Sessions: len(m.sessions)}
	if m.draining {
		h.Status = HealthDraining
	}
	return h
}

// serve runs the API over b on a socket in a temporary folder and returns a client of it.
func serve(t *testing.T, b Backend, opts *HandlerOptions) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "thawd.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error)
	go func() { ended <- Serve(ctx, l, NewHandler(b, opts), time.Second) }()
	c := NewClient(path)
	t.Cleanup(func() {
		c.Close()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return c
}

func TestClientAndServerAgreeOnALifeOfASession(t *testing.T) {
	ctx := t.Context()
	backend := &memory{}
	c := serve(t, backend, nil)

	made, err := c.CreateSession(ctx, &SessionRequest{Snapshot: "minilm", RateBytesPerSecond: 5})
	if err != nil {
		t.Fatal(err)
	}
	if made.Snapshot != "minilm" || made.State != StateWaiting || made.RateBytesPerSecond != 5 {
		t.Errorf("CreateSession returned %+v", made)
	}
	got, err := c.Session(ctx, made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, got); diff != "" {
		t.Errorf("Session differs from what CreateSession returned (-created +got):\n%s", diff)
	}
	list, err := c.Sessions(ctx)
	if err != nil || len(list) != 1 {
		t.Errorf("Sessions = %v, %v; want the one session", list, err)
	}
	if err := c.MarkSession(ctx, made.ID, MarkAnswered); err != nil {
		t.Errorf("MarkSession: %v", err)
	}
	if diff := cmp.Diff([]Mark{MarkAnswered}, backend.marks); diff != "" {
		t.Errorf("marks that the backend was told of (-want +got):\n%s", diff)
	}
	if err := c.MarkSession(ctx, made.ID, "stale"); !errors.Is(err, CodeInvalid) {
		t.Errorf("MarkSession with a mark that there is not: %v", err)
	}
	if err := c.MarkSession(ctx, "none", MarkReady); !errors.Is(err, CodeNotFound) {
		t.Errorf("MarkSession of a session that there is not: %v", err)
	}
	if err := c.DeleteSession(ctx, made.ID); err != nil {
		t.Errorf("DeleteSession: %v", err)
	}
	if _, err := c.Session(ctx, made.ID); !errors.Is(err, CodeNotFound) {
		t.Errorf("Session after DeleteSession: %v, want not found", err)
	}
	if h, err := c.Drain(ctx); err != nil || h.Status != HealthDraining {
		t.Errorf("Drain = %+v, %v; want status draining", h, err)
	}
	if h, err := c.Health(ctx); err != nil || h.Status != HealthDraining || h.PID != 7 {
		t.Errorf("Health = %+v, %v; want what the backend says", h, err)
	}
}

func TestErrorsKeepCodeMessageAndHintAcrossTheSocket(t *testing.T) {
	want := &Error{Code: CodeBeingRemoved, Message: "snapshot x is being removed", Hint: "wait"}
	c := serve(t, &memory{failWith: fmt.Errorf("create session: %w", want)}, nil)
	_, err := c.CreateSession(t.Context(), &SessionRequest{Snapshot: "x"})
	var got *Error
	if !errors.As(err, &got) {
		t.Fatalf("CreateSession: %v, want an Error", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error (-sent +received):\n%s", diff)
	}
	if !errors.Is(err, CodeBeingRemoved) {
		t.Errorf("errors.Is(%v, CodeBeingRemoved) is false", err)
	}
}

func TestBadRequestsAreRefusedWithTheirCode(t *testing.T) {
	h := NewHandler(&memory{}, nil)
	for _, tt := range []struct {
		name, method, path, body string
		want                     Code
		says                     string
	}{
		{"a body that is not JSON", "POST", "/v1/sessions", "snapshot=x", CodeInvalid, "invalid character"},
		{"no body", "POST", "/v1/sessions", "", CodeInvalid, "empty"},
		{"an unknown field", "POST", "/v1/sessions", `{"snapshot":"x","speed":1}`, CodeInvalid, "speed"},
		{"a field of the wrong type", "POST", "/v1/sessions", `{"snapshot":7}`, CodeInvalid, "snapshot"},
		{"a negative rate", "POST", "/v1/sessions", `{"snapshot":"x","rate_bytes_per_s":-1}`, CodeInvalid, "rate_bytes_per_s"},
		{"something after the object", "POST", "/v1/sessions", `{"snapshot":"x"} {}`, CodeInvalid, "more after"},
		{"a cut object", "POST", "/v1/sessions", `{"snapshot":"x"`, CodeInvalid, "unexpected EOF"},
		{"neither snapshot nor images", "POST", "/v1/sessions", `{}`, CodeInvalid, "neither"},
		{"both snapshot and images", "POST", "/v1/sessions", `{"snapshot":"x","images_dir":"/y"}`, CodeInvalid, "both"},
		{"relative images", "POST", "/v1/sessions", `{"images_dir":"y"}`, CodeInvalid, "absolute"},
		{"a relative work folder", "POST", "/v1/sessions", `{"snapshot":"x","work_dir":"w"}`, CodeInvalid, "absolute"},
		{"an unknown stream", "POST", "/v1/sessions", `{"snapshot":"x","stream":"hot"}`, CodeInvalid, "hot"},
		{"a body over the bound", "POST", "/v1/sessions", `{"snapshot":"` + strings.Repeat("x", MaxRequestBytes) + `"}`, CodeTooLarge, "larger"},
		{"space over the bound after the object", "POST", "/v1/sessions", `{"snapshot":"x"}` + strings.Repeat(" ", MaxRequestBytes), CodeTooLarge, "larger"},
		{"an unknown path", "GET", "/v2/sessions", "", CodeNotFound, "/v2/sessions"},
		{"an unknown session", "GET", "/v1/sessions/s9", "", CodeNotFound, "s9"},
		{"an unknown session to delete", "DELETE", "/v1/sessions/s9", "", CodeNotFound, "s9"},
		{"a wrong method", "PUT", "/v1/sessions", "{}", CodeMethod, "GET"},
		{"a wrong method on a session", "POST", "/v1/sessions/s1", "{}", CodeMethod, "DELETE"},
		{"metrics where nothing is measured", "GET", "/metrics", "", CodeNotFound, "measures nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
			var body ErrorBody
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatalf("the answer %q is no ErrorBody: %v", w.Body, err)
			}
			if body.Error.Code != tt.want || w.Code != tt.want.Status() {
				t.Errorf("code %s, status %d; want %s, %d (%s)", body.Error.Code, w.Code, tt.want, tt.want.Status(), body.Error.Message)
			}
			if !strings.Contains(body.Error.Message, tt.says) {
				t.Errorf("message %q does not say %q", body.Error.Message, tt.says)
			}
		})
	}
}

func TestWrongMethodNamesTheRightOnes(t *testing.T) {
	w := httptest.NewRecorder()
	NewHandler(&memory{}, nil).ServeHTTP(w, httptest.NewRequest("PUT", "/v1/sessions", nil))
	if got := w.Header().Get("Allow"); got != "POST, GET" {
		t.Errorf("Allow: %q, want POST, GET", got)
	}
}

func TestAnErrorThatIsNotOfTheAPIIsInternal(t *testing.T) {
	c := serve(t, &memory{failWith: errors.New("disk on fire")}, nil)
	_, err := c.CreateSession(t.Context(), &SessionRequest{Snapshot: "x"})
	if !errors.Is(err, CodeInternal) || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("CreateSession: %v, want an internal error that says why", err)
	}
}

func TestAnEmptyListIsAListAndNotNull(t *testing.T) {
	w := httptest.NewRecorder()
	NewHandler(&memory{}, nil).ServeHTTP(w, httptest.NewRequest("GET", "/v1/sessions", nil))
	if got := strings.TrimSpace(w.Body.String()); got != `{"sessions":[]}` {
		t.Errorf("GET /v1/sessions = %s, want an empty list", got)
	}
}

func TestMetricsComeFromTheGivenHandler(t *testing.T) {
	c := serve(t, &memory{}, &HandlerOptions{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "thaw_up 1\n")
	})})
	got, err := c.Metrics(t.Context())
	if err != nil || !bytes.Equal(got, []byte("thaw_up 1\n")) {
		t.Errorf("Metrics = %q, %v", got, err)
	}
}

func TestClientSaysThatAStrangerAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	ended := make(chan error)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-ended })
	c := NewClient(path)
	defer c.Close()
	_, err = c.Health(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeInternal || !strings.Contains(e.Message, "404 page not found") {
		t.Errorf("Health: %v, want an error that shows the answer", err)
	}
}

func TestServeReturnsTheErrorOfItsListener(t *testing.T) {
	l, err := Listen(filepath.Join(t.TempDir(), "thawd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Serve(t.Context(), l, NewHandler(&memory{}, nil), time.Second); err == nil {
		t.Error("Serve on a closed listener returned nil")
	}
}
