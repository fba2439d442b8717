package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/cpu"
	"thaw/function"
	"thaw/function/registry"
	"thaw/function/version"
)

func TestWhateverChangesMakesANewVersionAndASnapshotInTime(t *testing.T) {
	f := newServed(t)
	f.serveFunctions(t, noIdle, "--freeze-after=1")
	known := make(map[version.Key]bool)
	snapshots := make(map[string]bool)
	var args []string
	value := `[1, "weights"]`
	// served fails the test unless the current version begins cold, and is restored from a snapshot of its own then.
	served := func(name string) {
		t.Helper()
		a := f.ask(t, "key/Key.value")
		expectBoot(t, a, function.BootCold)
		snap := f.awaitSnapshot(t, "key", "Key")
		if snapshots[snap.Name] {
			t.Errorf("%s: %s is the snapshot of another version, too", name, snap.Name)
		}
		snapshots[snap.Name] = true
		b := f.ask(t, "key/Key.value")
		expectBoot(t, b, function.BootRestored)
		if compact(a.Value) != compact([]byte(value)) || compact(b.Value) != compact([]byte(value)) {
			t.Errorf("%s: values are %s and %s, want %s", name, a.Value, b.Value, value)
		}
	}
	first := f.deploy(t, "key")
	known[first.Key] = true
	served("the first")
	for _, tt := range []struct {
		name   string
		change func()
		want   string // the change that deploy shows; empty: it is the same version
		value  string
	}{
		{"nothing", func() {}, "", ""},
		{"a file that is no part of it", func() { f.put(t, "key", "notes.txt", "notes") }, "", ""},
		{"the time of a file", func() { f.put(t, "key", "helper.py", "VALUE = 1\n") }, "", ""},
		{"code", func() { f.edit(t, "key", "helper.py", "1", "2") }, "code: helper.py changed", `[2, "weights"]`},
		{"a comment", func() { f.edit(t, "key", "helper.py", "2", "2  # two") }, "code: helper.py changed", ""},
		{"the lock file", func() { f.edit(t, "key", "requirements.lock", "2.2", "2.3") }, "dependencies: requirements.lock changed", ""},
		{"a data file", func() { f.edit(t, "key", "model.bin", "weights", "others") }, "data: model.bin changed", `[2, "others"]`},
		{"the CPU", func() { args = []string{"--cpu", "x86-64-v2"} }, "cpu: ", ""},
	} {
		tt.change()
		d := f.deploy(t, "key", args...)
		switch changes := changesOf(&d); {
		case tt.want == "":
			if d.New || d.Switched || len(changes) > 0 {
				t.Errorf("%s: deployed %+v, want that nothing happens", tt.name, d)
			}
			continue
		case !d.New || known[d.Key] || !slices.ContainsFunc(changes, func(c string) bool { return strings.HasPrefix(c, tt.want) }):
			t.Errorf("%s: new is %t, changes %q, want %s", tt.name, d.New, changes, tt.want)
		}
		known[d.Key] = true
		if tt.value != "" {
			value = tt.value
		}
		served(tt.name)
	}

	// A version that was there is served by its snapshot at once.
	f.put(t, "key", "helper.py", "VALUE = 1\n")
	f.put(t, "key", "requirements.lock", "numpy==2.2\n")
	f.put(t, "key", "model.bin", "weights")
	if d := f.deploy(t, "key"); d.New || !d.Switched || d.Key != first.Key {
		t.Errorf("the first again: %+v", d)
	}
	a := f.ask(t, "key/Key.value")
	expectBoot(t, a, function.BootRestored)
	if compact(a.Value) != `[1,"weights"]` {
		t.Errorf("the first again: %s", a.Value)
	}
}

