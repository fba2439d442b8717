package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/internal/durable/durabletest"
	"thaw/internal/testenv"
)

// operation is a change of the store that is broken at each of its steps in turn. It starts from snapshots "a", which has
// a skeleton, and "b", which shares pages with it.
type operation struct {
	name    string
	prepare func(t *testing.T, s *Store) (release func())
	run     func(ctx context.Context, s *Store) error
	// after is what the store holds once the operation is complete.
	after map[string]memory
	// repeats: running a complete operation again is no error.
	repeats bool
	// sweeps: it deletes what others left.
	sweeps bool
	// check, if not nil, looks at what snapshots are not; done says that the operation is complete.
	check func(s *Store, done bool) error
}

var (
	memoryA = append(seeds(1, 100), 0)
	memoryB = append(seeds(50, 20), seeds(500, 10)...)
	memoryC = append(seeds(90, 20), append(memory{0}, seeds(700, 70)...)...)
	before  = map[string]memory{"a": memoryA, "b": memoryB}
)

func inputWithSkeleton(m memory) Input {
	in := m.input()
	in.Skeleton = func(dir string) error {
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
			return err
		}
		return errors.Join(
			os.WriteFile(filepath.Join(dir, "core"), []byte("core"), 0o600),
			os.WriteFile(filepath.Join(dir, "sub", "x"), []byte("x"), 0o600),
		)
	}
	return in
}

func nothing(*testing.T, *Store) func() { return func() {} }

var operations = []operation{
	{
		name:    "import",
		prepare: nothing,
		run: func(ctx context.Context, s *Store) error {
			_, err := s.Import(ctx, mustName("c"), inputWithSkeleton(memoryC), nil)
			return err
		},
		after:  map[string]memory{"a": memoryA, "b": memoryB, "c": memoryC},
		sweeps: true,
	},
	{
		name:    "import into a new namespace",
		prepare: nothing,
		run: func(ctx context.Context, s *Store) error {
			_, err := s.Import(ctx, mustName("new/c"), inputWithSkeleton(memoryC), nil)
			return err
		},
		after:  map[string]memory{"a": memoryA, "b": memoryB, "new/c": memoryC},
		sweeps: true,
	},
	{
		name:    "remove",
		prepare: nothing,
		run:     func(ctx context.Context, s *Store) error { return s.Remove(ctx, mustName("a")) },
		after:   map[string]memory{"b": memoryB},
	},
	{
		name: "remove of a leased snapshot",
		prepare: func(t *testing.T, s *Store) func() {
			snap := mustOpen(t, s, "a")
			return func() { snap.Close() }
		},
		run:   func(ctx context.Context, s *Store) error { return s.Remove(ctx, mustName("a")) },
		after: map[string]memory{"b": memoryB},
	},
	{
		name: "gc",
		prepare: func(t *testing.T, s *Store) func() {
			mustImport(t, s, "x", seeds(2000, 70))
			snap := mustOpen(t, s, "x")
			if err := s.Remove(t.Context(), mustName("x")); err != nil {
				t.Fatal(err)
			}
			snap.Close()
			return func() {}
		},
		run:     func(ctx context.Context, s *Store) error { _, err := s.GC(ctx); return err },
		after:   before,
		repeats: true,
	},
	{
		name:    "first working set",
		prepare: nothing,
		run:     func(ctx context.Context, s *Store) error { return setWorkingSet(ctx, s, "a", newSet) },
		after:   before,
		repeats: true,
		sweeps:  true,
		check:   checkSets(WorkingSet{}, newSet),
	},
	{
		name:    "another working set",
		prepare: withOldSet,
		run:     func(ctx context.Context, s *Store) error { return setWorkingSet(ctx, s, "a", newSet) },
		after:   before,
		repeats: true,
		sweeps:  true,
		check:   checkSets(oldSet, newSet),
	},
	{
		name:    "end of a working set",
		prepare: withOldSet,
		run:     func(ctx context.Context, s *Store) error { return setWorkingSet(ctx, s, "a", WorkingSet{}) },
		after:   before,
		repeats: true,
		sweeps:  true,
		check:   checkSets(oldSet, WorkingSet{}),
	},
	{
		name:    "remove with a working set",
		prepare: withOldSet,
		run:     func(ctx context.Context, s *Store) error { return s.Remove(ctx, mustName("a")) },
		after:   map[string]memory{"b": memoryB},
	},
}

