package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

func TestWithThePrivilegeTheGuardIsHardToKill(t *testing.T) {
	if !mayRaiseLimits(t) {
		t.Skip("needs CAP_SYS_RESOURCE, which root has unless its container or machine took it away")
	}
	g := start(t)
	adj, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", g.PID()))
	if err != nil || string(adj) != "-1000\n" {
		t.Errorf("oom_score_adj is %q, error %v", adj, err)
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(g.PID(), unix.RLIMIT_NOFILE, nil, &limit); err != nil || limit.Cur < wantFiles {
		t.Errorf("limit of descriptors is %d, error %v", limit.Cur, err)
	}
}

func mayRaiseLimits(t *testing.T) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
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
