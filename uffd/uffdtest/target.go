//go:build linux

package uffdtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"thaw/internal/testenv"
)

// Target is a process that obeys. It is safe for concurrent use; but the methods Must and Err of calls belong
// to the goroutine of the test.
type Target struct {
	tb    tester
	cmd   *exec.Cmd // nil of a forked child
	pid   int
	pidfd *os.File
	conn  *net.UnixConn
	gone  chan struct{} // closed when the channel to the target is

	closing sync.Once

	sending sync.Mutex // one request at a time

	mu      sync.Mutex
	next    uint64
	pending map[uint64]func(*reply, error) // nil once the channel is closed
}

// Start runs a target, and ends it when the test does. It skips the test if this machine cannot.
func Start(tb testing.TB) *Target {
	tb.Helper()
	testenv.NeedUserfaultfd(tb)
	testenv.NeedCC(tb)
	target, err := launch(tb, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(target.Close)
	return target
}

// Options change what Launch starts.
type Options struct {
	// Workers is how many commands of the target may execute at the same time. Default: 32.
	Workers int
}

// Launch runs a target for a program that is no test. The caller has to Close it, and must not use the methods that
// fail a test: of calls, Must and Err; of targets, Resident and PIDFD. They panic.
func Launch(o *Options) (*Target, error) {
	return launch(untested{}, o)
}

// tester is what a target needs of a testing.TB.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Cleanup(func())
}

// untested stands for the test where there is none.
type untested struct{}

func (untested) Helper()                           {}
func (untested) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (untested) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (untested) Cleanup(func())                    {}

func launch(tb tester, o *Options) (*Target, error) {
	path, err := program()
	if err != nil {
		return nil, err
	}
	conn, theirs, err := channel()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	if o != nil && o.Workers > 0 {
		cmd.Env = append(os.Environ(), fmt.Sprintf("TARGET_WORKERS=%d", o.Workers))
	}
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the target: %w", err)
	}
	target := newTarget(tb, conn, cmd.Process.Pid, pidfd)
	target.cmd = cmd
	return target, nil
}

// newTarget takes over the channel and the pidfd. Someone must call stop.
func newTarget(tb tester, conn *net.UnixConn, pid, pidfd int) *Target {
	t := &Target{
		tb:      tb,
		pid:     pid,
		pidfd:   os.NewFile(uintptr(pidfd), fmt.Sprintf("pidfd of %d", pid)),
		conn:    conn,
		gone:    make(chan struct{}),
		pending: make(map[uint64]func(*reply, error)),
	}
	go t.receive()
	return t
}

// channel makes both ends of a connection to a target.
func channel() (ours *net.UnixConn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(pair[1]), "target's end")
	file := os.NewFile(uintptr(pair[0]), "test's end")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// Close kills the target and waits until it has ended. A forked child is reaped by its parent. Close is idempotent.
func (t *Target) Close() {
	t.closing.Do(func() {
		t.Kill()
		t.conn.Close()
		<-t.gone
		t.pidfd.Close()
		if t.cmd != nil {
			// It was killed; how it ended says nothing.
			_ = t.cmd.Wait()
		}
	})
}

// PID returns the process id of the target.
func (t *Target) PID() int { return t.pid }

// PIDFD returns a new pidfd of the target, which the caller owns.
func (t *Target) PIDFD() *os.File {
	t.tb.Helper()
	file, err := t.DupPIDFD()
	if err != nil {
		t.tb.Fatal(err)
	}
	return file
}

// DupPIDFD is PIDFD for programs that are no tests.
func (t *Target) DupPIDFD() (*os.File, error) {
	fd, err := unix.FcntlInt(t.pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), t.pidfd.Name()), nil
}

// Kill sends SIGKILL. The process may take a moment to end: see Gone.
func (t *Target) Kill() {
	err := unix.PidfdSendSignal(int(t.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		t.tb.Errorf("kill target %d: %v", t.pid, err)
	}
}

// Gone is closed when the process has ended and its memory is released, or nearly so: the kernel gives up the
// memory first, then the descriptors.
func (t *Target) Gone() <-chan struct{} { return t.gone }

// receive hands replies to their calls until the channel closes.
func (t *Target) receive() {
	defer close(t.gone)
	for {
		r, err := receiveReply(t.conn)
		if err != nil {
			closeFD(r)
			t.fail()
			return
		}
		t.mu.Lock()
		finish := t.pending[r.id]
		delete(t.pending, r.id)
		t.mu.Unlock()
		if finish == nil {
			closeFD(r)
			t.tb.Errorf("target %d answers request %d, which is not under way", t.pid, r.id)
			continue
		}
		err = replyError(r)
		if err != nil {
			closeFD(r)
		}
		finish(r, err)
	}
}

// closeFD closes what came along with a reply that nobody wants.
func closeFD(r *reply) {
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
	}
}

func replyError(r *reply) error {
	switch {
	case r.signal != 0:
		return &SignalError{Signal: r.signal, Code: r.code, Addr: r.values[0]}
	case r.errno != 0:
		return r.errno
	}
	return nil
}

// fail ends all calls under way, and those to come.
func (t *Target) fail() {
	t.mu.Lock()
	pending := t.pending
	t.pending = nil
	t.mu.Unlock()
	for _, finish := range pending {
		finish(&reply{fd: -1}, ErrTargetGone)
	}
}

// start sends a request; finish is called with the answer, from another goroutine.
func (t *Target) start(r request, finish func(*reply, error)) {
	t.mu.Lock()
	if t.pending == nil {
		t.mu.Unlock()
		finish(&reply{fd: -1}, ErrTargetGone)
		return
	}
	t.next++
	r.id = t.next
	t.pending[r.id] = finish
	t.mu.Unlock()

	t.sending.Lock()
	defer t.sending.Unlock()
	// If this fails then so does the receiver, which ends the call.
	_ = r.send(t.conn)
}

// call starts a command whose answer convert makes sense of. convert owns the descriptor of the reply.
func call[T any](t *Target, r request, convert func(*reply) (T, error)) *Call[T] {
	c := newCall[T](t, r.op)
	t.start(r, func(r *reply, err error) {
		var value T
		if err == nil {
			value, err = convert(r)
		}
		c.finish(value, err)
	})
	return c
}

// Nothing is the answer of commands that have none.
type Nothing struct{}

func nothing(*reply) (Nothing, error) { return Nothing{}, nil }

func number(r *reply) (uint64, error) { return r.values[0], nil }
