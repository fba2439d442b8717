// Package objectstoretest runs an object store for tests: versitygw, an S3 server that keeps objects as files of a temporary folder.
package objectstoretest

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"thaw/internal/testenv"
)

// Credentials of the server's only user.
const (
	accessKey = "thaw-tests"
	secretKey = "thaw-tests-secret"
)

// Server is one that runs until the test ends.
type Server struct {
	// Endpoint is its URL.
	Endpoint string
	folder   string
}

// Start runs a server, and gives this process the credentials for it by its environment until the test ends; so the test cannot be a parallel one. It skips the test if
// there is no server to run.
func Start(tb testing.TB) *Server {
	tb.Helper()
	binary := testenv.S3Server(tb)
	tb.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	tb.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	s := &Server{folder: tb.TempDir()}
	for range 5 { // another process may take the port that was found to be free
		address := freeAddress(tb)
		if output, ok := s.run(tb, binary, address); ok {
			s.Endpoint = "http://" + address
			return s
		} else if tb.Context().Err() == nil {
			tb.Logf("%s at %s: %s", binary, address, output)
		}
	}
	tb.Fatalf("%s does not run", binary)
	return nil
}

func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run starts the server and waits until it accepts connections; it reports whether it does, or what the server said before it ended.
func (s *Server) run(tb testing.TB, binary, address string) (output string, ok bool) {
	tb.Helper()
	var out bytes.Buffer
	cmd := exec.Command(binary, "--quiet", "--keep-alive", "--port", address, "posix", s.folder)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+accessKey, "ROOT_SECRET_ACCESS_KEY="+secretKey)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	if accepts(tb.Context(), address, ended) {
		tb.Cleanup(stop)
		return "", true
	}
	stop()
	return out.String(), false
}

// accepts reports whether a connection can be made before ended is closed.
func accepts(ctx context.Context, address string, ended <-chan struct{}) bool {
	var dialer net.Dialer
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		if conn, err := dialer.DialContext(ctx, "tcp", address); err == nil {
			return conn.Close() == nil
		}
		select {
		case <-again.C:
		case <-ended:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// Bucket makes an empty bucket if there is none of that name, and returns the URL of a place in it; settings are further ones, such as "exclusive=no".
func (s *Server) Bucket(tb testing.TB, name, prefix string, settings ...string) string {
	tb.Helper()
	if err := os.MkdirAll(filepath.Join(s.folder, name), 0o755); err != nil {
		tb.Fatal(err)
	}
	u := "s3://" + name + "/" + prefix + "?endpoint=" + url.QueryEscape(s.Endpoint)
	for _, setting := range settings {
		u += "&" + setting
	}
	return u
}

// Env returns the environment that gives another process the credentials.
func (s *Server) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey}
}