var (
	oldSet = WorkingSet{Hint: []byte("old"), Order: []PageRun{{90, 5}, {3, 30}, {60, 1}}, Far: []PageRun{{90, 5}, {3, 40}}}
	newSet = WorkingSet{Hint: []byte("newer"), Order: []PageRun{{7, 1}, {50, 40}, {0, 3}}, Far: []PageRun{{7, 60}}}
)

func withOldSet(t *testing.T, s *Store) func() {
	t.Helper()
	if err := setWorkingSet(t.Context(), s, "a", oldSet); err != nil {
		t.Fatal(err)
	}
	return func() {}
}

// checkSets returns a check that each part of the working set of a is the old one or the new one.
func checkSets(from, to WorkingSet) func(s *Store, done bool) error {
	return func(s *Store, done bool) error {
		got, err := workingSetOf(s, "a")
		if err != nil {
			return err
		}
		if h := string(got.Hint); h != string(to.Hint) && (done || h != string(from.Hint)) {
			return fmt.Errorf("hint is %q, which was %q and becomes %q", h, from.Hint, to.Hint)
		}
		if !slices.Equal(got.Order, to.Order) && (done || !slices.Equal(got.Order, from.Order)) {
			return fmt.Errorf("copy has pages %v, which were %v and become %v", got.Order, from.Order, to.Order)
		}
		if !slices.Equal(got.Far, to.Far) && (done || !slices.Equal(got.Far, from.Far)) {
			return fmt.Errorf("pages for elsewhere are %v, which were %v and become %v", got.Far, from.Far, to.Far)
		}
		return nil
	}
}

// TestFaultsAtEveryStep breaks every operation at every step in every way, and looks whether the store is as before or
// complete; after a crash also with everything lost that was not synced.
func TestFaultsAtEveryStep(t *testing.T) {
	base := makeBase(t)
	for _, op := range operations {
		for _, fault := range durabletest.Faults {
			for _, powerCut := range []bool{false, true} {
				crash := fault == durabletest.CrashBefore || fault == durabletest.CrashAfter
				if powerCut && !crash {
					continue
				}
				name := fmt.Sprintf("%s/%s", op.name, fault)
				if powerCut {
					name += " of the machine"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					step := 1
					for breakAt(t, base, op, step, fault, powerCut) && !t.Failed() {
						step++
					}
					if step <= 3 {
						t.Errorf("only %d steps were broken", step-1)
					}
				})
			}
		}
	}
}

