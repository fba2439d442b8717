package checkpoint

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
)

// freezeSleep freezes a process that sleeps, and returns the number that it had.
func freezeSleep(t *testing.T, tools *Tools, dir string) (pid int, images string) {
	t.Helper()
	// A session of its own, and /dev/null for its streams: it shares nothing with this process.
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	images = dir + "/images"
	err := tools.DumpProcess(t.Context(), cmd.Process.Pid, DumpOptions{Images: images, Work: dir + "/dump"})
	if err != nil {
		_ = cmd.Process.Kill()
	}
	// The dump has killed it; its number is free once it is reaped.
	_ = cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, images
}

func TestPlainProcessIsDumpedAndRestored(t *testing.T) {
	testenv.NeedRoot(t)
	dir := tempDir(t)
	tools := Tools{CRIU: testenv.CRIU(t), Runc: testenv.Runc(t)}

	pid, images := freezeSleep(t, &tools, dir)
	p, err := tools.RestoreProcess(t.Context(), RestoreOptions{Images: images, Work: dir + "/restore"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.PID != pid {
		t.Errorf("restored as process %d, was %d", p.PID, pid)
	}
	if err := unix.Kill(p.PID, 0); err != nil {
		t.Errorf("restored process is not there: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("kill of a process that has ended: %v", err)
	}
}

func TestDumpOfAProcessThatIsNotThereSaysWhy(t *testing.T) {
	testenv.NeedRoot(t)
	dir := tempDir(t)
	tools := Tools{CRIU: testenv.CRIU(t)}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "dumping")
	err := tools.DumpProcess(t.Context(), cmd.Process.Pid, DumpOptions{Images: filepath.Join(dir, "images"), Work: work})
	failure, ok := errors.AsType[*Error](err)
	if !ok || failure.Log != filepath.Join(work, "dump.log") || len(failure.Lines) == 0 {
		t.Errorf("got %v, want an *Error with CRIU's log and lines", err)
	}
}

func TestRelativeFoldersAreRefused(t *testing.T) {
	tools := Tools{}
	err := tools.DumpProcess(t.Context(), 1, DumpOptions{Images: "images", Work: t.TempDir()})
	if !errors.Is(err, ErrNotAbsolute) {
		t.Errorf("relative image folder: %v, want %v", err, ErrNotAbsolute)
	}
}

func TestMissingToolsAreNamed(t *testing.T) {
	tools := Tools{CRIU: "/nowhere/criu", Runc: "/nowhere/runc"}
	if _, err := tools.CRIUVersion(t.Context()); !errors.Is(err, ErrToolMissing) {
		t.Errorf("CRIU: %v, want %v", err, ErrToolMissing)
	}
	if _, err := tools.RuncVersion(t.Context()); !errors.Is(err, ErrToolMissing) {
		t.Errorf("runc: %v, want %v", err, ErrToolMissing)
	}
	other := t.TempDir() + "/criu-4.2"
	if err := os.WriteFile(other, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Tools{CRIU: other}).criu(); !errors.Is(err, ErrToolMissing) {
		t.Errorf("CRIU by another name: %v, want %v", err, ErrToolMissing)
	}
}

func TestVersionsAreRead(t *testing.T) {
	tools := Tools{CRIU: testenv.CRIU(t), Runc: testenv.Runc(t)}
	criu, err := tools.CRIUVersion(t.Context())
	if err != nil || criu == "" {
		t.Errorf("CRIU: %q, %v", criu, err)
	}
	runc, err := tools.RuncVersion(t.Context())
	if err != nil || runc == "" {
		t.Errorf("runc: %q, %v", runc, err)
	}
}

func TestWaitForAProcessEndsWithItsContext(t *testing.T) {
	p, err := openProcess(os.Getpid())
	if err != nil {
		t.Skipf("pidfd_open: %v: needs Linux 5.3", err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a process that goes on: %v", err)
	}
}

func TestServerOfLazyPagesThatCannotStartSaysWhy(t *testing.T) {
	testenv.NeedRoot(t)
	dir := tempDir(t)
	tools := Tools{CRIU: testenv.CRIU(t)}
	_, err := tools.StartLazyPages(t.Context(), LazyPagesOptions{Images: dir + "/empty", Work: dir + "/work"})
	if failure, ok := errors.AsType[*Error](err); !ok || len(failure.Lines) == 0 {
		t.Errorf("got %v, want an *Error with CRIU's lines", err)
	}
}

func TestCancelledRestoreOfAPlainProcessLeavesNoProcess(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	testenv.NeedRoot(t)
	dir := tempDir(t)
	tools := Tools{CRIU: testenv.CRIU(t)}
	pid, images := freezeSleep(t, &tools, dir)
	work := dir + "/restore"
	ctx := deafServer(t, work)
	p, err := tools.RestoreProcess(ctx, RestoreOptions{Images: images, Work: work, Lazy: true})
	if err == nil {
		p.Kill()
		p.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled restore returned %v", err)
	}
	if p, err := openProcess(pid); err == nil {
		p.Kill()
		p.Close()
		t.Errorf("process %d is left", pid)
	}
}
