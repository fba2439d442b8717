package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"google.golang.org/protobuf/proto"

	"thaw/internal/testenv"
	"thaw/restore"
	"thaw/restore/criu/internal/criutest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// A freeze is a frozen target: its images, and the skeleton made of them.
type freeze struct {
	target   *criutest.Target
	dir      string
	skeleton string
	images   *Images
}

func newFreeze(t *testing.T, scenarios ...string) *freeze {
	t.Helper()
	f := &freeze{target: criutest.Start(t, scenarios...), dir: t.TempDir(), skeleton: t.TempDir()}
	f.target.Dump(t, f.dir)
	im, err := Open(f.dir)
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

// thaw restores dir, the skeleton or the images as they lie, with the pages that it lacks.
func (f *freeze) thaw(t *testing.T, dir string, opts restore.Options) *thaw {
	t.Helper()
	source := f.images.Source
	if dir == f.skeleton {
		source = f.images.SkeletonSource
	}
	src, layouts, err := source()
	must(t, err)
	return f.serve(t, dir, src, layouts, opts)
}

// serve restores from dir with what lacks brought by a session.
func (f *freeze) serve(t *testing.T, dir string, src *ImageSource, layouts map[int]restore.Layout, opts restore.Options) *thaw {
	t.Helper()
	t.Cleanup(func() { src.Close() })
	opts.Source = src
	session, err := restore.NewSession(&opts)
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	l, err := Listen(filepath.Join(work, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	th := &thaw{session: session, served: make(chan error, 1), ran: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	go func() { th.served <- Serve(ctx, l, session, layouts) }()
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
		{"advice about forks that is given later", []string{"wipes"}, []string{"root"}},
		{"threads fault at once", []string{"threads"}, []string{"root"}},
		{"faults while the address space changes", []string{"storm"}, []string{"root"}},
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
}

func TestManyRestoresOfOneSkeletonAtOnce(t *testing.T) {
	const copies = 8
	f := newFreeze(t, "plain", "tree")
	if err := f.images.WriteSkeleton(f.skeleton); err != nil {
		t.Fatal(err)
	}
	var thaws []*thaw
	for range copies {
		thaws = append(thaws, f.thaw(t, f.skeleton, restore.Options{}))
	}
	f.target.Go(t)
	for i, th := range thaws {
		if served, ran := th.end(t); served != nil || ran != nil {
			t.Errorf("restore %d: served: %v, ran: %v", i, served, ran)
		}
	}
	f.target.Check(t, copies, "root", "child", "grandchild")
}

func TestFailedRestoreDoesNotDisturbOthers(t *testing.T) {
	f := newFreeze(t, "plain")
	good := f.thaw(t, f.dir, restore.Options{})
	broken := t.TempDir()
	if err := os.CopyFS(broken, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	// CRIU finds out after it has connected.
	if err := os.Remove(filepath.Join(broken, fmt.Sprintf("pagemap-%d.img", f.target.PID))); err != nil {
		t.Fatal(err)
	}
	bad := f.thaw(t, broken, restore.Options{})
	if err := bad.restored.Wait(t.Context()); err == nil {
		t.Error("CRIU restores broken images")
	}
	if err := <-bad.served; !errors.Is(err, ErrRestoreFailed) {
		t.Errorf("the failed one: Serve returns %v", err)
	}
	if err := <-bad.ran; !errors.Is(err, restore.ErrAborted) || !errors.Is(err, ErrRestoreFailed) {
		t.Errorf("the failed one: Run returns %v", err)
	}
	f.target.Go(t)
	if served, ran := good.end(t); served != nil || ran != nil {
		t.Errorf("the good one: served: %v, ran: %v", served, ran)
	}
	f.target.Check(t, 1, "root")
}

func TestKilledTargetEndsTheSession(t *testing.T) {
	f := newFreeze(t, "plain", "tree")
	th := f.thaw(t, f.dir, restore.Options{Stream: restore.StreamNone})
	if err := <-th.served; err != nil {
		t.Fatalf("Serve returns %v\n%s", err, th.restored.Log())
	}
	th.restored.Kill()
	if err := <-th.ran; err != nil {
		t.Errorf("Run returns %v", err)
	}
}

// The kernels that tests run on cannot track what a task has written since a dump, so the chain is made of a whole
// dump: every other entry moves to a parent.
func TestChainOfDumpsComesBack(t *testing.T) {
	f := newFreeze(t, "plain")
	f.images.Close()
	moveToParent(t, f.dir, f.target.PID)
	im, err := Open(f.dir)
	must(t, err)
	t.Cleanup(func() { im.Close() })
	must(t, im.WriteSkeleton(f.skeleton))
	f.target.Go(t)

	f.images = im
	for _, dir := range []string{f.dir, f.skeleton} { // in the first, CRIU reads the parent's pages itself
		th := f.thaw(t, dir, restore.Options{})
		if served, ran := th.end(t); served != nil || ran != nil {
			t.Errorf("served: %v, ran: %v", served, ran)
		}
	}
	f.target.Check(t, 2, "root")
}

// moveToParent splits the dump in dir in two.
func moveToParent(t *testing.T, dir string, pid int) {
	t.Helper()
	name := fmt.Sprintf("pagemap-%d.img", pid)
	pm, err := readImage(filepath.Join(dir, name), name, magicPagemap, parsePagemap)
	must(t, err)
	pagesName := fmt.Sprintf("pages-%d.img", pm.pagesID)
	data, err := os.ReadFile(filepath.Join(dir, pagesName))
	must(t, err)
	parent := filepath.Join(dir, "parent")
	must(t, os.Mkdir(parent, 0o700))
	head := &pagemap.PagemapHead{PagesId: &pm.pagesID}
	old, young := []proto.Message{head}, []proto.Message{head}
	var oldData, youngData []byte
	for i, e := range pm.entries {
		bytes := data[e.offset:][:e.pages*page]
		if i%2 == 0 {
			young = append(young, entry(e.addr, e.pages, e.flags))
			youngData = append(youngData, bytes...)
		} else {
			young = append(young, entry(e.addr, e.pages, flagParent))
			old = append(old, entry(e.addr, e.pages, e.flags))
			oldData = append(oldData, bytes...)
		}
	}
	writeImage(t, filepath.Join(dir, name), magicPagemap, young...)
	writeImage(t, filepath.Join(parent, name), magicPagemap, old...)
	must(t, os.WriteFile(filepath.Join(dir, pagesName), youngData, 0o600))
	must(t, os.WriteFile(filepath.Join(parent, pagesName), oldData, 0o600))
	must(t, os.WriteFile(filepath.Join(parent, "inventory.img"), nil, 0o600))
}
