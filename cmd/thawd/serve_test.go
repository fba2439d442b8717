package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"thaw/control"
	"thaw/daemon"
	"thaw/pagestore"
)

// newTestDaemon makes a daemon over an empty store, and the endpoint of its API.
func newTestDaemon(t *testing.T) (*daemon.Daemon, endpoint, *control.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "thawd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	store, err := pagestore.Create(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	d, err := daemon.New(&daemon.Options{Store: store, RunDir: filepath.Join(dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := control.NewClient(socket)
	t.Cleanup(c.Close)
	return d, endpoint{l, control.NewHandler(d, nil)}, c
}

var quiet = slog.New(slog.DiscardHandler)

func TestSignalsThatCloseATerminalOrEndAServiceDrain(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		d, _, _ := newTestDaemon(t)
		ended := make(chan error)
		go func() { ended <- d.Run(t.Context()) }()
		signals := catchSignals()
		ctx, cancel := context.WithCancel(t.Context())
		handled := make(chan struct{})
		go func() {
			handleSignals(ctx, signals, d, func(error) { t.Error("stopped at the first signal") }, quiet)
			close(handled)
		}()
		if err := syscall.Kill(os.Getpid(), sig.(syscall.Signal)); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("after %v Run returned %v", sig, err)
		}
		cancel()
		<-handled
	}
}

func TestTheDaemonsEndEndsItsEndpoints(t *testing.T) {
	d, api, c := newTestDaemon(t)
	ended := make(chan error)
	go func() { ended <- runAll(t.Context(), d, nil, quiet, []endpoint{api, {}}) }()
	if _, err := c.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("runAll: %v", err)
	}
	if _, err := c.Health(t.Context()); !errors.Is(err, control.CodeUnavailable) {
		t.Errorf("Health afterwards: %v, want unavailable", err)
	}
}

func TestAnEndpointThatFailsEndsTheDaemon(t *testing.T) {
	d, api, _ := newTestDaemon(t)
	broken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken.Close()
	if err := runAll(t.Context(), d, nil, quiet, []endpoint{api, {broken, http.NotFoundHandler()}}); err == nil {
		t.Error("runAll returned no error")
	}
}

func TestMetricsAreServedAloneOverTCP(t *testing.T) {
	d, api, _ := newTestDaemon(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "thaw_up 1\n") })
	ended := make(chan error)
	go func() { ended <- runAll(t.Context(), d, nil, quiet, []endpoint{api, {l, metricsOnly(metrics)}}) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for path, want := range map[string]int{"/metrics": http.StatusOK, "/v1/sessions": http.StatusNotFound} {
		resp, err := client.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s over TCP: status %d, want %d", path, resp.StatusCode, want)
		}
	}
	d.Drain()
	if err := <-ended; err != nil {
		t.Errorf("runAll: %v", err)
	}
}

func TestTheServiceManagerIsTold(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{filepath.Join(dir, "s"), "@thawd-test-" + filepath.Base(dir)} {
		t.Setenv("NOTIFY_SOCKET", name)
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: strings.Replace(name, "@", "\x00", 1), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		if err := notify("READY=1"); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 64)
		n, err := conn.Read(buf)
		if err != nil || string(buf[:n]) != "READY=1" {
			t.Errorf("told %q, %v", buf[:n], err)
		}
		conn.Close()
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notify("READY=1"); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "none"))
	if err := notify("READY=1"); err == nil {
		t.Error("a service manager that is not there was told")
	}
}

func TestThereAreMoreThreadsThanCPUs(t *testing.T) {
	if n := setProcs(); n < 4 {
		t.Errorf("GOMAXPROCS is %d, want at least 4", n)
	}
	files, err := raiseFileLimit()
	if err != nil || files == 0 {
		t.Errorf("raiseFileLimit = %d, %v", files, err)
	}
}

func TestFlagsThatNamePlacesMakeANode(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string // in the error; empty: a node
	}{
		"push to nowhere":          {[]string{"--push"}, "--object-store"},
		"peers without keys":       {[]string{"--peers", "a=h:1"}, "--peer-keys"},
		"nobody to ask":            {[]string{"--peer-listen", "127.0.0.1:0", "--peer-keys", "k"}, "--gossip"},
		"gossip without key":       {[]string{"--gossip", "127.0.0.1:0", "--peer-keys", "k"}, "--gossip-key"},
		"a size that is none":      {[]string{"--object-store", "file:///tmp/none", "--remote-bytes", "many"}, "--remote-bytes"},
		"no time for pages":        {[]string{"--object-store", "file:///tmp/none", "--page-deadline", "0"}, "--page-deadline"},
		"a folder as object store": {[]string{"--object-store", "file://" + t.TempDir() + "/bucket", "--push"}, ""},
		"nothing":                  {nil, ""},
	} {
		o := &serveOptions{store: filepath.Join(t.TempDir(), "store")}
		cmd := &cobra.Command{}
		o.tiers.add(cmd)
		if err := cmd.ParseFlags(tt.args); err != nil {
			t.Fatal(err)
		}
		if tt.args == nil {
			o.tiers.objectStore = "" // whatever the environment says
		}
		store, n, err := openStore(t.Context(), o, quiet)
		switch {
		case tt.want != "":
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case (n != nil) != (tt.args != nil):
			t.Errorf("%s: node %v", name, n)
		case n != nil:
			n.Close()
		default:
			store.Close()
		}
	}
}
