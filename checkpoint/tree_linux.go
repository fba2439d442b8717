package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Descendants returns the children of a process, their children, and so on, as far as they can be seen. Kernels that
// CRIU works on list children in /proc (CONFIG_PROC_CHILDREN).
func Descendants(pid int) []int {
	var all []int
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), Descendants(child)...)
			}
		}
	}
	return all
}

// holdStrays returns handles of the descendants of a process that have left its process group. Below a restore these are
// the processes that it has made so far; CRIU and runc stay in the group.
func holdStrays(leader int) []*Process {
	var strays []*Process
	for _, pid := range Descendants(leader) {
		p, err := openProcess(pid)
		if err != nil {
			continue // it has ended
		}
		if group, err := unix.Getpgid(pid); err != nil || group == leader {
			p.Close()
			continue
		}
		strays = append(strays, p)
	}
	return strays
}
