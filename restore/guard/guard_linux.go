package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/fdpass"
	"thaw/uffd"
)

var (
	// ErrGone is returned by Hold and Start, wrapped, if the guard has ended, or does not answer and was killed for it.
	ErrGone = errors.New("guard is gone")

	// ErrHeld is returned by Close, wrapped, if processes were not released before.
	ErrHeld = errors.New("processes were still held")
)

// answerTime is how long the guard may take. It answers within a millisecond unless it is stopped, or the machine swaps.
const answerTime = 30 * time.Second

// Options are the settings of a guard.
type Options struct {
	// Command is the program and its arguments. It must call Main. Default: this program, with the argument "guard".
	Command []string
}

// A Guard is a running guard process. It is safe for concurrent use.
type Guard struct {
	cmd     *exec.Cmd
	timeout time.Duration // immutable; answerTime, but for tests
	conn    *net.UnixConn // immutable; closed by Close
	done    chan struct{} // closed when the process has been reaped
	err     error         // how it ended; set before done is closed

	// mu is held from sending a hold until its answer has been read.
	mu     sync.Mutex
	next   uint64           // protected by mu; the number given last
	held   int              // protected by mu; not released yet
	closed bool             // protected by mu
	buf    [maxMessage]byte // protected by mu; of messages, either way
}

// Start runs a guard, and returns when it is ready. ctx bounds the start only: the guard lives until Close, or the end
// of this process, and outlives it as long as it has to. It has a session of its own, so neither a terminal nor a
// signal to our process group reaches it, and it ignores SIGTERM, SIGINT, SIGHUP and SIGQUIT. Standard error is
// inherited. nil options mean the defaults.
//
// A goroutine waits for the process; it ends with it.
func Start(ctx context.Context, opts *Options) (*Guard, error) {
	if opts == nil {
		opts = &Options{}
	}
	g := &Guard{cmd: command(opts.Command), timeout: answerTime, done: make(chan struct{})}
	if err := g.start(ctx); err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	return g, nil
}

func command(argv []string) *exec.Cmd {
	var cmd *exec.Cmd
	if len(argv) > 0 {
		cmd = exec.Command(argv[0], argv[1:]...)
	} else {
		// Not by its path, where another version may have been installed since.
		cmd = exec.Command("/proc/self/exe", "guard")
		cmd.Args[0] = os.Args[0]
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func (g *Guard) start(ctx context.Context) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "guard's end")
	defer theirs.Close()
	if g.conn, err = connOf(pair[0]); err != nil {
		return err
	}
	g.cmd.ExtraFiles = []*os.File{theirs}
	if err := g.cmd.Start(); err != nil {
		g.conn.Close()
		return err
	}
	go func() {
		g.err = g.cmd.Wait()
		close(g.done)
	}()
	theirs.Close() // or its end would go unnoticed
	if err := g.awaitHello(ctx); err != nil {
		// It holds nothing.
		g.cmd.Process.Kill()
		g.conn.Close()
		<-g.done
		return err
	}
	return nil
}

// connOf makes a connection of a socket, which it closes.
func connOf(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "socket of guard")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok || conn.LocalAddr().Network() != "unixpacket" {
		conn.Close()
		return nil, errors.New("not a socket of packets")
	}
	return unixConn, nil
}

func (g *Guard) awaitHello(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn.SetDeadline(time.Now().Add(g.timeout))
	stop := context.AfterFunc(ctx, func() { g.conn.SetDeadline(time.Unix(1, 0)) })
	m, err := g.receiveLocked()
	switch {
	case !stop(): // and its deadline may yet be set
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%w: no greeting: %w", ErrGone, err)
	case m.kind != kindHello:
		return fmt.Errorf("%w: greeting of kind %d", errMalformed, m.kind)
	}
	return nil
}

func (g *Guard) receiveLocked() (message, error) {
	m, err := fdpass.Receive(g.conn, g.buf[:], 0)
	if err != nil {
		return message{}, err
	}
	return parseMessage(g.buf[:m.N])
}

