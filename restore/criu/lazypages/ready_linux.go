package lazypages

import (
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

// ready tells all who want to know that the socket is there, in CRIU's order: the parent of a daemon, which writes the
// pidfile, scripts, the status descriptor.
func (a *arguments) ready(ctx context.Context, log *slog.Logger) error {
	if inBackground() {
		if err := detach(); err != nil {
			return err
		}
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

// backgroundEnv marks the process that --daemon starts, and is the number of the descriptor on which it tells its parent
// that it is ready.
const backgroundEnv = "THAW_LAZY_PAGES_BACKGROUND"

func inBackground() bool { return os.Getenv(backgroundEnv) != "" }

// startInBackground starts the program again, in a session of its own, and returns when it is ready or has failed.
// Descriptors named on the command line are inherited by number; so is the one for readiness, which must take none of
// theirs.
func startInBackground(a *arguments, args []string, opts *Options, stdout, stderr io.Writer) error {
	program := opts.Program
	if len(program) == 0 {
		program = []string{"/proc/self/exe", "lazy-pages"}
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	inherited, err := unix.Dup(int(theirs.Fd()))
	theirs.Close()
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	cmd := exec.Command(program[0], append(program[1:len(program):len(program)], args...)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", backgroundEnv, inherited))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Start()
	unix.Close(inherited)
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	if n, _ := ready.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("the server in the background: %w", cmd.Wait()) // and it has said why
	}
	return errors.Join(a.writePID(cmd.Process.Pid), cmd.Process.Release())
}

// detach tells the parent that the server is ready, and lets go of the standard streams.
func detach() error {
	fd, err := strconv.Atoi(os.Getenv(backgroundEnv))
	if err != nil {
		return fmt.Errorf("%s is no descriptor: %w", backgroundEnv, err)
	}
	if err := os.Unsetenv(backgroundEnv); err != nil { // action scripts are not in the background
		return err
	}
	if _, err := unix.Write(fd, []byte{0}); err != nil {
		return fmt.Errorf("tell the parent: %w", err)
	}
	if err := unix.Close(fd); err != nil {
		return os.NewSyscallError("close", err)
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

// kept returns a duplicate of a standard stream, for the log: it outlives detach.
func kept(stream io.Writer) (io.Writer, func() error, error) {
	f, ok := stream.(*os.File)
	if !ok {
		return stream, func() error { return nil }, nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	d := os.NewFile(uintptr(fd), f.Name())
	return d, d.Close, nil
}
