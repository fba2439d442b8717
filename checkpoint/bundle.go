package checkpoint

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Bundle describes a container that can be frozen: a root file system, and pid, mount, IPC, UTS and network namespaces of its own. Its
// process runs as uid 0 of the host's user namespace, because CRIU without CAP_SYS_RESOURCE cannot read the limits of a process of another uid.
type Bundle struct {
	// Rootfs is the absolute path of the root file system. It is mounted read-only and never written to, unless OwnRoot is set; then
	// many containers may share it.
	Rootfs string
	// OwnRoot says that the root file system is this container's alone, and may be written to. /tmp and /dev are then part of it; by default
	// they are file systems in memory, whose files CRIU keeps in its images.
	OwnRoot bool
	// Hostname is the host name at the start, by default "thaw". A restored container has the frozen one's.
	Hostname string
	// NetworkNamespace is the path of a network namespace for the container. Neither a freeze nor a restore looks at its interfaces. Default: a
	// new one.
	NetworkNamespace string
	// Args is the command line of the process.
	Args []string
	// Env is its environment, as KEY=value. PATH is set if Env does not set it.
	Env []string
	// Dir is its working folder, by default "/".
	Dir string
	// Binds are folders of the host that the container sees.
	Binds []Bind
	// CgroupsPath is the container's cgroup below the root of each hierarchy, such as "/thaw/demo-1". No two containers
	// may share one. Empty means runc's choice: the container's id below the cgroup of runc itself.
	CgroupsPath string
	// Limits bound what the container may use. The zero value bounds nothing.
	Limits Limits
	// Devices may be used by the container besides those that every container has. Their nodes are not made.
	Devices []Device
	// CRIU holds options for CRIU; Write puts them beside config.json.
	CRIU Config
}

// Bind is a folder or a file of the host that a container sees, read-only unless Writable.
type Bind struct {
	// Source is the absolute path on the host.
	Source string
	// Target is the absolute path in the container. It must be there in the root file system: runc would otherwise
	// make it, in the root file system that all containers share.
	Target   string
	Writable bool
}

// Limits bound what a container may use. They hold from its start, for the restore too.
type Limits struct {
	MemoryBytes int64   // 0: no bound
	CPUs        float64 // how many CPUs' worth of time, such as 0.5; 0: no bound
	PIDs        int64   // processes and threads; 0: no bound
}

// cpuPeriod is the period of the CPU limit in microseconds: the kernel's own default.
const cpuPeriod = 100_000

// minCPUs is the smallest CPU limit: the kernel takes no quota below 1 ms.
const minCPUs = 1000.0 / cpuPeriod

// Device is a device by its number.
type Device struct {
	Block        bool // else a character device
	Major, Minor int64
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// criuConfigFile is the name of the CRIU configuration file in a bundle.
const criuConfigFile = "criu.conf"

// Write makes the folder dir, if it is not there, and writes the bundle into it. Restores of one snapshot need a bundle
// each, with a cgroup of its own; everything else in the bundle must be what it was at the freeze.
func (b *Bundle) Write(dir string) error {
	if err := b.check(); err != nil {
		return err
	}
	if err := makeDirs(dir); err != nil {
		return err
	}
	config := filepath.Join(dir, criuConfigFile)
	if err := b.CRIU.WriteFile(config); err != nil {
		return err
	}
	spec := b.spec(config)
	if b.OwnRoot {
		if err := hideByBind(spec, filepath.Join(dir, "empty")); err != nil {
			return err
		}
	}
	data, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return fmt.Errorf("encode bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// firmware is a folder of sysfs that no container needs to see.
const firmware = "/sys/firmware"

// hideByBind hides the host's firmware behind an empty folder of the bundle. runc would mount a file system in memory, and CRIU run tar for it.
func hideByBind(spec *specs.Spec, empty string) error {
	if _, err := os.Stat(firmware); err != nil {
		return nil // this host has none
	}
	if err := os.MkdirAll(empty, 0o555); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	spec.Linux.MaskedPaths = slices.DeleteFunc(spec.Linux.MaskedPaths, func(path string) bool { return path == firmware })
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: firmware, Type: "bind", Source: empty, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
	})
	return nil
}

// readBundle reads the configuration of a bundle.
func readBundle(dir string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("read bundle %s: %w", dir, err)
	}
	return &spec, nil
}

