package lazypages_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"thaw/internal/testenv"
	"thaw/restore/criu"
	"thaw/restore/criu/internal/criutest"
	"thaw/restore/criu/lazypages"
)

// asProgram makes the test binary behave as the stand-in, so that tests have a process to start.
const asProgram = "THAW_TEST_AS_LAZY_PAGES"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		opts := &lazypages.Options{Program: []string{"/proc/self/exe"}}
		os.Exit(lazypages.Run(os.Args[1:], os.Stdout, os.Stderr, opts))
	}
	testenv.Main(m)
}

// A server is the stand-in, running.
type server struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// command returns a command for the stand-in.
func command(t *testing.T, args ...string) *server {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{cmd: exec.Command(exe, args...)}
	s.cmd.Env = append(os.Environ(), asProgram+"=1")
	s.cmd.Stderr = &s.stderr
	return s
}

// start starts the stand-in and waits until it says on its status descriptor that the socket is there.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := command(t, append(args, "--status-fd", "3", "--no-default-config")...)
	s.cmd.ExtraFiles = []*os.File{w}
	err = s.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	})
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 2)
	if n, err := r.Read(buf); n != 1 || buf[0] != 0 {
		t.Fatalf("status descriptor: %d bytes % x, %v\n%s", n, buf[:n], err, &s.stderr)
	}
	return s
}

// exit waits for the stand-in and returns its exit code.
func (s *server) exit(t *testing.T) int {
	t.Helper()
	var ee *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

func freeze(t *testing.T, scenarios ...string) (*criutest.Target, string) {
	t.Helper()
	tg, dir := criutest.Start(t, scenarios...), t.TempDir()
	tg.Dump(t, dir)
	return tg, dir
}

func TestStandInServesPlainImages(t *testing.T) {
	tg, dir := freeze(t, "plain", "tree")
	s := start(t, "-D", dir, "-o", "lazy-pages.log", "-vvvv")
	tg.Go(t)
	r := criutest.Restore(t, dir, dir, "--lazy-pages")
	if err := r.Wait(t.Context()); err != nil {
		t.Errorf("criu restore: %v\n%s", err, r.Log())
	}
	if code := s.exit(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, &s.stderr)
	}
	tg.Check(t, 1, "root", "child", "grandchild")
	log, err := os.ReadFile(filepath.Join(dir, "lazy-pages.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "complete or gone") {
		t.Errorf("log file holds\n%s", log)
	}
}

func TestPageServer(t *testing.T) {
	tg, dir := freeze(t, "plain", "forks")
	port := freePort(t)
	ps := exec.Command(testenv.CRIU(t), "page-server", "--lazy-pages", "-D", dir, "--address", "127.0.0.1", "--port", strconv.Itoa(port),
		"-v4", "-o", "page-server.log", "--status-fd", "3")
	startCRIU(t, ps)
	work := t.TempDir()
	s := start(t, "-D", dir, "-W", work, "--page-server", "--address", "127.0.0.1", "--port", strconv.Itoa(port), "-v4")
	tg.Go(t)
	r := criutest.Restore(t, dir, work, "--lazy-pages")
	if err := r.Wait(t.Context()); err != nil {
		t.Errorf("criu restore: %v\n%s", err, r.Log())
	}
	if code := s.exit(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, &s.stderr)
	}
	if err := ps.Wait(); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "page-server.log"))
		t.Errorf("criu page-server: %v\n%s", err, log[max(0, len(log)-3000):])
	}
	tg.Check(t, 1, "root")
}

// startCRIU starts a server of CRIU's that reports on descriptor 3 that it listens.
func startCRIU(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := r.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("%v does not get ready: %v", cmd.Args, err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

var _ = criu.SocketName
