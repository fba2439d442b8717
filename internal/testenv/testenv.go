package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/uffd"
)

// Environment variables that override what this package finds.
const (
	envRequire = "THAW_REQUIRE"
	envCRIU    = "THAW_CRIU"
	envRunc    = "THAW_RUNC"
	envPodman  = "THAW_PODMAN"
	envRootfs  = "THAW_ROOTFS"
	envDeps    = "THAW_DEPS"

	envS3Server = "THAW_S3_SERVER"
)

// missing skips the test, or fails it where nothing may be missing.
func missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	msg := fmt.Sprintf(format, args...)
	if required, _ := strconv.ParseBool(os.Getenv(envRequire)); required {
		tb.Fatalf("%s=1: %s", envRequire, msg)
	}
	tb.Skip(msg)
}

// NeedRoot skips the test unless it runs as root.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	if uid := os.Geteuid(); uid != 0 {
		missing(tb, "needs root, runs as uid %d: run the tests with sudo", uid)
	}
}

var probe = sync.OnceValues(uffd.Probe)

// NeedUserfaultfd skips the test unless a process may make a userfaultfd that reports faults in kernel mode and
// forks, and the kernel has all the features.
func NeedUserfaultfd(tb testing.TB, features ...uffd.Features) uffd.Info {
	tb.Helper()
	info, err := probe()
	if err != nil {
		missing(tb, "needs userfaultfd: %v", err)
	}
	if info.SyscallErr != nil && info.DeviceErr != nil {
		missing(tb, "needs userfaultfd for faults in kernel mode: run as root, or sysctl vm.unprivileged_userfaultfd=1: %v", info.SyscallErr)
	}
	if info.ForkErr != nil {
		missing(tb, "needs userfaultfd's fork events: run as root: %v", info.ForkErr)
	}
	for _, want := range features {
		if lacks := want &^ info.Features; lacks != 0 {
			missing(tb, "needs userfaultfd with %v: use Linux %s or newer", lacks, lacks.Since())
		}
	}
	return info
}

// NeedTracing skips the test unless this process may attach BPF programs to the kernel's tracepoints of page faults.
func NeedTracing(tb testing.TB) {
	tb.Helper()
	NeedRoot(tb)
	for _, event := range []string{"exceptions/page_fault_user", "exceptions/page_fault_kernel", "task/task_newtask"} {
		if _, err := os.Stat("/sys/kernel/tracing/events/" + event); err != nil {
			missing(tb, "needs the kernel's tracepoints: mount -t tracefs none /sys/kernel/tracing: %v", err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		tb.Fatalf("capget: %v", err)
	}
	for name, bit := range map[string]uint{"CAP_BPF": unix.CAP_BPF, "CAP_PERFMON": unix.CAP_PERFMON} {
		if sets[bit/32].Effective&(1<<(bit%32)) == 0 {
			missing(tb, "needs %s: run the tests where it is granted", name)
		}
	}
}

// CgroupV2 returns the folder where cgroups of version 2 are mounted. It skips the test if they are not, or if no group
// can be made there.
func CgroupV2(tb testing.TB) string {
	tb.Helper()
	NeedRoot(tb)
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC && unix.Access(dir, unix.W_OK) == nil {
			return dir
		}
	}
	missing(tb, "needs cgroups of version 2 that can be written to: mount -t cgroup2 none /sys/fs/cgroup")
	return ""
}

// NeedCC skips the test unless there is a C compiler, and returns its path.
func NeedCC(tb testing.TB) string {
	tb.Helper()
	name := os.Getenv("CC")
	if name == "" {
		name = "cc"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		missing(tb, "needs a C compiler: apt-get install gcc libc6-dev: %v", err)
	}
	return path
}

// CRIU returns the path of a CRIU that can serve these tests, 4.2 or newer: $THAW_CRIU, else the one that
// "make deps" unpacks, else that of the system. It skips the test if there is none.
func CRIU(tb testing.TB) string {
	tb.Helper()
	NeedRoot(tb)
	path, err := findCRIU(tb)
	if err != nil {
		missing(tb, "needs CRIU %v or newer: make deps: %v", minCRIU, err)
	}
	return path
}

var minCRIU = version{4, 2}

type version struct{ major, minor int }

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v version) less(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

func findCRIU(tb testing.TB) (string, error) {
	tb.Helper()
	if path := os.Getenv(envCRIU); path != "" {
		return path, checkCRIU(path)
	}
	if path := filepath.Join(deps(tb), "bin", "criu"); isFile(path) {
		return path, checkCRIU(path)
	}
	path, err := exec.LookPath("criu")
	if err != nil {
		return "", err
	}
	return path, checkCRIU(path)
}

var criuVersion = regexp.MustCompile(`(?m)^Version: (\d+)\.(\d+)`)

// checkCRIU runs path, since a file that cannot run is as good as none.
func checkCRIU(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s --version: %w: %s", path, err, out)
	}
	v, err := parseCRIUVersion(string(out))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if v.less(minCRIU) {
		return fmt.Errorf("%s is version %v", path, v)
	}
	return nil
}

