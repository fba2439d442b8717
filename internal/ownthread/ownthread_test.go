package ownthread_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"thaw/internal/ownthread"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestTheFirstThreadIsNeverUsed(t *testing.T) {
	var g errgroup.Group
	for range 200 {
		g.Go(func() error {
			return ownthread.Run(func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("it is the first thread")
				}
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	want := errors.New("failed")
	if err := ownthread.Run(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestNoThreadIsLeftInANamespace(t *testing.T) {
	testenv.NeedRoot(t)
	namespaces := func(t *testing.T) map[string]bool {
		t.Helper()
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for _, thread := range threads {
			if id, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/uts"); err == nil {
				seen[id] = true
			}
		}
		return seen
	}
	for range 50 {
		if err := ownthread.Run(func() error { return unix.Unshare(unix.CLONE_NEWUTS) }); err != nil {
			t.Fatal(err)
		}
	}
	// The last threads are about to end.
	for len(namespaces(t)) > 1 {
	}
}
