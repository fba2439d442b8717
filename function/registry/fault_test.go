package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"thaw/function/version"
	"thaw/internal/durable/durabletest"
)

// operation is a change that is broken at each of its steps in turn. It starts from apps "a", with versions a1 and a2, of which a2 is
// current and has a snapshot, and "b", with one.
type operation struct {
	name    string
	prepare func(t *testing.T, r *Registry) (release func())
	run     func(ctx context.Context, r *Registry) error
	// between tells whether it may stop half way: what is there then is whole, and running it again completes it.
	between bool
	// once: running it again when it is complete is an error.
	once bool
}

const (
	text1 = "x = 1\n"
	text2 = "x = 2\n"
	text3 = "x = 3\n"
)

func moved(tb testing.TB) *version.Version {
	tb.Helper()
	v := versionOf(tb, "a", source(text2))
	v.Root.Path = "/mnt/root"
	return v
}

func operations(tb testing.TB) []operation {
	a1, a2, a3 := versionOf(tb, "a", source(text1)), versionOf(tb, "a", source(text2)), versionOf(tb, "a", source(text3))
	deploy := func(v *version.Version, text string) func(context.Context, *Registry) error {
		return func(ctx context.Context, r *Registry) error {
			_, err := r.Deploy(ctx, v, source(text))
			return err
		}
	}
	return []operation{
		{name: "deployment of a new app", run: deploy(versionOf(tb, "c", source(text1)), text1), between: true},
		{name: "deployment of a new version", run: deploy(a3, text3), between: true},
		{name: "deployment of an old version", run: deploy(a1, text1)},
		{name: "deployment of the same with the root elsewhere", run: deploy(moved(tb), text2)},
		{name: "deployment over a version that cannot be read", prepare: func(t *testing.T, r *Registry) func() {
			damage(t, filepath.Join(r.versionDir("a", a1.Key), versionFile))
			return func() {}
		}, run: deploy(a1, text1), between: true},
		{name: "removal of a version", run: func(ctx context.Context, r *Registry) error { return r.Remove(ctx, "a", a1.Key) }, once: true},
		{name: "removal of a leased version", prepare: func(t *testing.T, r *Registry) func() {
			lease, err := r.Lease("a", a1.Key)
			if err != nil {
				t.Fatal(err)
			}
			return func() { lease.Close() }
		}, run: func(ctx context.Context, r *Registry) error { return r.Remove(ctx, "a", a1.Key) }, once: true},
		{name: "removal of an app", run: func(ctx context.Context, r *Registry) error { return r.RemoveApp(ctx, "a") }, between: true, once: true},
		{name: "a first snapshot", run: func(ctx context.Context, r *Registry) error {
			return update(ctx, r, a1, func(s *Stats) { s.Snapshots = []Snapshot{snapshotOf(a1, "fn/a-1")} })
		}},
		{name: "another snapshot", run: func(ctx context.Context, r *Registry) error {
			return update(ctx, r, a2, func(s *Stats) { s.Snapshots = []Snapshot{snapshotOf(a2, "fn/a-2"), snapshotOf(a2, "fn/a-3")} })
		}},
		{name: "a snapshot of a template", run: func(ctx context.Context, r *Registry) error {
			return r.UpdateTemplate(ctx, a1.TemplateKey([]string{"torch"}), func(s *Stats) error {
				s.Snapshots = []Snapshot{{Name: "fn/template", Kind: KindTemplate, State: StateGood, CPU: a1.CPU.Features}}
				return nil
			})
		}},
	}
}

