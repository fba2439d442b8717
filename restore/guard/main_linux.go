package guard

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"

	"golang.org/x/sys/unix"

	"thaw/internal/fdpass"
	"thaw/uffd"
)

const (
	// socketFD is where Start puts the socket.
	socketFD = 3

	// wantFiles is how many descriptors the guard would like to have. It needs two for each process, as the server does.
	wantFiles = 1 << 20

	// probeEvery is how often address spaces are looked after that nothing tells the end of, in milliseconds.
	probeEvery = 1000
)

// Main is the guard process, as Start runs it. It returns the exit code when its server is gone and nothing is held
// any more; see the package comment.
func Main() int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("guard", os.Getpid())
	conn, err := connOf(socketFD)
	if err != nil {
		fmt.Fprintf(os.Stderr, "guard: the memory server starts this, nobody else does: %v\n", err)
		return 2
	}
	defer conn.Close()
	settle(log)
	k := &keeper{conn: conn, log: log, held: make(map[uint64]*entry)}
	k.end(k.serve())
	return 0
}

// settle makes the process hard to kill and easy to have around. What it may not do is left as it is.
func settle(log *slog.Logger) {
	// Of the pipe, too: whoever read the server's log may be gone with it.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	runtime.GOMAXPROCS(1)
	// No file system is kept from being unmounted.
	if err := os.Chdir("/"); err != nil {
		log.Warn("cannot leave the working folder", "err", err)
	}
	// -1000 exempts from the OOM killer. Without the privilege the guard is as mortal as its server.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	more := unix.Rlimit{Cur: wantFiles, Max: wantFiles}
	if limit.Max >= wantFiles || unix.Setrlimit(unix.RLIMIT_NOFILE, &more) != nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}

// A keeper is the guard process's side: one goroutine, which owns everything.
type keeper struct {
	conn *net.UnixConn
	log  *slog.Logger
	held map[uint64]*entry // by the server's number
	buf  [maxMessage + 1]byte
}

// An entry is an address space that is held.
type entry struct {
	name   string
	fd     *uffd.FD
	pidfd  int  // -1: there is none, or it is of no use any more
	killed bool // by us
}

// serve does what the server says until it is gone. It returns nil if it went in good order.
func (k *keeper) serve() error {
	if err := k.send(message{kind: kindHello}); err != nil {
		return err
	}
	for {
		m, err := k.peek()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.ECONNRESET):
			// It died with an answer of ours unread. What it sent before is still to come.
			continue
		case err != nil:
			return err
		}
		if err := k.handle(m); err != nil {
			return err
		}
	}
}

// peek returns the next message without taking it, since its header says how many descriptors to expect.
func (k *keeper) peek() (message, error) {
	raw, err := k.conn.SyscallConn()
	if err != nil {
		return message{}, err
	}
	var n int
	var recvErr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, recvErr = unix.Recvfrom(int(fd), k.buf[:], unix.MSG_PEEK)
			if recvErr != unix.EINTR {
				return recvErr != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return message{}, err
	case recvErr != nil:
		return message{}, os.NewSyscallError("recvfrom", recvErr)
	case n == 0:
		return message{}, io.EOF
	}
	return parseMessage(k.buf[:n])
}

// handle takes the message that peek has returned. An error means that the server is not to be trusted any more.
func (k *keeper) handle(m message) error {
	e := k.held[m.number]
	got, err := fdpass.Receive(k.conn, k.buf[:], int(m.fds))
	switch {
	case m.kind == kindHold && errors.Is(err, fdpass.ErrTruncated):
		return k.answer(m.number, err)
	case err != nil:
		return err
	case m.kind == kindHold && e == nil:
		return k.answer(m.number, k.hold(m, got.FDs))
	case m.kind == kindRelease && e != nil:
		k.drop(m.number)
		return nil
	}
	return fmt.Errorf("%w: kind %d of process %d", errMalformed, m.kind, m.number)
}

// hold takes over the descriptors of a process. They are closed on error.
func (k *keeper) hold(m message, fds []int) error {
	e := &entry{name: m.text, pidfd: -1}
	if len(fds) == 2 {
		e.pidfd = fds[1]
	}
	var err error
	if e.fd, err = uffd.FromFD(fds[0]); err != nil {
		e.closePIDFD()
		return err
	}
	k.held[m.number] = e
	return nil
}

func (k *keeper) answer(number uint64, refused error) error {
	m := message{kind: kindAnswer, number: number}
	if refused != nil {
		m.text = refused.Error()
	}
	return k.send(m)
}

func (k *keeper) send(m message) error {
	_, err := k.conn.Write(m.append(k.buf[:0]))
	if errors.Is(err, unix.EPIPE) {
		return nil // the next message is the end
	}
	return err
}

// drop closes the descriptors of a process.
func (k *keeper) drop(number uint64) {
	e := k.held[number]
	delete(k.held, number)
	e.fd.Close()
	e.closePIDFD()
}

// end deals with what is held when the server is gone, and returns when nothing is held any more. All that can be
// killed is killed before anything else, logging too, is waited for.
func (k *keeper) end(cause error) {
	// A broken server that still lives shall notice.
	k.conn.Close()
	for _, e := range k.held {
		e.kill()
	}
	if cause != nil {
		k.log.Error("memory server is not to be trusted any more", "err", cause)
	}
	for _, e := range k.held {
		switch {
		case e.killed:
			k.log.Error("killed a process that missed memory: its memory server is gone", "process", e.name)
		case e.alive():
			k.log.Error("a process misses memory, and there is no handle to kill it: its threads wait until somebody does", "process", e.name)
		}
	}
	for k.sweep(); len(k.held) > 0; k.sweep() {
		k.pause()
	}
}

// sweep lets go of the address spaces that are gone.
func (k *keeper) sweep() {
	for number, e := range k.held {
		if !e.alive() {
			k.drop(number)
		}
	}
}

// pause waits until one process, any of them, has ended; but not for long.
func (k *keeper) pause() {
	for _, e := range k.held {
		if e.pidfd < 0 {
			continue
		}
		fds := []unix.PollFd{{Fd: int32(e.pidfd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, probeEvery); n > 0 && e.alive() {
			// Somebody else uses its memory. That has to be watched as if there were no pidfd.
			e.closePIDFD()
		}
		return
	}
	unix.Poll(nil, probeEvery) // an interruption only makes the next look come sooner
}

// kill kills the process if it still has the memory that is held for it, and a handle.
func (e *entry) kill() {
	if e.pidfd < 0 || !e.alive() {
		return
	}
	if err := unix.PidfdSendSignal(e.pidfd, unix.SIGKILL, nil, 0); err != nil {
		e.closePIDFD() // not permitted, or ended while another process uses its memory
		return
	}
	e.killed = true
}

func (e *entry) closePIDFD() {
	if e.pidfd >= 0 {
		// It was never written to: there is nothing that closing could fail to do.
		_ = unix.Close(e.pidfd)
		e.pidfd = -1
	}
}

// unreadable is a page that cannot be read, for probing.
var unreadable = func() []byte {
	b, err := unix.Mmap(-1, 0, uffd.PageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(fmt.Sprintf("map a page: %v", err)) // at start-up, out of address space
	}
	return b
}()

// alive reports whether the address space still exists: exit and exec end it. The probe is a copy that cannot succeed,
// for its source cannot be read; but of an address space that is gone the kernel says so first.
func (e *entry) alive() bool {
	const somewhere = 1 << 30 // any address that the kernel would take
	return e.fd.Copy(somewhere, unreadable, 0).Outcome != uffd.Gone
}
