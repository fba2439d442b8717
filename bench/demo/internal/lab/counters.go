package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
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

// cpuTimes are the times of all cores together since the machine started, in the kernel's ticks.
type cpuTimes struct{ idle, total uint64 }

func readCPUTimes() (cpuTimes, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTimes{}, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal; guest times behind them are part of user already.
	if len(fields) < 9 || fields[0] != "cpu" {
		return cpuTimes{}, fmt.Errorf("/proc/stat: unexpected line %q", line)
	}
	var t cpuTimes
	for i, field := range fields[1:9] {
		n, err := strconv.ParseUint(field, 10, 64)
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

// busy returns the part of all cores' time between two readings that was not idle.
func busy(before, after cpuTimes) float64 {
	total := after.total - before.total
	if total == 0 {
		return 0
	}
	return 1 - float64(after.idle-before.idle)/float64(total)
}

// measureBusy returns the part of all cores that is in use during the given time.
func measureBusy(ctx context.Context, during time.Duration) (float64, error) {
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
	return busy(before, after), err
}
