package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"thaw/bench/demo/internal/report"
	"thaw/checkpoint"
)

// describeHost returns what the runs are made with. What the machine does not tell is left empty.
func describeHost(ctx context.Context, tools *checkpoint.Tools, dir string) (report.Host, error) {
	h := report.Host{
		CPU:        field("/proc/cpuinfo", "model name"),
		Cores:      runtime.NumCPU(),
		OS:         strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`),
		FileSystem: fileSystem(dir),
		Go:         runtime.Version(),
		Commit:     commit(ctx),
		Date:       time.Now().UTC().Truncate(time.Second),
	}
	if kib, err := strconv.ParseUint(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		h.Memory = kib << 10
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		h.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	var err error
	if h.CRIU, err = tools.CRIUVersion(ctx); err != nil {
		return h, err
	}
	h.Runc, err = tools.RuncVersion(ctx)
	return h, err
}

// field returns the value of the first "key: value" or "key=value" line of a file, empty if there is none.
func field(path, key string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), key)
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		if value, ok := strings.CutPrefix(rest, ":"); ok {
			return strings.TrimSpace(value)
		}
		if value, ok := strings.CutPrefix(rest, "="); ok {
			return value
		}
	}
	return ""
}

// fileSystem returns the name of the file system that a folder lies on, its magic number if we do not know it.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return ""
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("0x%x", st.Type)
}

// commit returns the commit that the program was built from, as far as git knows.
func commit(ctx context.Context) string {
	head, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(head))
	if changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output(); err == nil && len(changes) > 0 {
		name += "-dirty"
	}
	return name
}
