package lab

import (
	"errors"
	"fmt"
	"iter"
	"maps"

	"golang.org/x/sys/unix"
)

// restoreMemory is what a restore needs of memory beside the pages of its processes and the files that these come from: runc, CRIU,
// libraries, in bytes.
const restoreMemory = 512 << 20

// ownedRestores is of how many restores at the same time the processes' memory is made the machine's own first. More take so long, some 3 s
// for a GiB, that nothing else would be measured; that is a disadvantage of those who copy memory.
const ownedRestores = 16

// needed returns how much memory a start of these containers may need, in bytes: for their processes, and with a dropped cache for the
// files that these come from.
func needed(frozen []*Frozen, cache Cache) uint64 {
	n := uint64(restoreMemory)
	for _, f := range frozen[:min(len(frozen), ownedRestores)] {
		n += f.Snapshot.ImageBytes
	}
	if cache == Dropped {
		for f := range distinct(frozen) {
			n += f.Snapshot.ImageBytes
		}
	}
	return n
}

// distinct returns each of the containers once.
func distinct(frozen []*Frozen) iter.Seq[*Frozen] {
	seen := make(map[*Frozen]bool)
	for _, f := range frozen {
		seen[f] = true
	}
	return maps.Keys(seen)
}

// OwnMemory has so many bytes of free memory backed by the host, if this machine is a virtual one. A host that is told of free pages takes
// them back within seconds, and the first touch of one it has taken costs some ten times as much as of another (11 us instead of
// 1.3 us for a page, measured: more than an install). So what a process of the trial before has given back, and how long ago, would
// decide what this one measures. The kernel hands out first what was freed last.
//
// It is touched in huge pages where the kernel has them, which is the unit in which hosts are told: 2 GiB that are there take 0.1 s
// instead of 0.8.
func OwnMemory(bytes uint64) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	n := min(bytes, info.Freeram*uint64(info.Unit)/2)
	memory, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map %d bytes of memory: %w", n, err)
	}
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE) // without it, it only takes longer
	if err := unix.Madvise(memory, unix.MADV_POPULATE_WRITE); err != nil {
		return errors.Join(fmt.Errorf("touch %d bytes of memory: %w", n, err), unix.Munmap(memory))
	}
	return unix.Munmap(memory)
}
