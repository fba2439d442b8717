package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// patience only has to be longer than any machine needs.
const patience = 60 * time.Second

// start runs a guard of this process, which ends with the test.
func start(t testing.TB) *Guard {
	t.Helper()
	g, err := Start(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.cmd.Process.Kill()
		g.conn.Close()
		<-g.done
	})
	return g
}

func (p *process) holdBy(g *Guard) (release func()) {
	p.t.Helper()
	release, err := g.Hold(p.fd, p.pidfd, fmt.Sprintf("process %d", p.PID()))
	if err != nil {
		p.t.Fatal(err)
	}
	return release
}

func await(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// wantUnanswered fails the test if one of the reads got an answer, which can only have been zeros.
func wantUnanswered(t *testing.T, reads []*uffdtest.Call[[]uffdtest.Access]) {
	t.Helper()
	for _, r := range reads {
		if err := r.Err(); !errors.Is(err, uffdtest.ErrTargetGone) {
			t.Errorf("a read of a missing page was answered, with error %v", err)
		}
	}
}

// wantAlive fails the test if the process does not obey.
func wantAlive(t *testing.T, target *uffdtest.Target) {
	t.Helper()
	if err := target.Write(scratch.Start, []byte("alive")).Err(); err != nil {
		t.Errorf("process %d should be alive: %v", target.PID(), err)
	}
}

// wantBlocked fails the test unless the process lives, and its reads of missing pages wait.
func wantBlocked(t *testing.T, target *uffdtest.Target, reads []*uffdtest.Call[[]uffdtest.Access]) {
	t.Helper()
	for range 10 { // time for a thread that was woken to run
		wantAlive(t, target)
	}
	for i, resident := range target.Resident(region) {
		if resident {
			t.Errorf("page %d has come into being", i)
		}
	}
	for _, r := range reads {
		if r.Finished() {
			t.Error("a read of a missing page was answered")
		}
	}
}

func TestWithoutAGuardMissingPagesReadAsZeros(t *testing.T) {
	p := newProcess(t)
	reads := p.block(1)
	startServer(t, "unguarded", os.Stderr, p).kill()
	if got := reads[0].Must(); len(got) != int(region.Pages()) || got[0].Word != 0 {
		t.Errorf("read %v: then what is this package for?", got)
	}
}

func TestServerKilled(t *testing.T) {
	t.Run("a process dies in its faults, and reads nothing", func(t *testing.T) {
		p := newProcess(t)
		reads := p.block(16)
		s := startServer(t, "guarded", os.Stderr, p)
		s.kill()
		await(t, p.Gone(), "the process's death")
		wantUnanswered(t, reads)
		s.awaitGuard()
	})
	t.Run("a process that is not reading yet dies, too", func(t *testing.T) {
		p := newProcess(t)
		s := startServer(t, "guarded", os.Stderr, p)
		s.kill()
		await(t, p.Gone(), "the process's death")
		s.awaitGuard()
	})
	t.Run("a process waits while the guard is slow", func(t *testing.T) {
		p := newProcess(t)
		reads := p.block(16)
		s := startServer(t, "guarded", os.Stderr, p)
		s.signal(unix.SIGSTOP)
		eventually(t, "the guard stops", func() bool { return hasState(t, s.guard, "T") })
		s.kill()
		wantBlocked(t, p.Target, reads)
		s.signal(unix.SIGCONT)
		await(t, p.Gone(), "the process's death")
		wantUnanswered(t, reads)
		s.awaitGuard()
	})
	t.Run("a released process lives on", func(t *testing.T) {
		p, other := newProcess(t), newProcess(t)
		page := bytes.Repeat([]byte("thaw"), uffd.PageSize/4)
		if err := p.fd.Copy(region.Start, page, 0).Err(); err != nil {
			t.Fatal(err)
		}
		s := startServer(t, "guarded", os.Stderr, p, other)
		s.tell("release 0")
		s.kill()
		await(t, other.Gone(), "the death of the one that was not released")
		s.awaitGuard()
		if got := p.Read(uffd.Range{Start: region.Start, End: region.Start + uffd.PageSize}).Must(); !bytes.Equal(got, page) {
			t.Errorf("a page was lost: %q...", got[:8])
		}
	})
	t.Run("a process that has executed another program lives on", func(t *testing.T) {
		p := newProcess(t)
		s := startServer(t, "guarded", os.Stderr, p)
		p.Exec().Must()
		s.kill()
		s.awaitGuard()
		p.Map(scratch).Must()
		wantAlive(t, p.Target)
	})
	t.Run("a process in the middle of an event dies", func(t *testing.T) {
		p := newProcess(t)
		s := startServer(t, "guarded", os.Stderr, p)
		forked := p.Fork() // sleeps until somebody reads the message, which nobody does
		s.kill()
		await(t, p.Gone(), "the process's death")
		if _, err := forked.Wait(t.Context()); err == nil {
			t.Error("the process has forked")
		}
		s.awaitGuard()
	})
	t.Run("a child without a pidfd waits until it is killed", func(t *testing.T) {
		p := newProcess(t)
		s := startServer(t, "guarded", os.Stderr, p)
		forked := p.Fork()
		s.tell("fork 0")
		child := forked.Must()
		reads := child.Touch(region, 4, 1)
		s.kill()
		await(t, p.Gone(), "the parent's death")
		wantBlocked(t, child, reads)
		if hasState(t, s.guard, "Z") {
			t.Error("the guard has ended while a process needs it")
		}
		child.Kill()
		await(t, child.Gone(), "the child's death")
		wantUnanswered(t, reads)
		s.awaitGuard()
	})
	t.Run("many processes die at once", func(t *testing.T) {
		var all []*process
		var reads []*uffdtest.Call[[]uffdtest.Access]
		for range 20 {
			p := newProcess(t)
			all = append(all, p)
			reads = append(reads, p.block(2)...)
		}
		s := startServer(t, "guarded", os.Stderr, all...)
		s.kill()
		for _, p := range all {
			await(t, p.Gone(), "a process's death")
		}
		wantUnanswered(t, reads)
		s.awaitGuard()
	})
	t.Run("a log that nobody reads delays nothing", func(t *testing.T) {
		r, w := fullPipe(t)
		p := newProcess(t)
		reads := p.block(1)
		s := startServer(t, "guarded", w, p)
		s.kill()
		await(t, p.Gone(), "the process's death")
		wantUnanswered(t, reads)
		w.Close()
		r.Close() // the guard's line goes nowhere, which must not kill it
		s.awaitGuard()
	})
}

// fullPipe returns a pipe that the next byte will block on.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	size, err := unix.FcntlInt(w.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	return r, w
}

