package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"thaw/control"
	"thaw/function"
	"thaw/function/gateway"
	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/function/rootfs"
	"thaw/function/runner"
	"thaw/function/sdk"
	"thaw/internal/testenv"
	"thaw/pagestore"
)

// drawn is what an instance has drawn from each generator: those that keep state in memory, those that ask the kernel or the host, and one
// that nobody can know of.
type drawn struct{ Kept, Asked, Same map[string]any }

func TestRestoresDrawNothingAlike(t *testing.T) {
	testenv.NeedPython(t, "numpy", "torch")
	f := newServed(t)
	s := f.serveFunctions(t, noIdle, "--freeze-after=-1")
	d := f.deploy(t, "unique")
	frozen := f.freezeNow(t, "unique/Draws", "")
	if len(frozen.Generators) != 1 || !strings.Contains(frozen.Generators[0], "forgotten") {
		t.Errorf("generators that nobody has registered are %q, want the one of the object", frozen.Generators)
	}
	f.awaitLog(t, "unique/Draws", "register it with thaw.register_rng")

	var answers [2]gateway.Answer
	for i := range answers {
		answers[i] = f.ask(t, "unique/Draws.draw")
		expectBoot(t, answers[i], function.BootRestored)
	}
	one, other := valueOf[drawn](t, answers[0]), valueOf[drawn](t, answers[1])
	if len(one.Kept) != 16 || len(one.Asked) != 6 {
		t.Errorf("drawn was from %d and %d generators, want 16 and 6", len(one.Kept), len(one.Asked))
	}
	expectAlike(t, one.Kept, other.Kept, false)
	expectAlike(t, one.Asked, other.Asked, false)
	expectAlike(t, one.Same, other.Same, true)

	// The same with reseeding off: or all this would prove nothing.
	s.stop(t)
	first, second := f.keepRandom(t, &d, frozen.Snapshot), f.keepRandom(t, &d, frozen.Snapshot)
	expectAlike(t, first.Kept, second.Kept, true)
	expectAlike(t, first.Same, second.Same, true)
	expectAlike(t, first.Asked, second.Asked, false)
}

// expectAlike fails the test unless all have drawn alike, or none.
func expectAlike(t *testing.T, one, other map[string]any, alike bool) {
	t.Helper()
	for name, v := range one {
		if got := jsonOf(t, v) == jsonOf(t, other[name]); got != alike {
			t.Errorf("%s: %v and %v; alike is %t, want %t", name, v, other[name], got, alike)
		}
	}
}

// keepRandom restores a snapshot as the function server does, but for the random state, which stays as it was frozen.
func (f *served) keepRandom(t *testing.T, d *deployment, snapshot string) (got drawn) {
	t.Helper()
	reg, err := registry.Open(f.state, nil)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := reg.Lease(d.App, d.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	root, err := rootfs.OpenFolder(testenv.Rootfs(t))
	if err != nil {
		t.Fatal(err)
	}
	store, err := pagestore.Open(f.store, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	thawd := control.NewClient(f.socket)
	defer thawd.Close()
	sdkDir := sdk.Folder(reg.SDKs(), lease.Record().Runtime.SDKDigest)
	host, err := instance.Open(t.Context(), instance.HostOptions{
		Dir: filepath.Join(f.state, "instances"), CRIU: testenv.CRIU(t), Runc: testenv.Runc(t), Store: store, Thawd: thawd, SDK: sdkDir,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	}()
	name, err := pagestore.ParseName(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	i, err := host.Restore(t.Context(), instance.Spec{Name: f.mark, Root: root, Code: lease.Code(), Env: lease.Record().CPU.Environment()}, name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := i.Boot(t.Context(), instance.BootOptions{KeepRandom: true}); err != nil {
		t.Fatal(err)
	}
	r, err := i.Call(t.Context(), &runner.Call{Method: "draw"})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(r.Value, &got); err != nil {
		t.Fatal(err)
	}
	return got
}
