//go:build linux

package uffd_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"thaw/internal/fdpass"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// accept connects the target to a socket of the test, as CRIU connects to its lazy-pages server.
func accept(t *testing.T, target *uffdtest.Target) (*net.UnixConn, uffdtest.Handle) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dial := target.Dial(path)
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := fdpass.PassCred(conn); err != nil {
		t.Fatal(err)
	}
	return conn, dial.Must()
}

func TestTargetHandsItsDescriptorOver(t *testing.T) {
	target, fd := startMissing(t, 1)
	conn, handle := accept(t, target)
	target.Send(handle, []byte{0}, 1).Must()
	m, err := fdpass.Receive(conn, make([]byte, 1), 1)
	if err != nil {
		t.Fatal(err)
	}
	received, err := uffd.FromFD(m.FDs[0])
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, received)
	if m.Cred == nil || int(m.Cred.Pid) != target.PID() {
		t.Errorf("credentials are %v, want those of process %d", m.Cred, target.PID())
	}

	// It is the same userfaultfd, and it outlives the copies of others.
	target.Drop().Must()
	if err := fd.Close(); err != nil {
		t.Fatal(err)
	}
	read := target.Read(pages(0, 1))
	awaitFault(t, received, page(0), 0)
	expect(t, received.Copy(page(0), content(1), 0), uffd.Done, uffd.PageSize)
	read.Must()
}

func TestTargetThatHandsOverTheWrongThings(t *testing.T) {
	target, _ := startMissing(t, 1)
	conn, handle := accept(t, target)
	for _, n := range []int{0, 2} {
		target.Send(handle, []byte{0}, n).Must()
		var count *fdpass.CountError
		if _, err := fdpass.Receive(conn, make([]byte, 1), 1); !errors.As(err, &count) || count.Got != n {
			t.Errorf("%d descriptors: got %v", n, err)
		}
	}
	target.Hangup(handle).Must()
	if _, err := fdpass.Receive(conn, make([]byte, 1), 1); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: got %v, want EOF", err)
	}
}
