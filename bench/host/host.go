package host

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"thaw/bench/result"
	"thaw/internal/cprogram"
)

// busyFor is how long the machine is watched for other people's work.
const busyFor = time.Second

// Describe returns what a run is made with. dir is the folder with its files, criu the version of CRIU, empty if there is
// none. It takes a second, in which it watches how busy the machine is. What the machine does not tell is left empty.
func Describe(ctx context.Context, dir, criu string) (result.Host, error) {
	h := result.Host{
		CPU:        field("/proc/cpuinfo", "model name"),
		Cores:      runtime.NumCPU(),
		OS:         strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`),
		FileSystem: fileSystem(dir),
		Go:         runtime.Version(),
		Arch:       runtime.GOARCH,
		CC:         firstLine(ctx, cprogram.Compiler(), "--version"),
		CRIU:       criu,
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
	h.Busy, err = busy(ctx, busyFor)
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
		for _, sign := range []string{":", "="} {
			if value, ok := strings.CutPrefix(rest, sign); ok {
				return strings.TrimSpace(value)
			}
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
	return fmt.Sprintf("%#x", st.Type)
}

func firstLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// commit returns the commit that the program was built from: what the toolchain stamped into it, else that of the working
// folder.
func commit(ctx context.Context) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		var revision, dirty string
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "-dirty"
			}
		}
		if len(revision) >= 12 {
			return revision[:12] + dirty
		}
	}
	head := firstLine(ctx, "git", "rev-parse", "--short=12", "HEAD")
	if head == "" {
		return "unknown"
	}
	if firstLine(ctx, "git", "status", "--porcelain", "--untracked-files=no") != "" {
		head += "-dirty"
	}
	return head
}

// cpuTimes are the times of all cores together since the machine started, in the kernel's ticks.
type cpuTimes struct{ idle, total uint64 }

// parseCPUTimes reads the first line of /proc/stat.
func parseCPUTimes(stat []byte) (cpuTimes, error) {
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal; guest times behind them are part of user already.
	if len(fields) < 9 || fields[0] != "cpu" {
		return cpuTimes{}, fmt.Errorf("/proc/stat: unexpected line %q", line)
	}
	var t cpuTimes
	for i, f := range fields[1:9] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return cpuTimes{}, fmt.Errorf("/proc/stat: %w", err)
		}
		t.total += n
		if i == 3 || i == 4 {
			t.idle += n
		}
	}
	return t, nil
}

// share returns the part of all cores' time between two readings that was not idle.
func share(before, after cpuTimes) float64 {
	total := after.total - before.total
	if total == 0 {
		return 0
	}
	return 1 - float64(after.idle-before.idle)/float64(total)
}

// busy returns the part of all cores that is in use during the given time.
func busy(ctx context.Context, during time.Duration) (float64, error) {
	before, err := readCPUTimes()
	if err != nil {
		return 0, err
	}
	timer := time.NewTimer(during)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-timer.C:
	}
	after, err := readCPUTimes()
	return share(before, after), err
}

func readCPUTimes() (cpuTimes, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTimes{}, err
	}
	return parseCPUTimes(stat)
}
