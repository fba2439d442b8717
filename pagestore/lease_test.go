package pagestore

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
)

func TestSnapshotThatIsNotThere(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 3))
	for _, name := range []string{"b", "other/a"} {
		if _, err := s.Snapshot(mustName(name)); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrBeingRemoved) {
			t.Errorf("Snapshot(%s): %v, want %v", name, err, ErrNotFound)
		}
		if err := s.Remove(t.Context(), mustName(name)); !errors.Is(err, ErrNotFound) {
			t.Errorf("Remove(%s): %v, want %v", name, err, ErrNotFound)
		}
	}
	for _, name := range []Name{{}, {"default", ".."}, {"..", "a"}} {
		if _, err := s.Snapshot(name); !errors.Is(err, ErrName) {
			t.Errorf("Snapshot(%q): %v, want %v", name, err, ErrName)
		}
		if err := s.Remove(t.Context(), name); !errors.Is(err, ErrName) {
			t.Errorf("Remove(%q): %v, want %v", name, err, ErrName)
		}
		if _, err := s.Import(t.Context(), name, Input{}, nil); !errors.Is(err, ErrName) {
			t.Errorf("Import(%q): %v, want %v", name, err, ErrName)
		}
	}
}

func TestRemoveOfALeasedSnapshotKeepsItForTheLease(t *testing.T) {
	s := newStore(t)
	in := seeds(1, 100).input()
	in.Skeleton = func(dir string) error { return os.WriteFile(filepath.Join(dir, "core"), []byte("x"), 0o600) }
	if _, err := s.Import(t.Context(), mustName("a"), in, nil); err != nil {
		t.Fatal(err)
	}
	snap := mustOpen(t, s, "a")
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(mustName("a")); !errors.Is(err, ErrBeingRemoved) || !errors.Is(err, ErrNotFound) {
		t.Errorf("a new Snapshot: %v, want %v", err, ErrBeingRemoved)
	}
	if err := s.Remove(t.Context(), mustName("a")); !errors.Is(err, ErrBeingRemoved) {
		t.Errorf("a second Remove: %v, want %v", err, ErrBeingRemoved)
	}
	report, err := s.GC(t.Context())
	if err != nil || report.SnapshotsLeased != 1 || report.PacksDeleted != 0 {
		t.Errorf("GC: %+v, %v; want it to leave the leased snapshot", report, err)
	}
	// Everything can still be opened, also what was not open before.
	im, err := snap.Image()
	if err != nil {
		t.Fatal(err)
	}
	if _, n, err := im.Load(70, 30); n != 30 || err != nil {
		t.Errorf("Load: %d, %v", n, err)
	}
	if _, err := os.Stat(filepath.Join(snap.SkeletonDir(), "core")); err != nil {
		t.Errorf("the skeleton: %v", err)
	}
	snap.Close()

	report, err = s.GC(t.Context())
	want := GCReport{SnapshotsDeleted: 1, PacksDeleted: 2, BytesFreed: report.BytesFreed}
	if diff := cmp.Diff(want, report); err != nil || diff != "" || report.BytesFreed < 100*PageSize {
		t.Errorf("GC after the lease: %v (-want +got):\n%s", err, diff)
	}
	if _, err := s.Snapshot(mustName("a")); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrBeingRemoved) {
		t.Errorf("Snapshot after GC: %v, want %v", err, ErrNotFound)
	}
}

// TestLeaseThatComesTooLate takes a lease in two steps, with a removal between them.
func TestLeaseThatComesTooLate(t *testing.T) {
	tests := []struct {
		name    string
		between func(t *testing.T, s *Store, ns namespace)
	}{
		{"the snapshot was deleted", func(t *testing.T, s *Store, ns namespace) {
			if err := s.Remove(t.Context(), mustName("a")); err != nil {
				t.Fatal(err)
			}
		}},
		{"the snapshot was moved", func(t *testing.T, s *Store, ns namespace) {
			mustOpen(t, s, "a")
			if err := s.Remove(t.Context(), mustName("a")); err != nil {
				t.Fatal(err)
			}
		}},
		{"the snapshot was replaced", func(t *testing.T, s *Store, ns namespace) {
			if err := s.Remove(t.Context(), mustName("a")); err != nil {
				t.Fatal(err)
			}
			mustImport(t, s, "a", seeds(5, 5))
		}},
		{"the snapshot is being deleted", func(t *testing.T, s *Store, ns namespace) {
			_, release, err := leased(ns.snapshot("a"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(release)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			mustImport(t, s, "a", seeds(1, 10))
			ns := s.namespace("default")
			path := filepath.Join(ns.snapshot("a"), manifestFile)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			tt.between(t, s, ns)
			if err := leaseFile(f, path); !errors.Is(err, errMoved) {
				t.Errorf("error is %v, want %v", err, errMoved)
			}
		})
	}
}

func TestNameOfARemovedSnapshotCanBeUsedAgain(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	old := mustOpen(t, s, "a")
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Fatal(err)
	}
	mustImport(t, s, "a", seeds(11, 10))
	if err := checkImage(s, "a", seeds(11, 10)); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Errorf("removing the second one: %v", err)
	}
	if _, err := s.GC(t.Context()); err != nil {
		t.Error(err)
	}
	im, err := old.Image()
	if err != nil {
		t.Fatal(err)
	}
	if _, n, err := im.Load(0, 10); n != 10 || err != nil {
		t.Errorf("the first one, leased: %d pages, %v", n, err)
	}
}

func TestRemoveOfAnUnleasedSnapshotLeavesNoFolder(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.namespace("default").removed())
	if err != nil || len(entries) != 0 {
		t.Errorf("removed has %v, %v", entries, err)
	}
}

