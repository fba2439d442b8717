package checkpoint

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestBundleNamesItsConfigurationAndKeepsTheRootReadOnly(t *testing.T) {
	rootfs, dir := t.TempDir(), t.TempDir()
	if err := os.Mkdir(rootfs+"/srv", 0o755); err != nil {
		t.Fatal(err)
	}
	b := Bundle{
		Rootfs:      rootfs,
		Args:        []string{"python3", "/srv/app.py"},
		Env:         []string{"HF_HUB_OFFLINE=1"},
		Binds:       []Bind{{Source: "/usr", Target: "/srv"}},
		CgroupsPath: "/thaw/x",
		CRIU:        Config{ActionScript: "/opt/gate", ManageCgroups: "soft"},
	}
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		t.Fatal(err)
	}
	if !spec.Root.Readonly || spec.Root.Path != rootfs {
		t.Errorf("root is %+v", spec.Root)
	}
	if spec.Process.User.UID != 0 || spec.Process.Terminal {
		t.Errorf("process is %+v, want uid 0 and no terminal", spec.Process)
	}
	if diff := cmp.Diff([]string{"HF_HUB_OFFLINE=1", defaultPath}, spec.Process.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	bind := spec.Mounts[len(spec.Mounts)-1]
	if bind.Destination != "/srv" || !slices.Contains(bind.Options, "ro") {
		t.Errorf("bind is %+v, want /srv, read-only", bind)
	}
	config, err := os.ReadFile(spec.Annotations[ConfigAnnotation])
	if err != nil {
		t.Fatal(err)
	}
	want := "network-lock skip\nmanage-cgroups=soft\naction-script /opt/gate\n"
	if diff := cmp.Diff(want, string(config)); diff != "" {
		t.Errorf("CRIU configuration (-want +got):\n%s", diff)
	}
}

func TestBundlesThatCannotWorkAreRefused(t *testing.T) {
	rootfs := t.TempDir()
	tests := []struct {
		name   string
		bundle Bundle
	}{
		{"no command line", Bundle{Rootfs: rootfs}},
		{"a relative root file system", Bundle{Rootfs: "rootfs", Args: []string{"true"}}},
		{"a relative source", Bundle{Rootfs: rootfs, Args: []string{"true"}, Binds: []Bind{{Source: "x", Target: "/"}}}},
		{"a target that runc would have to make", Bundle{Rootfs: rootfs, Args: []string{"true"}, Binds: []Bind{{Source: "/usr", Target: "/app"}}}},
		{"an action script that CRIU's format cannot name", Bundle{Rootfs: rootfs, Args: []string{"true"}, CRIU: Config{ActionScript: "/a b"}}},
		{"a relative action script", Bundle{Rootfs: rootfs, Args: []string{"true"}, CRIU: Config{ActionScript: "gate"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := test.bundle.Write(dir); err == nil {
				t.Error("accepted")
			}
			if _, err := os.Stat(dir + "/config.json"); !errors.Is(err, os.ErrNotExist) {
				t.Error("a bundle was written")
			}
		})
	}
}

func TestFoldersOfABundleAreListed(t *testing.T) {
	dir := t.TempDir()
	config := `{"root": {"path": "rootfs", "readonly": true}, "mounts": [
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"]},
		{"destination": "/more", "type": "none", "source": "more", "options": ["bind"]}]}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := BundleFolders(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []Bind{
		{Source: filepath.Join(dir, "rootfs"), Target: "/"},
		{Source: "/srv/data", Target: "/data"},
		{Source: filepath.Join(dir, "more"), Target: "/more", Writable: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := BundleFolders(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a bundle: %v", err)
	}
}

func TestABundleWithARootOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	b := Bundle{
		Rootfs: t.TempDir(), OwnRoot: true, Args: []string{"true"}, Hostname: "h", NetworkNamespace: "/run/ns/x",
		Binds:   []Bind{{Source: "/usr", Target: "/not/there/yet"}},
		Limits:  Limits{MemoryBytes: 1 << 20, CPUs: 0.5, PIDs: 7},
		Devices: []Device{{Major: 10, Minor: 237}, {Block: true, Major: 7}},
		CRIU:    Config{GhostLimit: 5, LinkRemap: true},
	}
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	spec, err := readBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Root.Readonly || spec.Hostname != "h" {
		t.Errorf("root is %+v, host name %q", spec.Root, spec.Hostname)
	}
	var inMemory []string
	for _, m := range spec.Mounts {
		if m.Type == "tmpfs" {
			inMemory = append(inMemory, m.Destination)
		}
	}
	if diff := cmp.Diff([]string{"/dev/shm"}, inMemory); diff != "" {
		t.Errorf("file systems in memory (-want +got):\n%s", diff)
	}
	if !slices.Contains(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/run/ns/x"}) {
		t.Errorf("namespaces are %+v", spec.Linux.Namespaces)
	}
	r := spec.Linux.Resources
	if *r.Memory.Limit != 1<<20 || *r.CPU.Quota != 50_000 || *r.CPU.Period != 100_000 || *r.Pids.Limit != 7 {
		t.Errorf("limits are %+v %+v %+v", r.Memory, r.CPU, r.Pids)
	}
	major, minor, block, zero := int64(10), int64(237), int64(7), int64(0)
	want := []specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"},
		{Allow: true, Type: "b", Major: &block, Minor: &zero, Access: "rw"},
	}
	if diff := cmp.Diff(want, r.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	config, err := os.ReadFile(spec.Annotations[ConfigAnnotation])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("network-lock skip\nmanage-cgroups=ignore\nghost-limit 5\nlink-remap\n", string(config)); diff != "" {
		t.Errorf("CRIU configuration (-want +got):\n%s", diff)
	}
}

func TestLimitsAndNamespacesThatAreNoneAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Bundle){
		"a negative limit":               func(b *Bundle) { b.Limits.MemoryBytes = -1 },
		"less CPU than the kernel takes": func(b *Bundle) { b.Limits.CPUs = 0.001 },
		"a relative namespace":           func(b *Bundle) { b.NetworkNamespace = "ns" },
	} {
		b := Bundle{Rootfs: "/", Args: []string{"true"}}
		change(&b)
		if err := b.Write(t.TempDir()); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
