package lab

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// bytesRead returns what the machine has read from its disks since it started. The kernel counts it in KiB.
func bytesRead() (uint64, error) {
	f, err := os.Open("/proc/vmstat")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "pgpgin "); ok {
			kib, err := strconv.ParseUint(value, 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/vmstat has no pgpgin: %w", lines.Err())
}

// faults are the kernel's counts of the page faults of one process.
type faults struct{ minor, major uint64 }

// processFaults reads the counts of a process. Faults that waited for a disk are major; those that userfaultfd held up
// may count as either.
func processFaults(pid int) (faults, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return faults{}, err
	}
	// The name of the program, in parentheses, may hold anything; counting starts behind it (proc(5): field 3).
	_, rest, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 10 {
		return faults{}, fmt.Errorf("/proc/%d/stat: unexpected content %.100q", pid, data)
	}
	minor, err := strconv.ParseUint(fields[7], 10, 64) // field 10
	if err != nil {
		return faults{}, err
	}
	major, err := strconv.ParseUint(fields[9], 10, 64) // field 12
	return faults{minor: minor, major: major}, err
}

// anonymousMemory returns the memory in bytes that is a process's own: RssAnon, without the pages of mapped files. A
// process that has ended has none.
func anonymousMemory(pid int) (uint64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, lines.Err()
}