// BundleFolders returns which folders of the host a container of the bundle sees, and where: its root file system and its bind
// mounts. Anybody may have written the bundle. Sources that are not absolute are relative to it and come out absolute if dir is.
func BundleFolders(dir string) ([]Bind, error) {
	spec, err := readBundle(dir)
	if err != nil {
		return nil, err
	}
	var binds []Bind
	if root := spec.Root; root != nil {
		at := root.Path
		if !filepath.IsAbs(at) {
			at = filepath.Join(dir, at)
		}
		binds = append(binds, Bind{Source: at, Target: "/", Writable: !root.Readonly})
	}
	for _, m := range spec.Mounts {
		recursive := slices.Contains(m.Options, "rbind")
		if m.Type != "bind" && !recursive && !slices.Contains(m.Options, "bind") {
			continue
		}
		if !filepath.IsAbs(m.Source) {
			m.Source = filepath.Join(dir, m.Source)
		}
		binds = append(binds, Bind{Source: m.Source, Target: m.Destination, Writable: !slices.Contains(m.Options, "ro")})
	}
	return binds, nil
}

func (b *Bundle) check() error {
	if len(b.Args) == 0 {
		return fmt.Errorf("bundle of %s: no command line", b.Rootfs)
	}
	if !filepath.IsAbs(b.Rootfs) {
		return fmt.Errorf("root file system: %w: %q", ErrNotAbsolute, b.Rootfs)
	}
	for _, bind := range b.Binds {
		if !filepath.IsAbs(bind.Source) {
			return fmt.Errorf("source of %s: %w: %q", bind.Target, ErrNotAbsolute, bind.Source)
		}
		if b.OwnRoot {
			continue // runc makes it
		}
		if _, err := os.Stat(filepath.Join(b.Rootfs, bind.Target)); err != nil {
			return fmt.Errorf("target of a bind must be there in the root file system: %w", err)
		}
	}
	if l := b.Limits; l.MemoryBytes < 0 || l.PIDs < 0 || l.CPUs < 0 || (l.CPUs > 0 && l.CPUs < minCPUs) {
		return fmt.Errorf("limits %+v: none may be negative, and CPUs not less than %g", l, minCPUs)
	}
	if ns := b.NetworkNamespace; ns != "" && !filepath.IsAbs(ns) {
		return fmt.Errorf("network namespace: %w: %q", ErrNotAbsolute, ns)
	}
	return nil
}

// spec returns the OCI configuration.
func (b *Bundle) spec(criuConfig string) *specs.Spec {
	return &specs.Spec{
		// The version that runc 1.1 writes itself; nothing newer is used.
		Version:  "1.0.2",
		Root:     &specs.Root{Path: b.Rootfs, Readonly: !b.OwnRoot},
		Hostname: orDefault(b.Hostname, "thaw"),
		Process: &specs.Process{
			Args:            b.Args,
			Env:             b.environ(),
			Cwd:             orDefault(b.Dir, "/"),
			Capabilities:    capabilities(),
			NoNewPrivileges: true,
		},
		Mounts:      b.mounts(),
		Annotations: map[string]string{ConfigAnnotation: criuConfig},
		Linux: &specs.Linux{
			CgroupsPath: b.CgroupsPath,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: b.NetworkNamespace},
			},
			Resources:     b.resources(),
			MaskedPaths:   []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", firmware},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// resources returns what the container's cgroup allows.
func (b *Bundle) resources() *specs.LinuxResources {
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	for _, d := range b.Devices {
		kind := "c"
		if d.Block {
			kind = "b"
		}
		// Without m: whoever gives a container a device makes the node.
		r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &d.Major, Minor: &d.Minor, Access: "rw"})
	}
	if n := b.Limits.MemoryBytes; n > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &n}
	}
	if b.Limits.CPUs > 0 {
		period, quota := uint64(cpuPeriod), int64(b.Limits.CPUs*cpuPeriod)
		r.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if n := b.Limits.PIDs; n > 0 {
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	return r
}

func (b *Bundle) environ() []string {
	env := slices.Clone(b.Env)
	if !slices.ContainsFunc(env, func(s string) bool { return len(s) >= 5 && s[:5] == "PATH=" }) {
		env = append(env, defaultPath)
	}
	return env
}

// capabilities are those of a process that needs no privilege: it may signal its own children and listen on low ports.
func capabilities() *specs.LinuxCapabilities {
	few := []string{"CAP_KILL", "CAP_NET_BIND_SERVICE"}
	return &specs.LinuxCapabilities{Bounding: few, Effective: few, Permitted: few}
}

func (b *Bundle) mounts() []specs.Mount {
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777"}},
	}
	if b.OwnRoot {
		// For each file system in memory CRIU runs tar, at the freeze and at every restore, which takes 4 ms each.
		mounts = slices.DeleteFunc(mounts, func(m specs.Mount) bool { return m.Destination == "/tmp" || m.Destination == "/dev" })
	}
	for _, bind := range b.Binds {
		options := []string{"rbind", "nosuid", "nodev"}
		if !bind.Writable {
			options = append(options, "ro")
		}
		mounts = append(mounts, specs.Mount{Destination: bind.Target, Type: "bind", Source: bind.Source, Options: options})
	}
	return mounts
}
