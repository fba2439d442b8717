package guard

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

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
