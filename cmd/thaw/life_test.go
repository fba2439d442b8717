package main

import (
	"bufio"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/internal/testenv"
)

// freeze makes a snapshot of the target and returns what was printed.
func (p *place) freeze(t *testing.T, f *frozen, name string, more ...string) created {
	t.Helper()
	var c created
	p.must(t, &c, append([]string{"snapshot", "create", "--pid", strconv.Itoa(f.pid), "--name", name, "--json"}, more...)...)
	return c
}

// waitState waits until a session has a state.
func (s *server) waitState(t *testing.T, id string, want control.State) *control.Session {
	t.Helper()
	var got *control.Session
	until(t, "the session is "+string(want), func() bool {
		var err error
		got, err = s.Session(t.Context(), id)
		return err != nil || got.State == want
	})
	if got == nil {
		t.Fatalf("session %s is not there", id)
	}
	return got
}

func TestAProcessIsFrozenAndThawed(t *testing.T) {
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	s := p.serve(t)

	first := p.freeze(t, f, "first", "--leave-running")
	f.mustRemember(t)
	if first.Bytes < targetMemory || first.NewBytes < targetMemory || first.SkeletonBytes > 16<<20 {
		t.Errorf("the first snapshot is %+v", first.Report)
	}
	second := p.freeze(t, f, "second", "--parent", "first")
	<-f.gone
	if second.NewBytes > second.Bytes/4 {
		t.Errorf("the second snapshot of the process brought %d new bytes of %d", second.NewBytes, second.Bytes)
	}
	var seen inspected
	p.must(t, &seen, "snapshot", "inspect", "second", "--json")
	if sh := seen.Sharing; sh.ParentPages*4 < sh.StoredPages*3 || sh.StoredPages != sh.SharedPages+sh.UniquePages {
		t.Errorf("the second snapshot shares %+v with its parent", sh)
	}

	var back restored
	p.must(t, &back, "restore", "second", "--detach", "--json")
	if back.PID != f.pid || back.ToRunningSeconds <= 0 || back.Snapshot != "second" {
		t.Errorf("restore printed %+v", back)
	}
	f.mustRemember(t)
	got := s.waitState(t, back.Session, control.StateComplete)
	if got.Progress.PagesDone != got.Progress.PagesTotal || got.Error != "" {
		t.Errorf("the session ended as %+v", got)
	}
	f.mustRemember(t) // thawd serves it no more
	again := p.thaw(t, "restore", "second", "--detach")
	if again.code != 5 {
		t.Errorf("a second restore beside the first: exit code %d, want 5: %s", again.code, again.stderr)
	}
	f.kill(t)
}

func TestRestoreInTheForegroundPassesSignalsAndTheExitCodeOn(t *testing.T) {
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	p.serve(t)
	p.freeze(t, f, "web")
	for sig, want := range map[syscall.Signal]int{syscall.SIGTERM: targetExit, syscall.SIGHUP: 128 + int(syscall.SIGHUP)} {
		if signal.Ignored(sig) {
			continue // as under nohup(1): the target does as well
		}
		cmd := p.command("thaw", "restore", "web", "--stream", "none")
		words, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(words).ReadString('\n'); err != nil || !strings.Contains(line, "runs after") {
			t.Fatalf("restore said %q: %v", line, err)
		}
		until(t, "the command waits for the process", func() bool { return childOf(cmd.Process.Pid, f.pid) })
		f.mustRemember(t)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("exit code after %v is %d, want %d", sig, got, want)
		}
	}
}

func TestDrainLeavesWholeProcessesBehind(t *testing.T) {
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	s := p.serve(t)
	p.freeze(t, f, "web")
	p.must(t, nil, "restore", "web", "--detach", "--stream", "none")
	if code := s.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("thawd ended with exit code %d", code)
	}
	f.mustRemember(t)
	f.kill(t)
	if left, err := os.ReadDir(filepath.Dir(p.socket)); err != nil {
		t.Error(err)
	} else {
		for _, e := range left {
			if e.Name() == filepath.Base(p.socket) {
				t.Error("thawd left its socket behind")
			}
		}
	}
}

