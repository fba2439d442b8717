package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrSocketTaken says that a running server holds the socket path.
	ErrSocketTaken = errors.New("socket is taken by a running server")
	// ErrNotSocket says that something other than a socket has the path; it is left alone.
	ErrNotSocket = errors.New("path is taken by something that is not a socket")
	// ErrSocketName says that the path is longer than the kernel takes for a socket.
	ErrSocketName = errors.New("socket path is too long")
)

// Listen listens on a unix socket at path that its owner alone can use (mode 0600). The path's folder must exist.
//
// A socket that a server left behind when it was killed is replaced; one with a living server is [ErrSocketTaken]. Two
// servers that start at the same moment cannot both win: the path's owner holds a lock on path + ".lock" until the
// listener is closed. The lock file stays: removing it would let a third process lock a file that nobody can find.
func Listen(path string) (net.Listener, error) {
	// The size of sun_path, without the final zero byte. The kernel would only say "invalid argument".
	if most := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > most {
		return nil, fmt.Errorf("listen on %s: %w: %d bytes, and %d are possible", path, ErrSocketName, len(path), most)
	}
	lock, err := lockPath(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := listenLocked(path)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &listener{Listener: l, lock: lock}, nil
}

// listener is a unix listener that holds the lock of its path.
type listener struct {
	net.Listener
	lock *os.File
}

// Close unlinks the socket, then gives the path free.
func (l *listener) Close() error {
	err := l.Listener.Close()
	if closeErr := l.lock.Close(); err == nil && !errors.Is(closeErr, os.ErrClosed) {
		err = closeErr
	}
	return err
}

func lockPath(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrSocketTaken
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func listenLocked(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The mode of a socket file is the mode of the socket's own inode when it is bound. Setting it beforehand leaves
	// no moment in which others could connect, as a chmod after bind would.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if ctlErr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	return lc.Listen(context.Background(), "unix", path)
}

// removeStale removes a socket that nobody listens on. The lock says that no server of ours does; the connection asks
// for servers that know nothing of the lock.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return ErrNotSocket
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return ErrSocketTaken
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("find out whether the socket is in use: %w", err)
	}
	return os.Remove(path)
}