func TestTheGuardLogsWhomItKilled(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := newProcess(t)
	s := startServer(t, "guarded", w, p)
	w.Close()
	s.kill()
	s.awaitGuard()
	var log bytes.Buffer
	if _, err := log.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `process="process 0"`) {
		t.Errorf("log is %q", got)
	}
}

func TestTheGuardEndsOrderly(t *testing.T) {
	g := start(t)
	p := newProcess(t)
	release := p.holdBy(g)
	release()
	release()
	for range 2 {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	await(t, g.Done(), "Done after Close")
	release()
	if _, err := g.Hold(p.fd, p.pidfd, "late"); !errors.Is(err, ErrGone) {
		t.Errorf("Hold after Close: %v", err)
	}
	wantAlive(t, p.Target)
}

func TestCloseEndsWhatIsHeld(t *testing.T) {
	g := start(t)
	p := newProcess(t)
	release := p.holdBy(g)
	if err := g.Close(); !errors.Is(err, ErrHeld) {
		t.Errorf("Close returned %v", err)
	}
	await(t, p.Gone(), "the process's death")
	await(t, g.Done(), "the guard's end")
	release()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestReleaseLetsGoOfTheUserfaultfd(t *testing.T) {
	g := start(t)
	p := newProcess(t)
	reads := p.block(1)
	release := p.holdBy(g)
	p.fd.Close()
	wantBlocked(t, p.Target, reads)
	release()
	if got := reads[0].Must(); got[0].Word != 0 {
		t.Errorf("read %v", got)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestGuardKilled(t *testing.T) {
	g := start(t)
	p := newProcess(t)
	reads := p.block(1)
	release := p.holdBy(g)
	if err := unix.Kill(g.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, g.Done(), "Done")
	if _, err := g.Hold(p.fd, p.pidfd, "late"); !errors.Is(err, ErrGone) {
		t.Errorf("Hold returned %v", err)
	}
	wantBlocked(t, p.Target, reads)
	release()

	next := start(t)
	release = p.holdBy(next)
	wantBlocked(t, p.Target, reads)
	release()
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if err := g.Close(); !errors.Is(err, ErrGone) {
		t.Errorf("Close returned %v", err)
	}
}

func TestAGuardThatDoesNotAnswerIsGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		act  func(t *testing.T, g *Guard, p *process, release func())
	}{
		{"by Hold", func(t *testing.T, g *Guard, p *process, _ func()) {
			if _, err := g.Hold(p.fd, p.pidfd, "more"); !errors.Is(err, ErrGone) {
				t.Errorf("Hold returned %v", err)
			}
		}},
		{"by release, when its socket is full", func(t *testing.T, g *Guard, p *process, release func()) {
			eventually(t, "the socket is full", func() bool {
				g.mu.Lock()
				defer g.mu.Unlock()
				return g.sendLocked(message{kind: kindRelease, number: 1}) != nil
			})
			release()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := start(t)
			p := newProcess(t)
			release := p.holdBy(g)
			if err := g.cmd.Process.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the guard stops", func() bool { return hasState(t, g.PID(), "T") })
			g.timeout = 10 * time.Millisecond
			tt.act(t, g, p, release)
			await(t, g.Done(), "Done")
			wantAlive(t, p.Target)
		})
	}
}

func TestSignalsDoNotReachTheGuard(t *testing.T) {
	g := start(t)
	p := newProcess(t)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
		if err := g.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		p.holdBy(g)()
	}
	if sid, err := unix.Getsid(g.PID()); err != nil || sid != g.PID() {
		t.Errorf("session %d of guard %d, error %v", sid, g.PID(), err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestAProcessWithoutRoomIsRefused(t *testing.T) {
	g := start(t)
	p := newProcess(t)
	release := p.holdBy(g)
	var before unix.Rlimit
	if err := unix.Prlimit(g.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 100}, &before); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Hold(p.fd, p.pidfd, "more"); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("Hold returned %v", err)
	}
	if err := unix.Prlimit(g.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100}, nil); err != nil {
		t.Fatal(err)
	}
	p.holdBy(g)()
	release()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheGuardHasRoomForThousands(t *testing.T) {
	g := start(t)
	p := newProcess(t)
	var limit unix.Rlimit
	if err := unix.Prlimit(g.PID(), unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	n := min(3000, int(limit.Cur/2)-10)
	releases := make([]func(), n)
	for i := range releases {
		releases[i] = p.holdBy(g)
	}
	for _, release := range releases[1:] {
		release()
	}
	g.Close()
	await(t, p.Gone(), "the process's death")
	await(t, g.Done(), "the guard's end")
}

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
			return errors.Join(err, g.conn.CloseWrite())
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

func TestAGuardThatDoesNotStart(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		command []string
		want    error
	}{
		{"there is no such program", t.Context(), []string{"/nonexistent"}, os.ErrNotExist},
		{"it ends without a word", t.Context(), []string{"/bin/true"}, ErrGone},
		{"it says nothing until the context ends", canceled, []string{"/bin/sleep", "1000"}, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Start(tt.ctx, &Options{Command: tt.command}); !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestStartedByHandItSaysSo(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, tt := range []struct {
		name  string
		files []*os.File
	}{
		{"without a socket", nil},
		{"with something else in its place", []*os.File{w}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "guard")
			cmd.ExtraFiles = tt.files
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 || !bytes.Contains(out, []byte("nobody else")) {
				t.Errorf("ended with %v and said %q", err, out)
			}
		})
	}
}

func BenchmarkHold(b *testing.B) {
	target := uffdtest.Start(b)
	fd, pidfd := target.Open(uffdtest.CRIUFeatures).Must(), target.PIDFD()
	defer fd.Close()
	defer pidfd.Close()
	g := start(b)
	for b.Loop() {
		release, err := g.Hold(fd, pidfd, "process")
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}
