package instance

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// setHostname sets the host name in the UTS namespace of a process. A restored container comes with the frozen one's.
func setHostname(pid int, name string) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		// The thread stays locked, and ends with this goroutine: it is not fit for anybody else.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS); err != nil {
			done <- fmt.Errorf("enter the UTS namespace of process %d: %w", pid, err)
			return
		}
		done <- unix.Sethostname([]byte(name))
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("set host name %s: %w", name, err)
	}
	return nil
}
