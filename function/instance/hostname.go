package instance

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"thaw/internal/ownthread"
)

// setHostname sets the host name in the UTS namespace of a process. A restored container comes with the frozen one's.
func setHostname(pid int, name string) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	err = ownthread.Run(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("enter the UTS namespace of process %d: %w", pid, err)
		}
		return unix.Sethostname([]byte(name))
	})
	if err != nil {
		return fmt.Errorf("set host name %s: %w", name, err)
	}
	return nil
}
