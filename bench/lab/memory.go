package lab

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// restoreMemory is what a restore needs of memory beside the pages of its processes and the files that these come from: runc, CRIU,
// libraries, in bytes.
const restoreMemory = 512 << 20

// OwnMemory has so many bytes of free memory backed by the host, if this machine is a virtual one. A host that is told of free pages takes
// them back within seconds, and the first touch of one it has taken costs some ten times as much as of another (11 us instead of
// 1.3 us for a page, measured: more than an install). So what a process of the trial before has given back, and how long ago, would
// decide what this one measures. The kernel hands out first what was freed last.
func OwnMemory(bytes uint64) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	n := min(bytes, info.Freeram*uint64(info.Unit)/2)
	memory, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("touch %d bytes of memory: %w", n, err)
	}
	return unix.Munmap(memory)
}
