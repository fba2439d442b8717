package instance

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"thaw/checkpoint"
	"thaw/function/rootfs"
	"thaw/function/runner"
	"thaw/pagestore"
)

func TestARunnerThatFailsToLoadSaysWhy(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		fail  string
		check func(t *testing.T, err error)
	}{
		{"raise", func(t *testing.T, err error) {
			var failed *runner.FailedError
			if !errors.As(err, &failed) || failed.Type != "ValueError" || failed.Message != "no such model" {
				t.Errorf("a constructor that raises: %v", err)
			}
		}},
		{"die", func(t *testing.T, err error) {
			var ended *runner.EndedError
			if !errors.As(err, &ended) || !slices.Contains(ended.Log, "about to die") {
				t.Errorf("a runner that ends: %v", err)
			}
		}},
		{"memory", func(t *testing.T, err error) {
			if !errors.Is(err, ErrOutOfMemory) {
				t.Errorf("a runner that takes too much memory: %v", err)
			}
		}},
	} {
		t.Run(tt.fail, func(t *testing.T) {
			spec := f.spec(t)
			spec.Limits.MemoryBytes = 128 << 20
			i := f.start(t, spec)
			_, err := i.Load(t.Context(), LoadOptions{
				File: "app.py", Object: "Probe", Parameters: json.RawMessage(`{"fail": "` + tt.fail + `"}`),
			})
			tt.check(t, err)
			// It is over, and stays so.
			if _, err := i.Prepare(t.Context()); err == nil {
				t.Error("it can be prepared all the same")
			}
			if _, err := i.Freeze(t.Context(), FreezeOptions{Name: "dead"}); !errors.Is(err, ErrState) {
				t.Errorf("freeze: %v, want %v", err, ErrState)
			}
			if err := i.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAStartThatFailsLeavesNothing(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	spec.Binds = []checkpoint.Bind{{Source: filepath.Join(f.dir, "none"), Target: "/mnt"}}
	if i, err := f.Start(t.Context(), spec); err == nil {
		t.Error(errors.Join(errors.New("a bind of a folder that is not there was taken"), i.Close()))
	}
	spec = f.spec(t)
	spec.Devices = []string{"/dev/none"}
	if _, err := f.Start(t.Context(), spec); !errors.Is(err, ErrNoDevice) {
		t.Errorf("a device that is not there: %v, want %v", err, ErrNoDevice)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Start(cancelled, f.spec(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("a start that was cancelled: %v", err)
	}
}

// prepared returns an instance that can be frozen.
func (f *fixture) prepared(t *testing.T) *Instance {
	t.Helper()
	i := f.start(t, f.spec(t))
	load(t, i, "null")
	if _, err := i.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return i
}

func TestAnInstanceWhoseDumpFailsGoesOn(t *testing.T) {
	f := newFixture(t)
	i := f.prepared(t)
	// CRIU finds a configuration that it cannot read.
	config := filepath.Join(i.shell.bundleDir(), "criu.conf")
	good, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("no-such-option\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var tool *checkpoint.Error
	if _, err := i.Freeze(t.Context(), FreezeOptions{Name: "probe"}); !errors.As(err, &tool) {
		t.Fatalf("freeze: %v, want CRIU's error", err)
	}
	expectNoSnapshot(t, f, "probe")
	if err := os.WriteFile(config, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if i.State() != StatePrepared {
		t.Errorf("it is %s, want %s", i.State(), StatePrepared)
	}
	boot(t, i)
	if n := call[int](t, i, "count"); n != 1 {
		t.Errorf("counted to %d, want 1", n)
	}
}

func TestAFreezeIntoATakenNameLeavesTheInstanceAlone(t *testing.T) {
	f := newFixture(t)
	f.freeze(t, f.spec(t), "probe", "null")
	i := f.prepared(t)
	if _, err := i.Freeze(t.Context(), FreezeOptions{Name: "probe"}); !errors.Is(err, pagestore.ErrExists) {
		t.Errorf("freeze: %v, want %v", err, pagestore.ErrExists)
	}
	boot(t, i)
	boot(t, f.restore(t, f.spec(t), "probe"))
}

func TestAnInstanceWhoseFilesCannotBeKeptIsNotInTheStore(t *testing.T) {
	f := newFixture(t)
	i := f.prepared(t)
	// A file where the layers' folder is to be.
	if err := os.WriteFile(filepath.Join(f.options.Layers, pagestore.DefaultNamespace), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Freeze(t.Context(), FreezeOptions{Name: "probe"}); err == nil {
		t.Fatal("freeze returned no error")
	}
	if i.State() != StateFrozen {
		t.Errorf("it is %s, want %s: its container is gone", i.State(), StateFrozen)
	}
	expectNoSnapshot(t, f, "probe")
}

// expectNoSnapshot fails the test if a snapshot or a layer is there.
func expectNoSnapshot(t *testing.T, f *fixture, name string) {
	t.Helper()
	full := pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: name}
	if snap, err := f.options.Store.Snapshot(full); err == nil {
		snap.Close()
		t.Errorf("the snapshot is in the store")
	}
	if _, err := os.Stat(f.layerDir(full)); err == nil {
		t.Error("its layer is there")
	}
}

func TestARestoreThatFailsLeavesNothing(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	f.freeze(t, spec, "probe", "null")
	name := pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: "probe"}
	fails := func(t *testing.T, spec Spec, name pagestore.Name) error {
		t.Helper()
		i, err := f.Restore(t.Context(), spec, name)
		if err == nil {
			t.Error(errors.Join(errors.New("it was restored"), i.Close()))
		}
		if left, _ := os.ReadDir(f.path("instances")); len(left) > 0 {
			t.Errorf("folders of instances are left: %v", left)
		}
		return err
	}
	// First, for thawd keeps packs open that it has opened once.
	t.Run("a pack that is not there", func(t *testing.T) {
		packs, _ := filepath.Glob(filepath.Join(f.options.Store.PacksDir(name.Namespace), "*"))
		if len(packs) == 0 {
			t.Fatal("no pack")
		}
		for _, p := range packs {
			if err := os.Rename(p, filepath.Join(f.dir, filepath.Base(p))); err != nil {
				t.Fatal(err)
			}
		}
		_ = fails(t, spec, name)
		for _, p := range packs {
			if err := os.Rename(filepath.Join(f.dir, filepath.Base(p)), p); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("another root", func(t *testing.T) {
		other := spec
		dir := filepath.Join(f.dir, "other")
		if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "etc/os-release"), []byte("ID=other\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		if other.Root, err = rootfs.OpenFolder(dir); err != nil {
			t.Fatal(err)
		}
		if err := fails(t, other, name); !errors.Is(err, rootfs.ErrWrongRoot) {
			t.Errorf("restore: %v, want %v", err, rootfs.ErrWrongRoot)
		}
	})
	t.Run("no such snapshot", func(t *testing.T) {
		if err := fails(t, spec, pagestore.Name{Namespace: name.Namespace, Snapshot: "none"}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("restore: %v, want %v", err, os.ErrNotExist)
		}
	})
	t.Run("an image that CRIU cannot read", func(t *testing.T) {
		snap, err := f.options.Store.Snapshot(name)
		if err != nil {
			t.Fatal(err)
		}
		cores, _ := filepath.Glob(filepath.Join(snap.SkeletonDir(), "core-*.img"))
		if err := snap.Close(); err != nil || len(cores) == 0 {
			t.Fatalf("no core image: %v", err)
		}
		good, err := os.ReadFile(cores[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(cores[0], 20); err != nil {
			t.Fatal(err)
		}
		err = fails(t, spec, name)
		if err := os.WriteFile(cores[0], good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err == nil || !strings.Contains(err.Error(), "runc restore") {
			t.Errorf("restore: %v, want runc's error", err)
		}
	})
	boot(t, f.restore(t, spec, "probe"))
}

func TestStopWaitsForTheCallThatRunsAndNoLongerThanItMay(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		name    string
		seconds float64
		killed  bool
	}{
		{"a call that ends", 0.2, false},
		{"a call that does not", 600, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := f.start(t, f.spec(t))
			load(t, i, "null")
			boot(t, i)
			text, _ := json.Marshal([]any{tt.seconds})
			called := make(chan error)
			go func() {
				_, err := i.Call(t.Context(), &runner.Call{Method: "sleep", Args: text})
				called <- err
			}()
			for !slices.Contains(i.Log(), "sleeping") { // until the call is under way
			}
			ctx, cancel := context.WithCancel(t.Context())
			if tt.killed {
				cancel()
			}
			defer cancel()
			err := i.Stop(ctx)
			if (err != nil) != tt.killed {
				t.Errorf("stop: %v, killed: %t", err, tt.killed)
			}
			if err := <-called; (err != nil) != tt.killed {
				t.Errorf("the call: %v", err)
			}
		})
	}
}

func TestARunnerThatDiesFailsItsCalls(t *testing.T) {
	f := newFixture(t)
	i := f.start(t, f.spec(t))
	load(t, i, "null")
	boot(t, i)
	var ended *runner.EndedError
	if _, err := i.Call(t.Context(), &runner.Call{Method: "die"}); !errors.As(err, &ended) || !slices.Contains(ended.Log, "dying") {
		t.Errorf("call: %v, want the end of the runner, with its log", err)
	}
	<-i.Ended()
	if err := i.Stop(t.Context()); err == nil {
		t.Error("stop of a runner that is gone returned no error")
	}
}
