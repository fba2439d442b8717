package privaterun

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// dir is where CRIU keeps what it knows.
const dir = "/run"

// variable is set in the environment of a program that is in its own mount namespace.
const variable = "THAW_BENCH_PRIVATE_RUN"

// Enter makes sure that the program has a /run that is a tmpfs. Where it is none, it runs the program again, with the same arguments, and
// returns its exit code with again set: then there is nothing left to do but to exit with it. Otherwise the program goes on.
// It needs root, and has to be called before anything is mounted or started.
func Enter() (code int, again bool, err error) {
	if os.Getenv(variable) != "" {
		return 0, false, cover()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type == unix.TMPFS_MAGIC {
		return 0, false, nil
	}
	code, err = restart()
	return code, true, err
}

// restart runs this program again in a mount namespace of its own and returns its exit code.
func restart() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), variable+"=1")
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

// cover mounts a tmpfs at /run. Descriptors that we were started with, but for the standard streams, are kept from what we start:
// they are of files in the other mount namespace, which CRIU cannot dump.
func cover() error {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=2g"); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", dir, err)
	}
	return nil
}
