package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// web is our end of a service that listens on the loopback interface of its container's network namespace. Each request has a
// connection of its own.
type web struct {
	trial *trial
	port  int
	next  Request // was put ahead
}

// ahead keeps the request. There is nobody to connect to before the container runs.
func (w *web) ahead(r Request) error {
	w.next = r
	return nil
}

// first makes the request that was put ahead. The service listens: restored sockets do from the moment they are there, which
// is before the runtime returns, and a service that starts anew has said so.
func (w *web) first(ctx context.Context) (*answer, time.Time, error) {
	conn, err := dialInside(w.trial.container.PID, w.port)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	a, at, err := exchange(conn, w.next)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, at, fmt.Errorf("post to %s: %w", w.next.Path, err)
	}
	return a, at, nil
}

// call makes a request. Connecting counts.
func (w *web) call(ctx context.Context, r Request) (*answer, time.Duration, error) {
	start := time.Now()
	w.next = r
	a, at, err := w.first(ctx)
	return a, at.Sub(start), err
}

// exchange sends a request and returns the answer with the time at which it was there.
func exchange(conn net.Conn, r Request) (*answer, time.Time, error) {
	request, err := http.NewRequest(http.MethodPost, "http://container"+r.Path, strings.NewReader(r.body()))
	if err != nil {
		return nil, time.Time{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Close = true
	if err := request.Write(conn); err != nil {
		return nil, time.Time{}, err
	}
	stream := bufio.NewReader(conn)
	response, err := http.ReadResponse(stream, request)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	at := time.Now()
	if err == nil {
		// Until the service has closed its end: a process with an open connection cannot be frozen.
		_, err = io.Copy(io.Discard, stream)
	}
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the service says %s: %.200q", response.Status, text)
	}
	return newAnswer(text), at, err
}

// dialInside connects to a port of the loopback interface that a process has in its network namespace.
func dialInside(pid, port int) (net.Conn, error) {
	fd, err := socketInside(pid)
	if err != nil {
		return nil, fmt.Errorf("make a socket in the network namespace of process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	// This does not wait for a peer: on a loopback interface the kernel is both ends.
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, fmt.Errorf("connect to port %d of process %d: %w", port, pid, err)
	}
	return net.FileConn(f)
}

// socketInside makes a TCP socket in the network namespace of a process. A socket stays in the namespace of the thread that made it,
// so that no other call needs to be made there.
func socketInside(pid int) (fd int, err error) {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return -1, err
	}
	defer theirs.Close()
	ours, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return -1, err
	}
	defer ours.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err == nil {
			fd, err = loopbackSocket()
		}
		// A thread that cannot come back stays locked, and ends with this goroutine.
		if unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return fd, err
}

// loopbackSocket makes a TCP socket in this thread's network namespace and sees to it that the loopback interface is up.
//
// It is not in a container that runc has restored: runc has CRIU leave the interfaces of a network namespace out, for they are whoever's
// who runs the container (runc 1.1, setEmptyNsMask).
func loopbackSocket() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := setLoopbackUp(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set the loopback interface up: %w", err)
	}
	return fd, nil
}

// setLoopbackUp sets the loopback interface of a socket's network namespace up, if it is not.
func setLoopbackUp(fd int) error {
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	flags := lo.Uint16()
	if flags&unix.IFF_UP != 0 {
		return nil
	}
	lo.SetUint16(flags | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
