package instance

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrOutOfMemory says that the kernel has killed the runner, or a process of its, because the container used up its memory.
var ErrOutOfMemory = errors.New("out of memory")

// outOfMemory reports whether the kernel has killed a process of the container for its memory limit.
func (i *Instance) outOfMemory() bool {
	if i.shell.spec.Limits.MemoryBytes == 0 {
		return false
	}
	for _, file := range []string{
		filepath.Join("/sys/fs/cgroup/memory", i.ID(), "memory.oom_control"), // cgroup v1
		filepath.Join("/sys/fs/cgroup", i.ID(), "memory.events"),             // v2
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				count, err := strconv.Atoi(strings.TrimSpace(n))
				return err == nil && count > 0
			}
		}
	}
	return false
}