func parseCRIUVersion(out string) (version, error) {
	m := criuVersion.FindStringSubmatch(out)
	if m == nil {
		return version{}, fmt.Errorf("no version in %q", out)
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return version{}, err
	}
	minor, err := strconv.Atoi(m[2])
	return version{major, minor}, err
}

// Runc returns the path of runc: $THAW_RUNC, else that of the system. It skips the test if there is none.
func Runc(tb testing.TB) string {
	tb.Helper()
	NeedRoot(tb)
	name := os.Getenv(envRunc)
	if name == "" {
		name = "runc"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		missing(tb, "needs runc: make deps: %v", err)
	}
	return path
}

// S3Server returns the path of versitygw, an S3 server: $THAW_S3_SERVER, else the one that "make test-deps" builds. It skips the test if there is none.
func S3Server(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv(envS3Server)
	if path == "" {
		path = filepath.Join(deps(tb), "bin", "versitygw")
	}
	if !isFile(path) {
		missing(tb, "needs the S3 server versitygw, and there is no %s: make test-deps", path)
	}
	return path
}

// Podman returns the path of podman: $THAW_PODMAN, else that of the system. It skips the test if there is none.
func Podman(tb testing.TB) string {
	tb.Helper()
	NeedRoot(tb)
	name := os.Getenv(envPodman)
	if name == "" {
		name = "podman"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		missing(tb, "needs podman: make test-deps: %v", err)
	}
	return path
}

// Rootfs returns the path of a root file system with Python and a model: $THAW_ROOTFS, else the one that
// "make deps" builds. Tests must not write to it. It skips the test if there is none.
func Rootfs(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv(envRootfs)
	if path == "" {
		path = filepath.Join(deps(tb), "rootfs")
	}
	if !isDir(path) {
		missing(tb, "needs a root file system with Python: make deps: %s is no folder", path)
	}
	return path
}

// NeedPython skips the test unless the root file system has these modules of Python among its packages.
func NeedPython(tb testing.TB, modules ...string) {
	tb.Helper()
	rootfs := Rootfs(tb)
	for _, module := range modules {
		if !isDir(filepath.Join(rootfs, "usr/lib/python3/dist-packages", module)) {
			missing(tb, "needs Python's %s in the root file system: make deps: %s is older than its script", module, rootfs)
		}
	}
}

// RepoRoot returns the folder that holds go.mod.
func RepoRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for !isFile(filepath.Join(dir, "go.mod")) {
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("no go.mod above the working folder")
		}
		dir = parent
	}
	return dir
}

// deps is the folder that the set-up scripts fill.
func deps(tb testing.TB) string {
	tb.Helper()
	if dir := os.Getenv(envDeps); dir != "" {
		return dir
	}
	return filepath.Join(RepoRoot(tb), ".deps")
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