func (g *Guard) sendLocked(m message, fds ...int) error {
	g.conn.SetDeadline(time.Now().Add(g.timeout))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	m.fds = uint8(len(fds))
	_, _, err := g.conn.WriteMsgUnix(m.append(g.buf[:0]), rights, nil)
	return err
}

// PID returns the process id of the guard, for logs.
func (g *Guard) PID() int { return g.cmd.Process.Pid }

// Done is closed when the guard has ended. Processes are not protected from then on.
func (g *Guard) Done() <-chan struct{} { return g.done }

// Hold passes duplicates of a process's userfaultfd and pidfd to the guard. From its return on the process never
// reads zeros in the place of what is missing, whatever becomes of the caller. pidfd may be nil: then the process
// cannot be killed; see the package comment. name is for logs, and cut off at 256 bytes.
//
// The descriptors stay the caller's. It must not close them meanwhile.
//
// Call release when nothing is missing in the process any more, or when it is gone, and never before: the guard then
// closes its duplicates. Until it has, the userfaultfd stays in force: threads that touch empty pages wait although
// the caller has closed its own. release does not wait for that, returns without an error whatever happened, and may
// be called again. Call it just before closing the caller's descriptors: in the other order nothing is read wrongly
// either, but the caller's death in between would cost a complete process its life.
//
// Returns an error that wraps ErrGone if the guard has ended or was closed; any other error if it could not take this
// process: it is out of descriptors, for example.
//
// Hold takes about 0.1 ms, most of it the switching to the guard and back (2 cores, both busy).
func (g *Guard) Hold(fd *uffd.FD, pidfd *os.File, name string) (release func(), err error) {
	fds := []int{fd.Fd()}
	if pidfd != nil {
		fds = append(fds, int(pidfd.Fd()))
		defer runtime.KeepAlive(pidfd)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, fmt.Errorf("hold %s: %w", name, ErrGone)
	}
	g.next++
	number := g.next
	if err := g.askLocked(message{kind: kindHold, number: number, text: name}, fds); err != nil {
		return nil, fmt.Errorf("hold %s: %w", name, err)
	}
	g.held++
	return sync.OnceFunc(func() { g.release(number) }), nil
}

// askLocked sends a hold and waits for the answer.
func (g *Guard) askLocked(m message, fds []int) error {
	if err := g.sendLocked(m, fds...); err != nil {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, os.ErrDeadlineExceeded) {
			return g.lost(err)
		}
		return err // a packet is sent as a whole or not at all
	}
	answer, err := g.receiveLocked()
	switch {
	case err != nil:
		return g.lost(err)
	case answer.kind != kindAnswer || answer.number != m.number:
		return g.lost(fmt.Errorf("%w: answer of kind %d to %d, not %d", errMalformed, answer.kind, answer.number, m.number))
	case answer.text != "":
		return fmt.Errorf("guard refuses: %s", answer.text)
	}
	return nil
}

func (g *Guard) release(number uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.held--
	if err := g.sendLocked(message{kind: kindRelease, number: number}); err != nil {
		g.lost(err)
	}
}

// lost ends a guard that cannot be talked to. It may only be stopped, and would take our silence for our death when
// it goes on; and the userfaultfds that it cannot be told to close would keep complete processes waiting.
func (g *Guard) lost(cause error) error {
	g.cmd.Process.Kill()
	return fmt.Errorf("%w: %w", ErrGone, cause)
}

// Close ends the guard and waits until it has ended. It is idempotent, and waits for a Hold in progress.
//
// If processes have not been released, their guard deals with them as if the caller had died, and Close returns an
// error that wraps ErrHeld without waiting for that. It returns one that wraps ErrGone if the guard ended badly.
func (g *Guard) Close() error {
	g.mu.Lock()
	g.closed = true
	held := g.held
	g.conn.Close()
	g.mu.Unlock()
	select {
	case <-g.done:
	default:
		if held > 0 {
			return fmt.Errorf("close guard: %w: %d of them", ErrHeld, held)
		}
		<-g.done
	}
	if g.err != nil {
		return fmt.Errorf("close guard: %w: %w", ErrGone, g.err)
	}
	return nil
}
