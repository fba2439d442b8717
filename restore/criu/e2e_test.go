package criu_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"thaw/internal/testenv"
	"thaw/restore"
	"thaw/restore/criu"
	"thaw/restore/criu/internal/criutest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// A freeze is a frozen target: its images, and the skeleton made of them.
type freeze struct {
	target   *criutest.Target
	dir      string
	skeleton string
	images   *criu.Images
}

func newFreeze(t *testing.T, scenarios ...string) *freeze {
	t.Helper()
	f := &freeze{target: criutest.Start(t, scenarios...), dir: t.TempDir(), skeleton: t.TempDir()}
	f.target.Dump(t, f.dir)
	im, err := criu.Open(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	f.images = im
	return f
}

// A thaw is one lazy restore, served by this process.
type thaw struct {
	restored *criutest.Restored
	session  *restore.Session
	served   chan error
	ran      chan error
}

// thaw restores dir, with the pages of the complete images.
func (f *freeze) thaw(t *testing.T, dir string, opts restore.Options) *thaw {
	t.Helper()
	src, layouts, err := f.images.Source()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	opts.Source = src
	session, err := restore.NewSession(&opts)
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	l, err := criu.Listen(filepath.Join(work, criu.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	th := &thaw{session: session, served: make(chan error, 1), ran: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	go func() { th.served <- criu.Serve(ctx, l, session, layouts) }()
	go func() { th.ran <- session.Run(ctx) }()
	t.Cleanup(cancel)
	th.restored = criutest.Restore(t, dir, work, "--lazy-pages")
	return th
}

// end waits until the tree has done its work, and returns what Serve and Run have said.
func (th *thaw) end(t *testing.T) (served, ran error) {
	t.Helper()
	if err := th.restored.Wait(t.Context()); err != nil {
		t.Errorf("criu restore: %v\n%s", err, th.restored.Log())
	}
	return <-th.served, <-th.ran
}

func TestTreesComeBackByteForByte(t *testing.T) {
	for _, tc := range []struct {
		name      string
		scenarios []string
		roles     []string
	}{
		{"one process", []string{"plain"}, []string{"root"}},
		{"several processes and a zombie", []string{"plain", "tree"}, []string{"root", "child", "grandchild"}},
		{"mremap grows, shrinks, moves and swaps", []string{"moves"}, []string{"root"}},
		{"madvise and munmap drop pages", []string{"drops"}, []string{"root"}},
		{"ranges of 5 GiB are dropped whole", []string{"huge"}, []string{"root"}},
		{"children, grandchildren and exec", []string{"forks"}, []string{"root"}},
		{"threads fault at once", []string{"threads"}, []string{"root"}},
		{"locked, guarded and shared memory", []string{"locked"}, []string{"root"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFreeze(t, tc.scenarios...)
			if err := f.images.WriteSkeleton(f.skeleton); err != nil {
				t.Fatal(err)
			}
			f.target.Go(t)
			policies := []restore.StreamPolicy{restore.StreamAll, restore.StreamNone}
			for i, p := range policies {
				th := f.thaw(t, f.skeleton, restore.Options{Stream: p})
				if served, ran := th.end(t); served != nil || ran != nil {
					t.Errorf("stream %v: served: %v, ran: %v", p, served, ran)
				}
				f.target.Check(t, i+1, tc.roles...)
			}
		})
	}
}

func TestPlainFolderIsServedAsItLies(t *testing.T) {
	f := newFreeze(t, "plain", "tree")
	f.target.Go(t)
	th := f.thaw(t, f.dir, restore.Options{})
	if served, ran := th.end(t); served != nil || ran != nil {
		t.Errorf("served: %v, ran: %v", served, ran)
	}
	f.target.Check(t, 1, "root", "child", "grandchild")
	if _, err := os.Stat(f.dir); err != nil {
		t.Fatal(err)
	}
}
