package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/internal/testenv"
)

// serve starts a service in our own network namespace and returns our end of it.
func serve(t *testing.T, handler http.HandlerFunc) *web {
	t.Helper()
	testenv.NeedRoot(t)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &web{
		trial: &trial{container: &checkpoint.Container{PID: os.Getpid()}},
		port:  server.Listener.Addr().(*net.TCPAddr).Port,
	}
}

func TestARequestIsPostedAndItsAnswerIsTheBody(t *testing.T) {
	w := serve(t, func(out http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.Method != http.MethodPost || r.URL.Path != "/search" || r.Header.Get("Content-Type") != "application/json" || !r.Close {
			t.Errorf("the service got %s %s with %v", r.Method, r.URL, r.Header)
		}
		out.Write(body)
	})
	// Twice: each has a connection of its own.
	for range 2 {
		a, took, err := w.call(t.Context(), Request{Path: "/search", Body: `{"words": "ice"}`})
		if err != nil || string(a.text) != `{"words": "ice"}` || took <= 0 {
			t.Fatalf("answer is %+v after %v, %v", a, took, err)
		}
	}
}

func TestAnAnswerThatIsNotOKIsAnErrorWithItsText(t *testing.T) {
	w := serve(t, func(out http.ResponseWriter, _ *http.Request) {
		http.Error(out, "no such product", http.StatusNotFound)
	})
	if _, _, err := w.call(t.Context(), Request{Path: "/invoice"}); err == nil || !strings.Contains(err.Error(), "no such product") {
		t.Errorf("call says %v", err)
	}
}

func TestAnAnswerThatBreaksOffIsAnError(t *testing.T) {
	w := serve(t, func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Content-Length", "100")
		out.Write([]byte("<p>"))
	})
	if a, _, err := w.call(t.Context(), Request{Path: "/invoice"}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("answer is %+v, %v", a, err)
	}
}

func TestWaitingForAServiceEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	w := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel(gone)
		<-r.Context().Done()
	})
	if _, _, err := w.call(ctx, Request{Path: "/invoice"}); !errors.Is(err, gone) {
		t.Errorf("call says %v", err)
	}
}

func TestALoopbackInterfaceThatIsDownIsSetUp(t *testing.T) {
	testenv.NeedRoot(t)
	sleep := exec.Command("sleep", "600")
	sleep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()
	// Of an interface that is down, the kernel says that the network is unreachable.
	if conn, err := dialInside(sleep.Process.Pid, 80); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connected to %v, %v", conn, err)
	}
}

func TestAServiceThatDoesNotListenIsNamed(t *testing.T) {
	w := serve(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.port = listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	if _, _, err := w.call(t.Context(), Request{Path: "/invoice"}); err == nil || !strings.Contains(err.Error(), "connect to port") {
		t.Errorf("call says %v", err)
	}
}