func damage(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// makeBase makes the registry that operations start from.
func makeBase(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "base")
	r := reopen(t, dir, durabletest.New(t.TempDir(), 0, 0))
	deployed(t, r, "a", text1)
	a2 := deployed(t, r, "a", text2)
	deployed(t, r, "b", text1)
	if err := update(t.Context(), r, a2, func(s *Stats) { s.Snapshots = []Snapshot{snapshotOf(a2, "fn/a-2")} }); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestFaultsAtEveryStep breaks every operation at every step in every way, and looks whether all is as before or complete; after a
// crash also with everything lost that was not synced.
func TestFaultsAtEveryStep(t *testing.T) {
	base := makeBase(t)
	for _, op := range operations(t) {
		if op.prepare == nil {
			op.prepare = func(*testing.T, *Registry) func() { return func() {} }
		}
		before, after := wholeRun(t, base, &op)
		for _, fault := range durabletest.Faults {
			for _, powerCut := range []bool{false, true} {
				if powerCut && fault != durabletest.CrashBefore && fault != durabletest.CrashAfter {
					continue
				}
				name := fmt.Sprintf("%s/%s", op.name, fault)
				if powerCut {
					name += " of the machine"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					step := 1
					for breakAt(t, base, before, after, &op, step, fault, powerCut) && !t.Failed() {
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

// copyBase copies the registry to dir.
func copyBase(t *testing.T, base, dir string) *Registry {
	t.Helper()
	dir = filepath.Join(dir, "functions")
	if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
		t.Fatal(err)
	}
	return reopen(t, dir, nil)
}

// wholeRun returns what there is before and after the operation, if nothing breaks. What it damages first cannot be looked at.
func wholeRun(t *testing.T, base string, op *operation) (before, after string) {
	t.Helper()
	r := copyBase(t, base, memoryDir(t))
	release := op.prepare(t, r)
	before, _ = look(r)
	if err := op.run(t.Context(), r); err != nil {
		t.Fatalf("%s without a fault: %v", op.name, err)
	}
	release()
	return before, mustLook(t, r)
}

// breakAt runs the operation with a fault at one step and reports whether there was such a step.
func breakAt(t *testing.T, base, before, after string, op *operation, step int, fault durabletest.Fault, powerCut bool) (reached bool) {
	t.Helper()
	temp := memoryDir(t)
	trash := filepath.Join(temp, "trash")
	if err := os.Mkdir(trash, 0o700); err != nil {
		t.Fatal(err)
	}
	disk := durabletest.New(trash, step, fault)
	r := copyBase(t, base, temp)
	release := op.prepare(t, r)
	err := op.run(t.Context(), reopen(t, r.Dir(), disk))
	release()
	if powerCut {
		if err := disk.PowerCut(); err != nil {
			t.Fatalf("step %d: power cut: %v", step, err)
		}
	} else if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if disk.Reached() && fault == durabletest.NoSpace && err != nil && !errors.Is(err, ErrNoSpace) {
		t.Errorf("step %d: error is %v, want %v", step, err, ErrNoSpace)
	}

	now, lookErr := look(r)
	switch {
	case lookErr != nil && before != "":
		t.Errorf("step %d, error %v: cannot be read: %v", step, err, lookErr)
	case err == nil && now != after:
		t.Errorf("step %d: after success there is\n%swant\n%s", step, now, after)
	case now != before && now != after && !op.between:
		t.Errorf("step %d, error %v: there is\n%swhich is neither what was\n%snor what was to be\n%s", step, err, now, before, after)
	}
	again := func() {
		err := op.run(t.Context(), r)
		if complete := op.once && errors.Is(err, ErrNotFound); err != nil && !complete {
			t.Errorf("step %d: running it again: %v", step, err)
		}
	}
	if step%2 == 0 {
		again()
	}
	if err := r.GC(t.Context()); err != nil {
		t.Errorf("step %d: gc: %v", step, err)
	}
	if left := leftovers(r); left != nil {
		t.Errorf("step %d: gc leaves %v", step, left)
	}
	if step%2 != 0 {
		again()
	}
	if now, err := look(r); err != nil || withoutBefore(now) != withoutBefore(after) {
		t.Errorf("step %d: at the end there is\n%s%v\nwant\n%s", step, now, err, after)
	}
	return disk.Reached()
}

// TestFaultsWhileItIsMade: whatever happens, the next Open makes it.
func TestFaultsWhileItIsMade(t *testing.T) {
	for _, fault := range durabletest.Faults {
		for _, powerCut := range []bool{false, true} {
			for step, reached := 1, true; reached; step++ {
				dir, trash := filepath.Join(t.TempDir(), "functions"), t.TempDir()
				disk := durabletest.New(trash, step, fault)
				_, err := Open(dir, &Options{Create: true, fs: disk})
				reached = disk.Reached()
				if powerCut && disk.Crashed() {
					if err := disk.PowerCut(); err != nil {
						t.Fatal(err)
					}
				} else if err := disk.Close(); err != nil {
					t.Fatal(err)
				}
				if _, openErr := Open(dir, nil); err == nil && openErr != nil {
					t.Errorf("%v at step %d: made, and then %v", fault, step, openErr)
				}
				deployed(t, reopen(t, dir, nil), "a", text1)
			}
		}
	}
}
