package lazypages

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ready tells all who want to know that the socket is there, in CRIU's order: the parent of a daemon, the pidfile,
// scripts, the status descriptor.
func (a *arguments) ready(ctx context.Context, log *slog.Logger) error {
	if inBackground() {
		if err := detach(); err != nil {
			return err
		}
	} else if err := a.writePID(os.Getpid()); err != nil {
		return err
	}
	for _, s := range a.scripts {
		if err := a.runScript(ctx, s, log); err != nil {
			return err
		}
	}
	if a.statusFD < 0 {
		return nil
	}
	_, err := unix.Write(a.statusFD, []byte{0})
	if err == nil {
		err = unix.Close(a.statusFD)
	}
	if err != nil {
		return fmt.Errorf("write to --status-fd %d: %w", a.statusFD, err)
	}
	return nil
}

// writePID writes the pidfile, if one is wanted.
func (a *arguments) writePID(pid int) error {
	if a.pidFile == "" {
		return nil
	}
	if err := os.WriteFile(a.pidFile, []byte(strconv.Itoa(pid)), 0o600); err != nil {
		return fmt.Errorf("write pidfile: %w", err)
	}
	return nil
}

// runScript runs an action script as CRIU does: through the shell, in the work folder, told in the environment what
// has happened and where the images are. The images are named by a descriptor of this process.
func (a *arguments) runScript(ctx context.Context, script string, log *slog.Logger) error {
	images, err := os.Open(a.imagesDir)
	if err != nil {
		return err
	}
	defer images.Close()
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir = a.workDir
	cmd.Env = append(os.Environ(), "CRTOOLS_SCRIPT_ACTION=status-ready",
		fmt.Sprintf("CRTOOLS_IMAGE_DIR=/proc/%d/fd/%d", os.Getpid(), images.Fd()))
	out, err := cmd.CombinedOutput()
	log.Debug("action script has run", "script", script, "output", string(out))
	if err != nil {
		return fmt.Errorf("action script %q: %w: %s", script, err, out)
	}
	return nil
}

// backgroundEnv marks the process that --daemon starts. It tells its parent on standard output when it is ready.
const backgroundEnv = "THAW_LAZY_PAGES_BACKGROUND"

const readyLine = "ready\n"

func inBackground() bool { return os.Getenv(backgroundEnv) != "" }

// startInBackground starts the program again, in a session of its own, and returns when it is ready or has failed.
// Descriptors named on the command line are inherited by number.
func startInBackground(a *arguments, args []string, opts *Options) error {
	program := opts.Program
	if len(program) == 0 {
		program = []string{"/proc/self/exe", "lazy-pages"}
	}
	cmd := exec.Command(program[0], append(program[1:len(program):len(program)], args...)...)
	cmd.Env = append(os.Environ(), backgroundEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ready, failure, err := startPiped(cmd)
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	defer ready.Close()
	defer failure.Close()
	if line, _ := bufio.NewReader(ready).ReadString('\n'); line != readyLine {
		reason, _ := io.ReadAll(failure)
		return fmt.Errorf("the server in the background: %w: %s", cmd.Wait(), bytes.TrimSpace(reason))
	}
	return errors.Join(a.writePID(cmd.Process.Pid), cmd.Process.Release())
}

// startPiped starts a command and returns the read ends of its standard output and error.
func startPiped(cmd *exec.Cmd) (stdout, stderr *os.File, err error) {
	stdout, outEnd, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer outEnd.Close()
	stderr, errEnd, err := os.Pipe()
	if err != nil {
		stdout.Close()
		return nil, nil, err
	}
	defer errEnd.Close()
	cmd.Stdout, cmd.Stderr = outEnd, errEnd
	if err := cmd.Start(); err != nil {
		stdout.Close()
		stderr.Close()
		return nil, nil, err
	}
	return stdout, stderr, nil
}

// detach tells the parent that the server is ready, and lets go of all that it was given.
func detach() error {
	if err := os.Unsetenv(backgroundEnv); err != nil { // action scripts are not in the background
		return err
	}
	if _, err := os.Stdout.WriteString(readyLine); err != nil {
		return fmt.Errorf("tell the parent: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}
