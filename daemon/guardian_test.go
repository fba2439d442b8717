package daemon

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/restore/guard"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func startGuardian(t *testing.T) *Guardian {
	t.Helper()
	g, err := StartGuardian(&guard.Options{Command: []string{"/proc/self/exe", "guard"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// pid returns the guard process's number, waiting for one that is not old.
func (g *Guardian) pid(t *testing.T, old int) int {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		g.mu.Lock()
		now := g.now
		g.mu.Unlock()
		if now != nil && now.PID() != old {
			return now.PID()
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("no guard")
		}
	}
}

func TestGuardThatDiesIsReplaced(t *testing.T) {
	g := startGuardian(t)
	target := uffdtest.Start(t)
	target.Map(pages(0, 2)).Must()
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	target.Register(pages(0, 2), uffd.ModeMissing).Must()
	target.Drop().Must()
	pidfd := target.PIDFD()
	defer pidfd.Close()
	if _, err := g.Hold(fd, pidfd, "target"); err != nil {
		t.Fatal(err)
	}

	first := g.pid(t, 0)
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := g.pid(t, first)

	// The new guard holds what the old one held: when we let go of everything without a word, the process dies, and
	// does not read zeros.
	read := target.Read(pages(0, 1))
	g.mu.Lock()
	held := g.now
	g.mu.Unlock()
	fd.Close()
	held.Close() // ErrHeld: this is what a death of the server looks like to the guard
	mustEnd(t, target)
	if err := read.Err(); err == nil {
		t.Errorf("the page was answered, guard %d", second)
	}
}

func TestServedProcessIsGuardedUntilItIsComplete(t *testing.T) {
	g := startGuardian(t)
	d := start(t, newStore(t, 100), &Options{Guard: g})
	s := d.create(t, control.SessionRequest{Snapshot: "web", Stream: control.StreamNone})
	r := connect(t, s, 100)
	r.finish()
	r.target.Read(pages(0, 1)).Must()
	g.mu.Lock()
	n := len(g.held)
	g.mu.Unlock()
	if n != 1 {
		t.Errorf("%d processes are held, want 1", n)
	}
	d.Drain()
	if err := d.wait(); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Errorf("close the guardian: %v, want nothing held", err)
	}
	// Complete and released, the process goes on by itself.
	if got := r.target.Read(pages(99, 2)).Must(); len(got) != 2*os.Getpagesize() {
		t.Errorf("read %d bytes", len(got))
	}
}
