package guard

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestABrokenServerIsADeadOne(t *testing.T) {
	for _, tt := range []struct {
		name string
		send func(t *testing.T, g *Guard, p *process) error
	}{
		{"noise", func(t *testing.T, g *Guard, p *process) error {
			_, err := g.conn.Write([]byte("noise of more than twelve bytes"))
			return err
		}},
		{"a packet that is too short", func(t *testing.T, g *Guard, p *process) error {
			_, err := g.conn.Write([]byte{version})
			return err
		}},
		{"a packet that is too long", func(t *testing.T, g *Guard, p *process) error {
			b := message{kind: kindHold, number: 2, fds: 1}.append(nil)
			_, err := g.conn.Write(append(b, make([]byte, 1<<15)...))
			return err
		}},
		{"an empty packet", func(t *testing.T, g *Guard, p *process) error {
			_, err := g.conn.Write(nil)
			return err
		}},
		{"a release of what is not held", func(t *testing.T, g *Guard, p *process) error {
			return g.sendLocked(message{kind: kindRelease, number: 7})
		}},
		{"a second hold of the same number", func(t *testing.T, g *Guard, p *process) error {
			return g.sendLocked(message{kind: kindHold, number: 1}, p.fd.Fd())
		}},
		{"an answer", func(t *testing.T, g *Guard, p *process) error {
			return g.sendLocked(message{kind: kindAnswer, number: 1})
		}},
		{"fewer descriptors than announced", func(t *testing.T, g *Guard, p *process) error {
			b := message{kind: kindHold, number: 2, fds: 2}.append(nil)
			_, _, err := g.conn.WriteMsgUnix(b, unix.UnixRights(p.fd.Fd()), nil)
			return err
		}},
		{"more descriptors than announced", func(t *testing.T, g *Guard, p *process) error {
			b := message{kind: kindRelease, number: 1}.append(nil)
			_, _, err := g.conn.WriteMsgUnix(b, unix.UnixRights(p.fd.Fd()), nil)
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := start(t)
			p := newProcess(t)
			p.holdBy(g)
			if err := tt.send(t, g, p); err != nil {
				t.Fatal(err)
			}
			await(t, p.Gone(), "the process's death")
			await(t, g.Done(), "the guard's end")
			if _, err := g.Hold(p.fd, p.pidfd, "late"); !errors.Is(err, ErrGone) {
				t.Errorf("Hold returned %v", err)
			}
		})
	}
}

func TestWhatIsNotAUserfaultfdIsRefused(t *testing.T) {
	g := start(t)
	g.mu.Lock()
	err := g.askLocked(message{kind: kindHold, number: 1}, []int{0})
	g.mu.Unlock()
	if err == nil || errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "not a userfaultfd") {
		t.Errorf("got error %v", err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

// The kernel reports the end of a peer that has left something unread as a reset, before all that it had sent.
func TestAServerThatDiesWithAnAnswerUnreadIsHeard(t *testing.T) {
	g := start(t)
	p, q := newProcess(t), newProcess(t)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.sendLocked(message{kind: kindHold, number: 1}, p.fd.Fd(), int(p.pidfd.Fd())); err != nil {
		t.Fatal(err)
	}
	awaitReadable(t, g)
	if err := g.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the guard stops", func() bool { return hasState(t, g.PID(), "T") })
	if err := g.sendLocked(message{kind: kindHold, number: 2}, q.fd.Fd(), int(q.pidfd.Fd())); err != nil {
		t.Fatal(err)
	}
	g.conn.Close()
	if err := g.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, p.Gone(), "the death of the first")
	await(t, q.Gone(), "the death of the second")
	await(t, g.Done(), "the guard's end")
	if g.err != nil {
		t.Error(g.err)
	}
}

func awaitReadable(t *testing.T, g *Guard) {
	t.Helper()
	raw, err := g.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Read(func(fd uintptr) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0
	})
	if err != nil {
		t.Fatal(err)
	}
}
