package criu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the name of the socket that `criu restore --lazy-pages` connects to, in its working folder: --work-dir,
// or else --images-dir. It is part of the protocol.
const SocketName = "lazy-pages.socket"

// A Listener is a lazy-pages socket that waits for one CRIU. It is safe for concurrent use.
type Listener struct {
	ul   *net.UnixListener
	dir  *os.File // the folder that the socket lies in
	base string   // its name there

	closeOnce sync.Once
	closeErr  error
}

// Listen makes a lazy-pages socket at path. A socket that nobody listens on any more is replaced.
//
// Returns ErrSocketTaken if somebody listens there, or path is something else than a socket; ErrSocketName if the
// name in its folder is too long (the folder's may have any length: CRIU connects to the name alone); an error that
// wraps fs.ErrPermission if the folder does not let us.
func Listen(path string) (*Listener, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func listen(path string) (*Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	l := &Listener{dir: dir, base: filepath.Base(path)}
	if err := l.bind(path); err != nil {
		dir.Close()
		return nil, err
	}
	return l, nil
}

// bind makes the socket. Only who holds the folder's lock replaces a stale one, so that two who find it stale cannot
// both remove it, and one of them remove the other's.
func (l *Listener) bind(path string) error {
	// The size of sun_path, without the final zero byte.
	const maxName = len(unix.RawSockaddrUnix{}.Path) - 1
	if len(path) > maxName {
		path = "/proc/self/fd/" + strconv.Itoa(int(l.dir.Fd())) + "/" + l.base
	}
	if len(path) > maxName {
		return fmt.Errorf("%w: %d bytes, and %d are possible", ErrSocketName, len(path), maxName)
	}
	err := l.tryBind(path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	if err := checkStale(path); err != nil {
		return err
	}
	if err := unix.Flock(int(l.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: somebody else has locked the folder to make it: %w", ErrSocketTaken, err)
	}
	defer unix.Flock(int(l.dir.Fd()), unix.LOCK_UN)
	if err := checkStale(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket that nobody listens on: %w", err)
	}
	if err := l.tryBind(path); !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	return fmt.Errorf("%w: somebody else was faster", ErrSocketTaken)
}

func (l *Listener) tryBind(path string) error {
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return err
	}
	ul.SetUnlinkOnClose(false) // Close does it, by the folder
	// A connection inherits this when it is accepted, so no message comes without its sender's credentials.
	if err := setPassCred(ul); err != nil {
		ul.Close()
		os.Remove(path)
		return err
	}
	l.ul = ul
	return nil
}

func setPassCred(ul *net.UnixListener) error {
	rc, err := ul.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := rc.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt SO_PASSCRED", serr)
}

// checkStale returns nil if path is a socket that nobody listens on.
//
// It knocks with a socket of another type: the kernel refuses that as well if somebody listens, with another error,
// and the listener does not notice. An ordinary connection would count as a restore that gave up.
func checkStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w: there is something else of that name", ErrSocketTaken)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil
	case err == nil, errors.Is(err, unix.EPROTOTYPE):
		return fmt.Errorf("%w: somebody listens on it", ErrSocketTaken)
	default:
		return fmt.Errorf("%w: it cannot be told whether somebody listens on it: %w", ErrSocketTaken, err)
	}
}

// accept waits for one connection.
func (l *Listener) accept(ctx context.Context) (*net.UnixConn, error) {
	stop := context.AfterFunc(ctx, func() { l.ul.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := l.ul.AcceptUnix()
	if ctx.Err() != nil {
		if err == nil {
			conn.Close()
		}
		return nil, context.Cause(ctx)
	}
	return conn, err
}

// Close removes the socket and stops waiting. Who has been accepted stays connected.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() {
		// In this order nobody ever finds a socket of ours that is not listened on.
		err := unix.Unlinkat(int(l.dir.Fd()), l.base, 0)
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
		l.closeErr = errors.Join(os.NewSyscallError("unlinkat", err), l.ul.Close(), l.dir.Close())
	})
	return l.closeErr
}
