package main

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// envTarget makes the test binary a process to be frozen; its value is the file that it writes sums to.
const envTarget = "THAW_TEST_TARGET"

// targetMemory is how much memory the target fills with bytes that do not repeat.
const targetMemory = 32 << 20

// targetExit is the exit code of a target that was told to end.
const targetExit = 7

// target fills memory, and then says its sum each time that it gets SIGUSR1, until SIGTERM ends it.
func target(sums string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	memory := make([]byte, targetMemory)
	rand.NewChaCha8([32]byte{1, 2, 3}).Read(memory)
	say(sums, "ready", memory)
	for s := range signals {
		if s == syscall.SIGTERM {
			os.Exit(targetExit)
		}
		say(sums, "again", memory)
	}
}

// say appends a line to the file, which is opened anew each time: a process that is frozen has few ties.
func say(path, word string, memory []byte) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s %x\n", word, sha256.Sum256(memory))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		os.Exit(1)
	}
}

// frozen is a target, first as our child, later as what a restore made of it. It keeps its number.
type frozen struct {
	pid  int
	sums string
	gone chan struct{} // closed when our child has ended
}

// startTarget starts a target in a session of its own, without a terminal, and waits until its memory is filled.
func startTarget(t *testing.T, p *place) *frozen {
	t.Helper()
	f := &frozen{sums: filepath.Join(p.dir, "sums"), gone: make(chan struct{})}
	cmd := exec.Command("/proc/self/exe")
	// Few threads and no garbage collection: the less it does the more its dumps are alike.
	cmd.Env = []string{envTarget + "=" + f.sums, "GOMAXPROCS=1", "GOGC=off"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.pid = cmd.Process.Pid
	go func() {
		cmd.Wait()
		close(f.gone)
	}()
	t.Cleanup(func() {
		f.kill(t)
		<-f.gone
	})
	until(t, "the target is ready", func() bool { return len(f.lines(t)) == 1 })
	return f
}

func (f *frozen) lines(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(f.sums)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// mustRemember fails the test unless the process, which has to run, has the memory that it had at first.
func (f *frozen) mustRemember(t *testing.T) {
	t.Helper()
	before := f.lines(t)
	if err := syscall.Kill(f.pid, syscall.SIGUSR1); err != nil {
		t.Fatalf("the process is not there: %v", err)
	}
	until(t, "the process says its sum", func() bool { return len(f.lines(t)) > len(before) })
	lines := f.lines(t)
	if got, want := strings.TrimPrefix(lines[len(lines)-1], "again "), strings.TrimPrefix(lines[0], "ready "); got != want {
		t.Errorf("the memory of the process has sum %s, want %s", got, want)
	}
}

// kill ends the process and waits until its number is free. A process that was restored in the background is our child
// when its runtime has ended, because TestMain adopts orphans.
func (f *frozen) kill(t *testing.T) {
	t.Helper()
	syscall.Kill(f.pid, syscall.SIGKILL)
	until(t, "the process is gone", func() bool {
		syscall.Wait4(f.pid, nil, syscall.WNOHANG, nil)
		return syscall.Kill(f.pid, 0) != nil
	})
}

// notifySocket is the service manager's end of sd_notify.
type notifySocket struct {
	path string
	conn *net.UnixConn
}

func listenNotify(t *testing.T) *notifySocket {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	n := &notifySocket{path: filepath.Join(dir, "s")}
	n.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.conn.Close()
		os.RemoveAll(dir)
	})
	return n
}

// await waits for a state; it fails the test if the program ends instead.
func (n *notifySocket) await(t *testing.T, state string, ended <-chan struct{}) {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		buf := make([]byte, 256)
		n.conn.SetReadDeadline(time.Now().Add(patience))
		size, _ := n.conn.Read(buf)
		got <- string(buf[:size])
	}()
	select {
	case s := <-got:
		if s != state {
			t.Fatalf("the service manager was told %q, want %q", s, state)
		}
	case <-ended:
		t.Fatal("the program ended before it was ready")
	}
}

// childOf reports whether the process is a child of parent.
func childOf(parent, pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The name, in parentheses, may hold anything; behind it are the state and the parent.
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	return len(fields) > 1 && fields[1] == fmt.Sprint(parent)
}