func TestASecondSignalKillsWhatWouldLoseMemory(t *testing.T) {
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	s := p.serve(t)
	p.freeze(t, f, "web")
	p.must(t, nil, "restore", "web", "--detach", "--stream", "none")
	// It finds both when it goes on. They differ, because two of a kind would be one.
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCONT} {
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	code := s.exitCode(t)
	alive := syscall.Kill(f.pid, 0) == nil
	syscall.Wait4(f.pid, nil, syscall.WNOHANG, nil)
	alive = alive && syscall.Kill(f.pid, 0) == nil
	switch {
	case alive && code == 0:
		f.mustRemember(t) // the drain was faster than the second signal
	case alive:
		t.Errorf("thawd ended with exit code %d and left the process running", code)
	case code == 0:
		t.Error("the process is dead, and thawd ended with exit code 0")
	}
	f.kill(t)
}

func TestAThawdThatIsKilledTakesIncompleteProcessesAlong(t *testing.T) {
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	s := p.serve(t)
	p.freeze(t, f, "web")
	p.must(t, nil, "restore", "web", "--detach", "--stream", "none")
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Its memory is incomplete for ever now. The guard has to end it before it can read zeros.
	until(t, "the process ends", func() bool {
		syscall.Wait4(f.pid, nil, syscall.WNOHANG, nil)
		return syscall.Kill(f.pid, 0) != nil
	})
}

func TestPlainImagesAreServedAndImported(t *testing.T) {
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	s := p.serve(t)
	images := filepath.Join(p.dir, "images")
	if c := p.freeze(t, f, "web", "--images", images); c.Images != images {
		t.Errorf("create says that the images are in %q", c.Images)
	}

	session, err := s.CreateSession(t.Context(), &control.SessionRequest{ImagesDir: images})
	if err != nil {
		t.Fatal(err)
	}
	p.restoreByHand(t, session.ImagesDir, session.WorkDir)
	f.mustRemember(t)
	s.waitState(t, session.ID, control.StateComplete)
	f.kill(t)

	var c created
	p.must(t, &c, "snapshot", "import", images, "--name", "other/web", "--json")
	if c.NewPages == 0 {
		t.Error("a snapshot of another namespace brought no pages")
	}
	p.must(t, nil, "restore", "other/web", "--detach")
	f.mustRemember(t)
	f.kill(t)
}

func TestTheStandInServesASkeletonOfTheStore(t *testing.T) {
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	p.freeze(t, f, "web")
	var seen inspected
	p.must(t, &seen, "snapshot", "inspect", "web", "--json")
	work := filepath.Join(p.dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	ready, status, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := p.command("thawd", "lazy-pages", "-D", seen.SkeletonDir, "-W", work, "--status-fd", "3", "--no-default-config", "-o", "log", "-v4")
	cmd.ExtraFiles = []*os.File{status}
	done := make(chan result, 1)
	go func() { done <- finish(t, cmd) }()
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("the stand-in does not say that it is ready: %v", err)
	}
	status.Close()
	p.restoreByHand(t, seen.SkeletonDir, work)
	f.mustRemember(t)
	if r := <-done; r.code != 0 {
		t.Errorf("the stand-in ended with exit code %d: %s", r.code, r.stderr)
	}
	f.mustRemember(t)
	f.kill(t)
}

// restoreByHand has CRIU restore lazily, as somebody would who knows nothing of thaw.
func (p *place) restoreByHand(t *testing.T, images, work string) {
	t.Helper()
	tools := &checkpoint.Tools{CRIU: testenv.CRIU(t)}
	proc, err := tools.RestoreProcess(t.Context(), checkpoint.RestoreOptions{Images: images, Work: work, Lazy: true})
	if err != nil {
		t.Fatal(err)
	}
	proc.Close()
}
