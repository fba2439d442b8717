package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// CRIU finds out what the kernel can do once after boot and remembers it in /run, but only where that is a tmpfs, as it
// is on most machines. In some containers and virtual machines it is not, and each start of CRIU then probes the kernel
// anew, for up to a tenth of a second. That would be measured, and most of all in the mode that starts a second CRIU.
// There the demo runs in a mount namespace of its own, with a tmpfs at /run.

// runDir is where CRIU keeps what it knows.
const runDir = "/run"

// privateVariable is set in the environment of a demo that is in its own mount namespace.
const privateVariable = "THAW_DEMO_PRIVATE_RUN"

// needsPrivateRun reports whether the demo has to start itself anew.
func needsPrivateRun() (bool, error) {
	if os.Getenv(privateVariable) != "" {
		return false, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(runDir, &st); err != nil {
		return false, fmt.Errorf("look at %s: %w", runDir, err)
	}
	return st.Type != unix.TMPFS_MAGIC, nil
}

// restart runs this program again in a mount namespace of its own and returns its exit code.
func restart() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), privateVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Unshareflags makes all mounts of the new namespace private, too. Should we be killed, the other cleans up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGTERM}

	// The death signal follows the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, unix.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case <-signals:
			// A terminal's interrupt reaches both of us, a signal from elsewhere only this process.
			_ = cmd.Process.Signal(unix.SIGTERM)
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), nil
			}
			return 0, err
		}
	}
}

// coverRun mounts a tmpfs at /run if this is the demo that was started anew.
func coverRun() error {
	if os.Getenv(privateVariable) == "" {
		return nil
	}
	if err := unix.Mount("tmpfs", runDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=16m"); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", runDir, err)
	}
	return nil
}