// makeBase makes the store from which operations start.
func makeBase(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(memoryDir(t), "base")
	s := openFaulty(t, dir, nil)
	// In this order, so that b needs each of a's packs, and the removal of a leaves none that nobody needs.
	for _, name := range []string{"a", "b"} {
		if _, err := s.Import(t.Context(), mustName(name), inputWithSkeleton(before[name]), nil); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// copyBase copies it to dir/store, and makes dir/trash for durabletest.
func copyBase(t *testing.T, base, dir string) *Store {
	t.Helper()
	if err := os.CopyFS(filepath.Join(dir, "store"), os.DirFS(base)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "trash"), 0o700); err != nil {
		t.Fatal(err)
	}
	return openFaulty(t, filepath.Join(dir, "store"), nil)
}

// breakAt runs the operation with a fault at one step and reports whether there was such a step.
func breakAt(t *testing.T, base string, op operation, step int, fault durabletest.Fault, powerCut bool) (reached bool) {
	t.Helper()
	dir := memoryDir(t)
	s := copyBase(t, base, dir)
	release := op.prepare(t, s)
	fsys := durabletest.New(filepath.Join(dir, "trash"), step, fault)
	broken := openFaulty(t, s.Dir(), fsys)
	err := op.run(t.Context(), broken)
	broken.Close()
	release()
	if powerCut {
		if err := fsys.PowerCut(); err != nil {
			t.Fatalf("step %d: power cut: %v", step, err)
		}
	} else if err := fsys.Close(); err != nil {
		t.Fatal(err)
	}
	if fsys.Reached() && fault == durabletest.NoSpace && err != nil && !errors.Is(err, ErrNoSpace) {
		t.Errorf("step %d: error is %v, want %v", step, err, ErrNoSpace)
	}

	complete := holds(t, s, op.after)
	switch {
	case err == nil && complete != nil:
		t.Errorf("step %d: after success: %v", step, complete)
	case err != nil && !fsys.Crashed():
		if asBefore := holds(t, s, before); asBefore != nil {
			t.Errorf("step %d: after error %v: %v", step, err, asBefore)
		}
	case complete != nil:
		if asBefore := holds(t, s, before); asBefore != nil {
			t.Errorf("step %d, error %v: the store is neither complete (%v) nor as before (%v)", step, err, complete, asBefore)
		}
	}
	check := func(done bool) {
		t.Helper()
		if op.check == nil {
			return
		}
		if err := op.check(s, done); err != nil {
			t.Errorf("step %d: %v", step, err)
		}
	}
	check(err == nil)
	// Whatever the broken operation left, GC deletes, and so does the next import.
	gc := func() {
		if _, err := s.GC(t.Context()); err != nil {
			t.Errorf("step %d: gc: %v", step, err)
		}
	}
	again := func() {
		if err := op.run(t.Context(), s); err != nil && (complete != nil || op.repeats) {
			t.Errorf("step %d: running it again: %v", step, err)
		}
	}
	if step%2 == 0 {
		gc()
		checkNoLeftovers(t, s)
		again()
	} else {
		again()
		if op.sweeps {
			checkNoLeftovers(t, s)
		}
		gc()
	}
	if err := holds(t, s, op.after); err != nil {
		t.Errorf("step %d: at the end: %v", step, err)
	}
	check(true)
	checkNoLeftovers(t, s)
	if t.Failed() {
		t.Logf("step %d: the error was %v; the store is\n%s", step, err, tree(t, s.Dir()))
	}
	return fsys.Reached()
}

// openFaulty opens the store in dir, which it makes if need be, and changes it through fsys, nil for one without faults.
func openFaulty(t *testing.T, dir string, fsys *durabletest.FS) *Store {
	t.Helper()
	if fsys == nil {
		// Not durable.Disk: it would sync for real, which is slow.
		fsys = durabletest.New(memoryDir(t), 0, 0)
		t.Cleanup(func() { fsys.Close() })
		if _, err := os.Stat(dir); err != nil {
			if err := create(fsys, dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	return openStore(t, dir, &Options{fs: fsys, packPages: 64, packsCold: true})
}

// holds returns an error unless the store has exactly these snapshots, and all of them sound.
func holds(t *testing.T, s *Store, want map[string]memory) error {
	t.Helper()
	entries, err := s.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if want[e.Name.String()] == nil && !e.BeingRemoved {
			return fmt.Errorf("snapshot %s should not be there", e.Name)
		}
	}
	for name, m := range want {
		if err := checkImage(s, name, m); err != nil {
			return err
		}
	}
	return checkVerify(t, s)
}

// checkNoLeftovers looks for files that belong to no snapshot.
func checkNoLeftovers(t *testing.T, s *Store) {
	t.Helper()
	names, err := s.Namespaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		ns := s.namespace(name)
		for _, dir := range []string{ns.staging(), ns.removed()} {
			if entries, err := readDir(dir); err != nil || len(entries) > 0 {
				t.Errorf("%s has %v, %v", dir, entries, err)
			}
		}
		used, err := ns.mark()
		if err != nil {
			t.Fatal(err)
		}
		packs, err := readDir(ns.packs())
		if err != nil || len(packs) != len(used) {
			t.Errorf("%s has %d packs, of which %d are used; %v", ns.packs(), len(packs), len(used), err)
		}
	}
}

// TestCompleteOperationsAreDurable cuts the power right after success.
func TestCompleteOperationsAreDurable(t *testing.T) {
	base := makeBase(t)
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			dir := memoryDir(t)
			s := copyBase(t, base, dir)
			release := op.prepare(t, s)
			defer release()
			fsys := durabletest.New(filepath.Join(dir, "trash"), 0, 0)
			durable := openFaulty(t, s.Dir(), fsys)
			if err := op.run(t.Context(), durable); err != nil {
				t.Fatal(err)
			}
			if err := fsys.PowerCut(); err != nil {
				t.Fatal(err)
			}
			if err := holds(t, s, op.after); err != nil {
				t.Error(err)
			}
			if op.check != nil {
				if err := op.check(s, true); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestCreateFaultsAtEveryStep(t *testing.T) {
	for _, fault := range durabletest.Faults {
		t.Run(fault.String(), func(t *testing.T) {
			for step := 1; ; step++ {
				dir := filepath.Join(t.TempDir(), "store")
				fsys := durabletest.New(t.TempDir(), step, fault)
				err := create(fsys, dir)
				if err := fsys.Close(); err != nil {
					t.Fatal(err)
				}
				if _, openErr := Open(dir, nil); openErr != nil && (err == nil || !errors.Is(openErr, ErrNotStore)) {
					t.Errorf("step %d: Create: %v, Open: %v", step, err, openErr)
				} else if openErr != nil {
					again, err := Create(dir)
					if err != nil {
						t.Errorf("step %d: Create again: %v", step, err)
					} else {
						again.Close()
					}
				}
				if !fsys.Reached() {
					return
				}
			}
		})
	}
}

// TestKilledImportLeavesTheStoreAsItWas kills a real process, at many points of its import.
func TestKilledImportLeavesTheStoreAsItWas(t *testing.T) {
	for _, line := range []int{1, 2, 3, 5, 8, 12} {
		t.Run(fmt.Sprintf("after line %d", line), func(t *testing.T) {
			s := newStore(t)
			mustImport(t, s, "a", seeds(1, 100))
			files := packList(t, s)
			child, out := startChild(t, "import", s.Dir())
			lines := 0
			for lines < line && out.Scan() {
				lines++
			}
			child.Process.Kill()
			child.Wait()

			entries, err := s.List()
			if err != nil {
				t.Fatal(err)
			}
			complete := len(entries) == 2
			if err := errors.Join(checkImage(s, "a", seeds(1, 100)), checkVerify(t, s)); err != nil {
				t.Error(err)
			}
			mustImport(t, s, "c", seeds(1, 100)) // adds nothing and sweeps
			if !complete {
				if diff := cmp.Diff(files, packList(t, s)); diff != "" {
					t.Errorf("packs (-before +after):\n%s", diff)
				}
			} else if err := checkImage(s, "b", seeds(1000, childPages)); err != nil {
				t.Error(err)
			}
			checkNoLeftovers(t, s)
		})
	}
}

func packList(t *testing.T, s *Store) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(s.namespace("default").packs())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// endless is a file that never ends and never repeats.
type endless struct{}

func (endless) ReadAt(b []byte, off int64) (int, error) {
	for i := 0; i < len(b); i += PageSize {
		copy(b[i:], pageOf(uint64(off)+uint64(i)+1))
	}
	return len(b), nil
}

// TestFullDiskLeavesTheStoreAsItWas fills a real file system.
func TestFullDiskLeavesTheStoreAsItWas(t *testing.T) {
	testenv.NeedRoot(t)
	mount := t.TempDir()
	if err := unix.Mount("pagestore-test", mount, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v; run as root with CAP_SYS_ADMIN", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(mount, "store")
	made, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	s := openStore(t, dir, &Options{packPages: 256})
	mustImport(t, s, "a", seeds(1, 100))
	before := tree(t, dir)

	const pages = 16 << 20 / PageSize
	in := Input{
		Spaces: []Space{{
			ID:      1,
			Regions: []Region{{Start: testBase, End: testBase + pages*PageSize}},
			Runs:    []Run{{Addr: testBase, Pages: pages}},
		}},
		Files: []io.ReaderAt{endless{}},
	}
	if _, err := s.Import(t.Context(), mustName("b"), in, nil); !errors.Is(err, ErrNoSpace) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("import of twice the disk: %v, want %v", err, ErrNoSpace)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("the store has changed (-before +after):\n%s", diff)
	}
	in = seeds(1, 10).input()
	in.Skeleton = func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "core"), make([]byte, 16<<20), 0o600)
	}
	if _, err := s.Import(t.Context(), mustName("b"), in, nil); !errors.Is(err, ErrNoSpace) {
		t.Errorf("import of a skeleton of twice the disk: %v, want %v", err, ErrNoSpace)
	}
	mustImport(t, s, "b", seeds(200, 100))
	if err := errors.Join(checkImage(s, "a", seeds(1, 100)), checkImage(s, "b", seeds(200, 100)), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
	checkNoLeftovers(t, s)
}
