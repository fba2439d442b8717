package snapshot

import (
	"fmt"
	"os"

	"thaw/checkpoint"
)

// beginning is how much of a mapped file CRIU looks at, for the identity that its linker gave it, in bytes.
const beginning = 4096

// readBeginnings has the beginnings of all files that a process and its descendants map in memory, and returns of how many it could be read. CRIU
// reads them while the process stands still; where the kernel has dropped some, it stands still for as many waits for the disk.
func readBeginnings(pid int) (files int) {
	seen := make(map[string]bool)
	buf := make([]byte, beginning)
	for _, p := range append([]int{pid}, checkpoint.Descendants(pid)...) {
		paths, err := mappedFiles(p)
		if err != nil {
			continue // it has ended, or is not ours to look into
		}
		for _, path := range paths {
			if seen[path] {
				continue
			}
			seen[path] = true
			f, err := os.Open(fmt.Sprintf("/proc/%d/root%s", p, path))
			if err != nil {
				continue
			}
			if _, err := f.ReadAt(buf, 0); err == nil {
				files++
			}
			f.Close()
		}
	}
	return files
}
