package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) {
	if sums := os.Getenv(envTarget); sums != "" {
		target(sums)
	}
	if err := adoptOrphans(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "thaw-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// binaries is the folder that build fills.
var binaries string

// build builds thaw and thawd, once.
var build = sync.OnceValue(func() error {
	// Everybody may run them: some tests do so without root.
	if err := os.Chmod(binaries, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("go", "build", "-o", binaries, "thaw/cmd/thaw", "thaw/cmd/thawd").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return nil
})

// A place is a folder with a store and a socket of its own, and the environment that leads programs there.
type place struct {
	dir, store, socket string
	env                []string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: the path of a socket has room for 107 bytes.
	dir, err := os.MkdirTemp("", "thaw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &place{dir: dir, store: filepath.Join(dir, "store"), socket: filepath.Join(dir, "run", "thawd.sock")}
	p.env = append(os.Environ(), cli.EnvStore+"="+p.store, cli.EnvSocket+"="+p.socket, "TMPDIR="+dir)
	return p
}

// useCRIU makes the programs use the CRIU of the tests.
func (p *place) useCRIU(t *testing.T) {
	t.Helper()
	testenv.NeedUserfaultfd(t)
	p.env = append(p.env, cli.EnvCRIU+"="+testenv.CRIU(t))
}

// result is what a run of a program left.
type result struct {
	code           int
	stdout, stderr string
}

// command returns a run of a program that the test has yet to start.
func (p *place) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binaries, name), args...)
	cmd.Env = p.env
	return cmd
}

// thaw runs thaw to its end.
func (p *place) thaw(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, p.command("thaw", args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// What a restore leaves behind may hold the pipes.
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must runs thaw, which has to succeed, and decodes its JSON into v, if v is not nil.
func (p *place) must(t *testing.T, v any, args ...string) result {
	t.Helper()
	r := p.thaw(t, args...)
	if r.code != 0 {
		t.Fatalf("thaw %q: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
			t.Fatalf("thaw %q printed %q: %v", args, r.stdout, err)
		}
	}
	return r
}

// server is a thawd that runs.
type server struct {
	*control.Client
	cmd   *exec.Cmd
	log   *bytes.Buffer
	ended chan struct{} // closed when it has ended
}

// serve starts thawd and waits until it says to the service manager that it is ready.
func (p *place) serve(t *testing.T, args ...string) *server {
	t.Helper()
	ready := listenNotify(t)
	s := &server{cmd: p.command("thawd", append([]string{"serve", "--record-share", "0"}, args...)...), log: &bytes.Buffer{}, ended: make(chan struct{})}
	s.cmd.Env = append(s.cmd.Env, "NOTIFY_SOCKET="+ready.path)
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-s.ended
		s.Close()
		if t.Failed() {
			t.Logf("thawd's log:\n%s", s.log)
		}
	})
	s.Client = control.NewClient(p.socket)
	ready.await(t, "READY=1", s.ended)
	return s
}

// end sends thawd a signal and returns its exit code.
func (s *server) end(t *testing.T, sig syscall.Signal) int {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	return s.exitCode(t)
}

func (s *server) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		t.Fatal("thawd still runs")
	}
	return s.cmd.ProcessState.ExitCode()
}

// patience bounds what a test waits for.
const patience = time.Minute

// until asks again and again until done says that it is enough, or patience is over.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); !done(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func mustSessions(t *testing.T, s *server) []control.Session {
	t.Helper()
	all, err := s.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}
