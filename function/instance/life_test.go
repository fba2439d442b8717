package instance

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sync/errgroup"

	"thaw/checkpoint"
	"thaw/function/network"
	"thaw/function/runner"
	"thaw/pagestore"
)

func TestAFunctionThatIsNeverFrozenServesAndStops(t *testing.T) {
	f := newFixture(t)
	i := f.start(t, f.spec(t))
	load(t, i, "null")
	boot(t, i)
	if n := call[int](t, i, "count"); n != 1 {
		t.Errorf("counted to %d, want 1", n)
	}
	response, err := i.HTTP(t.Context(), "page", &runner.Request{Method: "POST", Path: "/", Body: []byte("abc")})
	if err != nil || response.Status != 200 || string(response.Body) != "cba" {
		t.Errorf("response is %+v, %v", response, err)
	}
	var failed *runner.CallError
	if _, err := i.Call(t.Context(), &runner.Call{Method: "boom"}); !errors.As(err, &failed) || failed.Type != "KeyError" {
		t.Errorf("a call that raises returned %v", err)
	}
	if err := i.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := i.Call(t.Context(), &runner.Call{Method: "count"}); !errors.Is(err, ErrState) {
		t.Errorf("a call after the end returned %v, want %v", err, ErrState)
	}
}

func TestAFunctionIsFrozenAndEachRestoreGoesOnFromThere(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	r := f.freeze(t, spec, "probe", "null")
	if r.Stopped <= 0 || r.Writing <= 0 || r.Dump < r.Stopped || r.Layer.Entries() == 0 {
		t.Errorf("report is %+v", r)
	}
	for range 2 {
		i := f.restore(t, spec, "probe")
		boot(t, i)
		if n := call[int](t, i, "count"); n != 1 {
			t.Errorf("counted to %d, want 1", n)
		}
		if name := call[string](t, i, "hostname"); name != i.ID() {
			t.Errorf("host name is %s, want %s", name, i.ID())
		}
		if err := i.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestRestoresAtTheSameTimeHaveTheirOwnFiles(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	f.freeze(t, spec, "probe", "null")
	var all [3]*Instance
	var g errgroup.Group
	for n := range all {
		g.Go(func() (err error) {
			all[n], err = f.Restore(t.Context(), spec, pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: "probe"})
			return err
		})
	}
	err := g.Wait()
	for _, i := range all {
		if i != nil {
			closeLater(t, i)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for n, i := range all {
		boot(t, i)
		names[call[string](t, i, "hostname")] = true
		call[any](t, i, "append", fmt.Sprint("by ", n))
		call[any](t, i, "write", "/var/data/kept", fmt.Sprint("changed by ", n))
		call[any](t, i, "write", "/tmp/new", fmt.Sprint("made by ", n))
	}
	if len(names) != len(all) {
		t.Errorf("host names are %v", names)
	}
	for n, i := range all {
		for path, want := range map[string]string{
			"/tmp/open":      fmt.Sprint("written before the freeze\nby ", n),
			"/var/data/kept": fmt.Sprint("changed by ", n),
			"/tmp/new":       fmt.Sprint("made by ", n),
		} {
			if got := call[string](t, i, "read", path); got != want {
				t.Errorf("%s of %d holds %q, want %q", path, n, got, want)
			}
		}
	}
	// What three have written is in none that comes later.
	i := f.restore(t, spec, "probe")
	boot(t, i)
	if got := call[string](t, i, "read", "/var/data/kept"); got != "kept" || call[bool](t, i, "exists", "/tmp/new") {
		t.Errorf("a later restore sees %q", got)
	}
}

func TestFilesAreAsTheyWereAtTheFreeze(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	f.freeze(t, spec, "probe", "null")
	i := f.restore(t, spec, "probe")
	boot(t, i)
	got := call[[]any](t, i, "files")
	want := []any{"written before the freeze\n", "deleted and open", true}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("files that were open are %v, want %v", got, want)
	}
	call[any](t, i, "append", "and after it\n")
	if got, want := call[string](t, i, "read", "/tmp/open"), "written before the freeze\nand after it\n"; got != want {
		t.Errorf("the open file has %q under its name, want %q: it is another file", got, want)
	}
	if call[bool](t, i, "exists", "/etc/motd") {
		t.Error("a file of the root that was deleted before the freeze is back")
	}
	if !call[bool](t, i, "same_inode", "/var/data/kept", "/var/data/linked") {
		t.Error("two names of one file are two files now")
	}
}

func TestASnapshotIsTakenOnTopOfAnother(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	template := f.start(t, Spec{Name: function, Root: f.root, Code: spec.Code})
	if _, err := template.Import(t.Context(), []string{"numpy"}); err != nil {
		t.Fatal(err)
	}
	if _, err := template.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	below, err := template.Freeze(t.Context(), FreezeOptions{Name: "template"})
	if err != nil {
		t.Fatal(err)
	}
	if err := template.Close(); err != nil {
		t.Fatal(err)
	}
	detached := spec
	detached.Detached = true
	builder := f.restore(t, detached, "template")
	load(t, builder, "null")
	if _, err := builder.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := builder.Freeze(t.Context(), FreezeOptions{Name: "probe"})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Layer.Below(); len(got) != 1 || got[0].Name != "template" || got[0].Digest != below.Layer.Digest() {
		t.Errorf("the layer lies on %+v, want that of the template", got)
	}
	if r.Import.NewPages*2 > r.Import.Pages {
		t.Errorf("%d of %d pages are new to the store, want most of them to be the template's", r.Import.NewPages, r.Import.Pages)
	}
	i := f.restore(t, spec, "probe")
	boot(t, i)
	if got := call[[]any](t, i, "files"); fmt.Sprint(got) != fmt.Sprint([]any{"written before the freeze\n", "deleted and open", true}) {
		t.Errorf("files that were open are %v", got)
	}
}

func TestAnInstanceHasItsNetworkOnlyAfterTheBoot(t *testing.T) {
	subnet := netip.MustParsePrefix(testSubnet)
	f := newFixture(t, withBridge(t, network.Options{Bridge: testBridge, Subnet: subnet}))
	listener, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return nil
			}
			fmt.Fprintln(conn, "hello")
			conn.Close()
		}
	})
	t.Cleanup(func() {
		listener.Close()
		_ = g.Wait()
	})
	port := listener.Addr().(*net.TCPAddr).Port

	spec := f.spec(t)
	spec.Network = true
	cold := f.start(t, spec)
	load(t, cold, "null")
	if a := cold.Addr(); a.IsValid() {
		t.Errorf("before the boot it has address %v", a)
	}
	f.freeze(t, spec, "probe", "null")
	boot(t, cold)
	restored := f.restore(t, spec, "probe")
	boot(t, restored)
	if cold.Addr() == restored.Addr() || !subnet.Contains(restored.Addr().Addr()) {
		t.Errorf("addresses are %v and %v", cold.Addr(), restored.Addr())
	}
	for _, i := range []*Instance{cold, restored} {
		if got := call[string](t, i, "connect", "10.213.77.1", port); got != "hello\n" {
			t.Errorf("%s was told %q", i.ID(), got)
		}
		if got := call[string](t, i, "read", "/etc/resolv.conf"); got != f.network.ResolvConf() {
			t.Errorf("resolv.conf is %q, want %q", got, f.network.ResolvConf())
		}
	}
}

