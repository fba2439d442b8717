package instance

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"thaw/control"
)

// lostTo returns what an instance has lost whose thawd answers so, and is there if there is an answer.
func lostTo(t *testing.T, status int, answer string) error {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "thawd.sock")
	if answer != "" {
		l, err := control.Listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/sessions/s1" {
				t.Errorf("thawd is asked for %s", r.URL.Path)
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(answer))
		})}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = server.Serve(l) }()
		defer func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			<-ended
		}()
	}
	thawd := control.NewClient(socket)
	defer thawd.Close()
	i := &Instance{session: "s1", shell: &shell{host: &Host{options: HostOptions{Thawd: thawd}}}}
	return i.Lost(t.Context())
}

func TestLostMemoryIsWhatThawdSays(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		status       int
		want         string // empty: nothing is lost
		noThawd      bool
	}{
		{name: "a session that serves", status: 200, answer: `{"id": "s1", "state": "serving"}`},
		{name: "a session that is complete", status: 200, answer: `{"id": "s1", "state": "complete"}`},
		{
			name: "a page that could not be had, while the session serves", status: 200, want: "page 7 of its memory could not be had: no such pack",
			answer: `{"id": "s1", "state": "serving", "failed_page": {"page": 7, "reason": "no such pack"}}`,
		},
		{name: "a session that failed", status: 200, answer: `{"id": "s1", "state": "failed", "error": "no handshake"}`, want: "no handshake"},
		{name: "a thawd that was started since", status: 404, answer: `{"error": {"code": "not_found", "message": "no"}}`, want: "no thawd", noThawd: true},
		{name: "no thawd", want: "no thawd", noThawd: true},
		{name: "a thawd that cannot say", status: 500, answer: `{"error": {"code": "internal", "message": "no"}}`},
	} {
		err := lostTo(t, c.status, c.answer)
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrNoThawd) != c.noThawd {
			t.Errorf("%s: Lost = %v, want %q", c.name, err, c.want)
		}
	}
	if err := (&Instance{}).Lost(t.Context()); err != nil {
		t.Errorf("one that was not restored: Lost = %v", err)
	}
}