// put writes a file of an app.
func (f *served) put(t *testing.T, app, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, "apps", app, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASnapshotIsNotForACPUThatLacksWhatItMayUse(t *testing.T) {
	host, err := cpu.ThisHost()
	if err != nil {
		t.Fatal(err)
	}
	if !host.Features.Has("avx2") {
		t.Skip("needs a CPU with AVX2")
	}
	f := newServed(t)
	full := f.serveFunctions(t, noIdle, "--freeze-after=1")
	f.deploy(t, "key")
	f.ask(t, "key/Key.value")
	of := f.awaitSnapshot(t, "key", "Key")
	expectBoot(t, f.ask(t, "key/Key.value"), function.BootRestored)
	full.stop(t)

	// A host without AVX2 has a cold start, and then a snapshot of its own.
	hidden := f.serveFunctions(t, noIdle, "--freeze-after=1", "--hide-cpu=avx2")
	expectBoot(t, f.ask(t, "key/Key.value"), function.BootCold)
	until(t, "there is a second snapshot", func() bool { return len(f.snapshots(t, "key", "Key")) == 2 })
	expectBoot(t, f.ask(t, "key/Key.value"), function.BootRestored)
	hidden.stop(t)
	for _, s := range f.snapshots(t, "key", "Key") {
		switch {
		case s.Name == of.Name && (s.Uses != 1 || s.Failures != 0 || !s.CPU.Has("avx2")):
			t.Errorf("the first snapshot is %+v, want that it was used once", s)
		case s.Name != of.Name && (s.Uses != 1 || s.CPU.Has("avx2") || s.CPU.Has("fma") != host.Features.Has("fma")):
			t.Errorf("the second snapshot is %+v, want that it was used once, and may use no AVX2", s)
		}
	}

	// With everything there again, the one that may use most is taken.
	full = f.serveFunctions(t, noIdle, "--freeze-after=1")
	expectBoot(t, f.ask(t, "key/Key.value"), function.BootRestored)
	full.stop(t)
	if uses := f.usesOf(t, of.Name); uses != 2 {
		t.Errorf("the first snapshot was used %d times, want 2", uses)
	}
}

func (f *served) usesOf(t *testing.T, snapshot string) uint64 {
	t.Helper()
	all := f.snapshots(t, "key", "Key")
	i := slices.IndexFunc(all, func(s listedSnapshot) bool { return s.Name == snapshot })
	if i < 0 {
		t.Fatalf("%s is not among %+v", snapshot, all)
	}
	return all[i].Uses
}

func TestAMaskLetsOneSnapshotServeAnOlderFleet(t *testing.T) {
	f := newServed(t)
	full := f.serveFunctions(t, noIdle, "--freeze-after=1")
	f.deploy(t, "key", "--cpu=x86-64-v2")
	f.ask(t, "key/Key.value")
	of := f.awaitSnapshot(t, "key", "Key")
	v2, _ := cpu.Level("x86-64-v2")
	if diff := cmp.Diff(v2, of.CPU); diff != "" {
		t.Errorf("what the snapshot may use (-want +got):\n%s", diff)
	}
	full.stop(t)
	for n, hide := range []string{"--hide-cpu=avx2", "--hide-cpu=avx", "--hide-cpu="} {
		s := f.serveFunctions(t, noIdle, "--freeze-after=1", hide)
		expectBoot(t, f.ask(t, "key/Key.value"), function.BootRestored)
		s.stop(t)
		if got := f.snapshots(t, "key", "Key"); len(got) != 1 || got[0].Uses != uint64(n+1) || got[0].State != registry.StateGood {
			t.Errorf("%s: snapshots are %+v, want the one", hide, got)
		}
	}
	// One that is older still starts cold.
	s := f.serveFunctions(t, noIdle, "--freeze-after=-1", "--hide-cpu=sse4_2")
	expectBoot(t, f.ask(t, "key/Key.value"), function.BootCold)
	s.stop(t)
	if uses := f.usesOf(t, of.Name); uses != 3 {
		t.Errorf("the snapshot was used %d times, want 3", uses)
	}
}
