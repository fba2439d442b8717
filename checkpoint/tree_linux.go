package checkpoint

import (
	"context"
	"errors"
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

// KillTree kills a process and its descendants, and waits until they have ended and their numbers are free, as far as that is for us to do:
// those that have become our children are reaped. Processes that are gone are fine.
func KillTree(ctx context.Context, pid int) error {
	var all []*Process
	for _, pid := range append([]int{pid}, Descendants(pid)...) {
		if p, err := openProcess(pid); err == nil {
			all = append(all, p)
		}
	}
	var errs []error
	for _, p := range all {
		errs = append(errs, p.Kill())
	}
	for _, p := range all {
		errs = append(errs, p.Wait(ctx), p.Close())
		// ECHILD: another one reaps it.
		_, _ = unix.Wait4(p.PID, nil, unix.WNOHANG, nil)
	}
	return errors.Join(errs...)
}
