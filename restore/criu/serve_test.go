package criu

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
	"thaw/restore"
	"thaw/uffd"
)

// A client plays CRIU.
type client struct {
	t *testing.T
	*net.UnixConn
}

func (c *client) pid(pid int32) {
	c.t.Helper()
	_, err := c.Write(binary.NativeEndian.AppendUint32(nil, uint32(pid)))
	must(c.t, err)
}

// fds sends one byte with descriptors, which it closes.
func (c *client) fds(fds ...int) {
	c.t.Helper()
	_, _, err := c.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil)
	must(c.t, err)
	for _, fd := range fds {
		must(c.t, unix.Close(fd))
	}
}

// task sends what a restored task does.
func (c *client) task(pid int32) {
	c.t.Helper()
	c.pid(pid)
	c.fds(newUffd(c.t))
}

func newUffd(t *testing.T) int {
	t.Helper()
	f, err := uffd.Open(&uffd.Options{})
	must(t, err)
	defer f.Close()
	fd, err := unix.FcntlInt(uintptr(f.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	return fd
}

func newFile(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	return fd
}

// noPages is the source of an image without pages.
type noPages struct{}

func (noPages) Ready(uint64, int) ([]byte, int)       { return nil, 0 }
func (noPages) Load(uint64, int) ([]byte, int, error) { return nil, 0, errors.New("no pages") }
func (noPages) Prefetch(uint64, uint64)               {}

// serveClient serves a client that says what say says, and returns what Serve and Run return.
func serveClient(t *testing.T, ctx context.Context, layouts map[int]restore.Layout, say func(*client)) (served, ran error) {
	t.Helper()
	path := socketPath(t)
	l, err := Listen(path)
	must(t, err)
	session, err := restore.NewSession(&restore.Options{Source: noPages{}})
	must(t, err)
	done := make(chan error, 1)
	run := make(chan error, 1)
	go func() { done <- Serve(ctx, l, session, layouts) }()
	go func() { run <- session.Run(ctx) }()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	must(t, err)
	say(&client{t, conn})
	conn.Close()
	served, ran = <-done, <-run
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
	return served, ran
}

func TestServeTakesWhatCRIUSends(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	for _, tc := range []struct {
		name string
		say  func(*client)
	}{
		{"tasks in any order, a zombie, the end", func(c *client) { c.task(11); c.pid(-12); c.task(10); c.pid(finished) }},
		{"bytes one by one", func(c *client) {
			c.task(10)
			for _, pid := range []int32{11} {
				for _, b := range binary.NativeEndian.AppendUint32(nil, uint32(pid)) {
					_, err := c.Write([]byte{b})
					must(t, err)
				}
			}
			c.fds(newUffd(t))
			c.pid(finished)
		}},
		{"whatever comes after the end", func(c *client) {
			c.task(10)
			c.task(11)
			c.pid(finished)
			c.Write([]byte("garbage"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			served, ran := serveClient(t, t.Context(), map[int]restore.Layout{10: {}, 11: {}}, tc.say)
			if served != nil || ran != nil {
				t.Errorf("served: %v, ran: %v", served, ran)
			}
		})
	}
}

func TestServeRefusesWhatCRIUDoesNotSend(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	for _, tc := range []struct {
		name string
		say  func(*client)
		is   error
		says string
	}{
		{"nothing", func(c *client) {}, ErrRestoreFailed, "before the restore was finished"},
		{"half a pid", func(c *client) { c.Write([]byte{1, 0}) }, ErrRestoreFailed, ""},
		{"a pid and no more", func(c *client) { c.pid(10) }, ErrRestoreFailed, "userfaultfd of task 10"},
		{"one of two tasks", func(c *client) { c.task(10) }, ErrRestoreFailed, ""},
		{"no descriptor", func(c *client) { c.pid(10); c.Write([]byte{0}) }, ErrProtocol, "task 10: lazy-pages protocol violated: peer sent 0 descriptors"},
		{"two descriptors", func(c *client) { c.pid(10); c.fds(newUffd(t), newUffd(t)) }, ErrProtocol, "peer sent 2 descriptors"},
		{"many descriptors", func(c *client) {
			c.pid(10)
			c.fds(newFile(t), newFile(t), newFile(t), newFile(t), newFile(t), newFile(t), newFile(t), newFile(t), newFile(t), newFile(t))
		}, ErrProtocol, "peer sent 10 descriptors"},
		{"a descriptor with the pid", func(c *client) {
			fd := newUffd(t)
			_, _, err := c.WriteMsgUnix([]byte{10, 0, 0, 0}, unix.UnixRights(fd), nil)
			must(t, errors.Join(err, unix.Close(fd)))
		}, ErrProtocol, "receive a pid: lazy-pages protocol violated: peer sent 1 descriptors"},
		{"a descriptor that is no userfaultfd", func(c *client) { c.pid(10); c.fds(newFile(t)) }, uffd.ErrNotUserfaultfd, "task 10"},
		{"a pid of 0", func(c *client) { c.pid(0) }, ErrProtocol, "pid 0"},
		{"a pid without an opposite", func(c *client) { c.pid(-1 << 31) }, ErrProtocol, "pid -2147483648"},
		{"a task of other images", func(c *client) { c.task(99) }, ErrProtocol, "task 99 is not in the images"},
		{"a task twice", func(c *client) { c.task(10); c.task(10) }, ErrProtocol, "task 10 came twice"},
		{"a zombie twice", func(c *client) { c.pid(-12); c.pid(-12) }, ErrProtocol, "task 12 came twice"},
		{"a zombie that is alive", func(c *client) { c.pid(-10) }, ErrProtocol, "task 10 comes as a zombie"},
		{"the end before all tasks", func(c *client) { c.task(10); c.pid(finished) }, ErrProtocol, "task 11 never came"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			served, ran := serveClient(t, t.Context(), map[int]restore.Layout{10: {}, 11: {}}, tc.say)
			if !errors.Is(served, tc.is) || !strings.Contains(served.Error(), tc.says) {
				t.Errorf("Serve returns %v", served)
			}
			if !errors.Is(ran, restore.ErrAborted) || !errors.Is(ran, tc.is) {
				t.Errorf("Run returns %v", ran)
			}
		})
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	reason := errors.New("no more patience")
	for _, tc := range []struct {
		name string
		say  func(*client)
	}{
		{"before anything came", func(c *client) {}},
		{"between tasks", func(c *client) { c.task(10) }},
		{"inside a pid", func(c *client) { c.Write([]byte{1}) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			served, _ := serveClient(t, ctx, map[int]restore.Layout{10: {}, 11: {}}, func(c *client) {
				tc.say(c)
				cancel(reason)
				c.SetReadDeadline(time.Now().Add(time.Minute))
				c.Read(make([]byte, 1)) // until Serve closes the connection
			})
			if !errors.Is(served, reason) {
				t.Errorf("Serve returns %v", served)
			}
		})
	}
	t.Run("while nobody connects", func(t *testing.T) {
		l, err := Listen(socketPath(t))
		must(t, err)
		session, err := restore.NewSession(&restore.Options{Source: noPages{}})
		must(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		if err := Serve(ctx, l, session, nil); !errors.Is(err, reason) {
			t.Errorf("Serve returns %v", err)
		}
		if err := session.Run(t.Context()); !errors.Is(err, restore.ErrAborted) {
			t.Errorf("Run returns %v", err)
		}
	})
}

func TestTasksAreKnownByTheirPidHere(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	path := socketPath(t)
	l, err := Listen(path)
	must(t, err)
	defer l.Close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	must(t, err)
	defer conn.Close()
	(&client{t, conn}).task(10)
	server, err := l.accept(t.Context())
	must(t, err)
	defer server.Close()
	rec, err := readRecord(server)
	must(t, err)
	defer unix.Close(rec.fd)
	if rec.pid != 10 || rec.host != os.Getpid() {
		t.Errorf("record is %+v, and the test has pid %d", rec, os.Getpid())
	}
	pidfd := openPID(rec.host)
	if pidfd == nil {
		t.Fatal("there is no pidfd")
	}
	pidfd.Close()
	if openPID(0) != nil || openPID(1<<30) != nil {
		t.Error("there is a pidfd of no process")
	}
}