func TestAnInstanceWithoutANetworkHasTheLoopbackInterfaceAlone(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	f.freeze(t, spec, "probe", "null")
	i := f.restore(t, spec, "probe")
	boot(t, i)
	if got := call[[]string](t, i, "interfaces"); len(got) != 1 || got[0] != "lo" {
		t.Errorf("interfaces are %v", got)
	}
}

func TestDevicesAppearAtTheBoot(t *testing.T) {
	const path = "/dev/loop-control"
	if _, err := findDevice(path); err != nil {
		t.Skipf("needs a device that does no harm: %v", err)
	}
	f := newFixture(t)
	spec := f.spec(t)
	spec.Devices = []string{path}
	cold := f.start(t, spec)
	load(t, cold, "null")
	f.freeze(t, spec, "probe", "null")
	boot(t, cold)
	restored := f.restore(t, spec, "probe")
	boot(t, restored)
	without := f.restore(t, f.spec(t), "probe")
	boot(t, without)
	for _, i := range []*Instance{cold, restored} {
		if major := call[int](t, i, "device", path); major != 10 {
			t.Errorf("%s opened a device of major number %d, want 10", i.ID(), major)
		}
	}
	if call[bool](t, without, "exists", path) {
		t.Error("an instance that did not ask for the device has it")
	}
}

func TestEnvironmentAndLimitsAreTheInstancesOwn(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	spec.Env = map[string]string{"LEVEL": "frozen"}
	f.freeze(t, spec, "probe", "null")
	spec.Limits = checkpoint.Limits{MemoryBytes: 256 << 20, CPUs: 0.5, PIDs: 64}
	i := f.restore(t, spec, "probe")
	level := "restored"
	if _, err := i.Boot(t.Context(), BootOptions{Env: map[string]*string{"LEVEL": &level}}); err != nil {
		t.Fatal(err)
	}
	if got := call[string](t, i, "environ", "LEVEL"); got != level {
		t.Errorf("LEVEL is %q, want %q", got, level)
	}
	if got := call[*string](t, i, "environ", HideGPUs); got != nil {
		t.Errorf("%s is %q behind the boot, want that it is not set", HideGPUs, *got)
	}
}

func TestAnInstanceHasNamespacesOfItsOwn(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	cold := f.start(t, spec)
	f.freeze(t, spec, "probe", "null")
	restored := f.restore(t, spec, "probe")
	for _, kind := range []string{"pid", "mnt", "net", "ipc", "uts"} {
		seen := make(map[string]string)
		for who, pid := range map[string]int{"the host": os.Getpid(), "a cold one": cold.PID(), "a restored one": restored.PID()} {
			id, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
			if err != nil {
				t.Fatal(err)
			}
			if other := seen[id]; other != "" {
				t.Errorf("%s and %s have the same %s namespace", who, other, kind)
			}
			seen[id] = who
		}
	}
}