func TestGCKeepsWhatOthersUseAndCountsWhatIsDead(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 100))                            // packs of 64 and 36 pages
	mustImport(t, s, "b", append(seeds(1, 10), seeds(1000, 20)...)) // 10 of the first, and a pack of 20
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Fatal(err)
	}
	report, err := s.GC(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report.Packs != 2 || report.PacksDeleted != 1 || report.DeadBytes != 54*PageSize {
		t.Errorf("GC: %+v; want 2 packs left, 1 deleted, 54 pages dead", report)
	}
	if err := errors.Join(checkImage(s, "b", append(seeds(1, 10), seeds(1000, 20)...)), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
	// What was collected is not found in the index any more, what is dead but there is.
	if got := mustImport(t, s, "c", seeds(1, 100)); got.NewPages != 36 {
		t.Errorf("%d pages are new, want the 36 that were collected", got.NewPages)
	}
	if err := checkImage(s, "c", seeds(1, 100)); err != nil {
		t.Error(err)
	}
}

func TestGCStopsAtAManifestThatItCannotRead(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	mustImport(t, s, "b", seeds(11, 10))
	mustImport(t, s, "other/c", seeds(1, 10))
	for _, name := range []string{"a", "other/c"} {
		if err := s.Remove(t.Context(), mustName(name)); err != nil {
			t.Fatal(err)
		}
	}
	flipBit(t, filepath.Join(s.namespace("default").snapshot("b"), manifestFile), 150)
	report, err := s.GC(t.Context())
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "default/b") {
		t.Errorf("error is %v, want %v that names the snapshot", err, ErrCorrupt)
	}
	if report.PacksDeleted != 1 {
		t.Errorf("%d packs were deleted, want the one of the sound namespace", report.PacksDeleted)
	}
	if files, err := s.namespace("default").listPacks(); err != nil || len(files) != 2 {
		t.Errorf("%d packs are left, %v; want both", len(files), err)
	}
}

// startChild runs this test binary as childMain and returns its standard output.
func startChild(t *testing.T, what, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, dir)
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // which the child reads until it dies
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

func TestDeadProcessHoldsNoLease(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	child, out := startChild(t, "lease", s.Dir())
	if !out.Scan() || out.Text() != "leased" {
		t.Fatalf("child says %q, %v", out.Text(), out.Err())
	}
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Fatal(err)
	}
	if report, err := s.GC(t.Context()); err != nil || report.SnapshotsLeased != 1 {
		t.Errorf("GC while the child lives: %+v, %v", report, err)
	}
	child.Process.Kill()
	child.Wait()
	if report, err := s.GC(t.Context()); err != nil || report.SnapshotsDeleted != 1 || report.PacksDeleted != 1 {
		t.Errorf("GC after its death: %+v, %v", report, err)
	}
}

func TestOneWriterAtATime(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	other := openStore(t, s.Dir(), &Options{NoWait: true}) // another thawd, as it were

	inside, finish := make(chan struct{}), make(chan struct{})
	in := seeds(1, 10).input()
	in.Skeleton = func(string) error { close(inside); <-finish; return nil }
	imported := make(chan error)
	go func() {
		_, err := s.Import(context.WithoutCancel(t.Context()), mustName("b"), in, nil)
		imported <- err
	}()
	<-inside
	calls := map[string]func(*Store, context.Context) error{
		"Import": func(s *Store, ctx context.Context) error {
			_, err := s.Import(ctx, mustName("c"), Input{}, nil)
			return err
		},
		"Remove": func(s *Store, ctx context.Context) error { return s.Remove(ctx, mustName("a")) },
		"GC":     func(s *Store, ctx context.Context) error { _, err := s.GC(ctx); return err },
	}
	for name, call := range calls {
		if err := call(other, t.Context()); !errors.Is(err, ErrLocked) {
			t.Errorf("%s that does not wait: %v, want %v", name, err, ErrLocked)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := call(s, ctx); !errors.Is(err, ErrLocked) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s that waits until its deadline: %v, want %v", name, err, ErrLocked)
		}
		cancel()
	}
	// Readers do not care.
	if err := errors.Join(checkImage(other, "a", seeds(1, 10)), checkVerify(t, other)); err != nil {
		t.Error(err)
	}
	if entries, err := other.List(); err != nil || len(entries) != 1 {
		t.Errorf("List: %v, %v; want the snapshot that is complete", entries, err)
	}
	waited := make(chan error)
	go func() { waited <- calls["Remove"](s, context.WithoutCancel(t.Context())) }()
	close(finish)
	if err := <-imported; err != nil {
		t.Error(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("the Remove that waited: %v", err)
	}
}

func TestStoreOfAnotherUser(t *testing.T) {
	testenv.NeedRoot(t)
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	before := tree(t, s.Dir())
	// The user of file accesses belongs to the thread, which ends with the goroutine because nothing unlocks it.
	errs := make(chan map[string]error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setfsuid(65534); err != nil {
			errs <- map[string]error{"setfsuid": err}
			return
		}
		_, open := Open(s.Dir(), nil)
		_, create := Create(s.Dir())
		_, imported := s.Import(context.WithoutCancel(t.Context()), mustName("b"), Input{}, nil)
		_, opened := s.Snapshot(mustName("a"))
		errs <- map[string]error{"Open": open, "Create": create, "Import": imported, "Snapshot": opened}
	}()
	for name, err := range <-errs {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, want %v", name, err, fs.ErrPermission)
		}
	}
	if diff := cmp.Diff(before, tree(t, s.Dir())); diff != "" {
		t.Errorf("the store has changed (-before +after):\n%s", diff)
	}
}
