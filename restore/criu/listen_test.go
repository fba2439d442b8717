package criu

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
)

func socketPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), SocketName)
}

func TestListenAndConnect(t *testing.T) {
	path := socketPath(t)
	l, err := Listen(path)
	must(t, err)
	c, err := net.Dial("unix", path)
	must(t, err)
	defer c.Close()
	conn, err := l.accept(t.Context())
	must(t, err)
	defer conn.Close()
	must(t, l.Close())
	must(t, l.Close())
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close there is still a socket: %v", err)
	}
}

func TestSocketThatSomebodyListensOnIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	first, err := Listen(path)
	must(t, err)
	defer first.Close()
	if _, err := Listen(path); !errors.Is(err, ErrSocketTaken) {
		t.Errorf("second Listen: %v", err)
	}
	// The first has not noticed: the next to connect is the first.
	c, err := net.Dial("unix", path)
	must(t, err)
	defer c.Close()
	_, err = c.Write([]byte{1})
	must(t, err)
	conn, err := first.accept(t.Context())
	must(t, err)
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("the first listener got a connection with %d bytes, %v", n, err)
	}
}

func TestSocketThatNobodyListensOnIsReplaced(t *testing.T) {
	path := socketPath(t)
	leaveStale(t, path)
	l, err := Listen(path)
	must(t, err)
	defer l.Close()
	c, err := net.Dial("unix", path)
	must(t, err)
	c.Close()
}

// leaveStale leaves a socket behind, as a killed server does.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	must(t, err)
	ul.SetUnlinkOnClose(false)
	must(t, ul.Close())
}

func TestOneOfManyGetsTheSocket(t *testing.T) {
	path := socketPath(t)
	leaveStale(t, path)
	var wg sync.WaitGroup
	got := make(chan *Listener, 16)
	for range cap(got) {
		wg.Go(func() {
			l, err := Listen(path)
			if err != nil && !errors.Is(err, ErrSocketTaken) {
				t.Error(err)
			}
			if err == nil {
				got <- l
			}
		})
	}
	wg.Wait()
	close(got)
	if len(got) != 1 {
		t.Errorf("%d have the socket", len(got))
	}
	for l := range got {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Errorf("nobody listens: %v", err)
		} else {
			c.Close()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestFileInTheWayIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	if _, err := Listen(path); !errors.Is(err, ErrSocketTaken) {
		t.Errorf("error is %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestFolderMayHaveALongName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 200))
	must(t, os.Mkdir(dir, 0o700))
	l, err := Listen(filepath.Join(dir, SocketName))
	must(t, err)
	defer l.Close()
	// CRIU connects to the bare name, from inside.
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	c, err := net.Dial("unix", filepath.Join("/proc/self/fd", itoa(int(f.Fd())), SocketName))
	must(t, err)
	c.Close()
	if _, err := Listen(filepath.Join(dir, SocketName)); !errors.Is(err, ErrSocketTaken) {
		t.Errorf("second Listen: %v", err)
	}
}

func TestSocketNameMayNotBeLong(t *testing.T) {
	if _, err := Listen(filepath.Join(t.TempDir(), strings.Repeat("x", 120))); !errors.Is(err, ErrSocketName) {
		t.Errorf("error is %v", err)
	}
}

func TestFolderOfTheSocketHasToBeThere(t *testing.T) {
	if _, err := Listen(filepath.Join(t.TempDir(), "missing", SocketName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

func TestFolderOfTheSocketHasToBeWritable(t *testing.T) {
	testenv.NeedRoot(t) // to become somebody else for a moment
	dir, err := os.MkdirTemp("/tmp", "thaw-test-")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o555))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, err = unix.SetfsuidRetUid(65534)
	must(t, err)
	defer unix.Setfsuid(0)
	if _, err := Listen(filepath.Join(dir, SocketName)); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error is %v", err)
	}
}
