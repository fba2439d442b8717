package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a restored process. It is no child of ours: it is known by a pidfd, so that no signal goes to another process
// that got its number later. Kill and Close are safe for concurrent use; Close releases the descriptor and leaves the
// process alone.
type Process struct {
	// PID is the process's number in this process's pid namespace.
	PID int

	pidfd *os.File
}

// openProcess returns a handle of a running process, or an error matching os.ErrProcessDone.
func openProcess(pid int) (*Process, error) {
	// Non-blocking, so that the runtime can wait for it.
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err == unix.ESRCH {
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open of process %d: %w", pid, err)
	}
	return &Process{PID: pid, pidfd: os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", pid))}, nil
}

// Kill sends SIGKILL. A process that has ended is fine.
func (p *Process) Kill() error {
	err := p.withFD(func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return nil
}

// Wait waits until the process has ended. How it ended only its parent can learn. Not for concurrent use.
func (p *Process) Wait(ctx context.Context) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	// An earlier wait may have left its deadline.
	if err := p.pidfd.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// A pidfd becomes readable when its process ends. There is nothing to be read from it, so poll(2) tells.
	var pollErr error
	err = raw.Read(func(fd uintptr) (done bool) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		var n int
		n, pollErr = unix.Poll(fds, 0)
		if pollErr == unix.EINTR {
			pollErr = nil
		}
		return n > 0 || pollErr != nil
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("wait for process %d: %w", p.PID, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("wait for process %d: %w", p.PID, err)
	case pollErr != nil:
		return fmt.Errorf("wait for process %d: %w", p.PID, pollErr)
	}
	return nil
}

// withFD calls f with the descriptor, which stays open meanwhile.
func (p *Process) withFD(f func(fd int) error) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// Close releases the handle. The process goes on.
func (p *Process) Close() error { return p.pidfd.Close() }

// DumpOptions say how to freeze a process or a container.
type DumpOptions struct {
	// Images is the folder that gets the image files, Work the one that gets CRIU's log. Both are absolute; they are
	// made if they are missing and should be empty.
	Images, Work string
	// LeaveRunning lets the process go on behind the dump. By default it is gone then.
	LeaveRunning bool
	// ShellJob allows a process that shares its session and terminal with one outside. For plain processes.
	ShellJob bool
	// TCPEstablished keeps open TCP connections; Config.NetworkLock should then not be "skip".
	TCPEstablished bool
	// FileLocks keeps file locks.
	FileLocks bool
	// ExternalUnixSockets allows unix sockets whose other end is outside.
	ExternalUnixSockets bool
	// Config holds further options of CRIU for a plain process. A container's come from its bundle.
	Config Config
}

// flags returns what runc checkpoint and criu dump spell alike.
func (o *DumpOptions) flags() []string {
	return flagsOf([]flag{
		{"--leave-running", o.LeaveRunning},
		{"--shell-job", o.ShellJob},
		{"--tcp-established", o.TCPEstablished},
		{"--file-locks", o.FileLocks},
		{"--ext-unix-sk", o.ExternalUnixSockets},
	})
}

type flag struct {
	name string
	on   bool
}

func flagsOf(all []flag) []string {
	var args []string
	for _, f := range all {
		if f.on {
			args = append(args, f.name)
		}
	}
	return args
}

// DumpProcess freezes a process and all its children into o.Images.
func (t *Tools) DumpProcess(ctx context.Context, pid int, o DumpOptions) error {
	if err := makeDirs(o.Images, o.Work); err != nil {
		return err
	}
	args := append([]string{
		"dump", "--tree", strconv.Itoa(pid), "--images-dir", o.Images, "--work-dir", o.Work, "--log-file", "dump.log", "-v2",
	}, o.Config.args()...)
	cmd, err := t.criuCommand(ctx, append(args, o.flags()...)...)
	if err != nil {
		return err
	}
	return t.do(ctx, run{op: "criu dump", cmd: cmd, criuLog: filepath.Join(o.Work, "dump.log")})
}

// RestoreOptions say how to start a process from its images.
type RestoreOptions struct {
	// Images is the folder with the image files, Work the one that gets CRIU's log. Both are absolute. Restores that run at
	// the same time share the images and need a work folder each.
	Images, Work string
	// Lazy leaves anonymous memory to the server that listens on [LazyPagesSocket] in Work.
	Lazy bool
	// ShellJob, TCPEstablished, FileLocks and ExternalUnixSockets must be what they were at the dump.
	ShellJob, TCPEstablished, FileLocks, ExternalUnixSockets bool
	// Inherit gives the process files of ours in place of those it had, by CRIU's names for them, such as "pipe:[4711]".
	Inherit map[string]*os.File
	// Config holds further options of CRIU.
	Config Config
}

func (o *RestoreOptions) flags() []string {
	return flagsOf([]flag{
		{"--lazy-pages", o.Lazy},
		{"--shell-job", o.ShellJob},
		{"--tcp-established", o.TCPEstablished},
		{"--file-locks", o.FileLocks},
		{"--ext-unix-sk", o.ExternalUnixSockets},
	})
}

// RestoreProcess starts the process from o.Images and returns when it runs. It gets the number that it had, so that
// only one restore of the same images can run in a pid namespace at a time.
func (t *Tools) RestoreProcess(ctx context.Context, o RestoreOptions) (*Process, error) {
	if err := makeDirs(o.Images, o.Work); err != nil {
		return nil, err
	}
	pidfile := filepath.Join(o.Work, "restored.pid")
	if err := RemoveAll(pidfile); err != nil {
		return nil, err
	}
	args := append([]string{
		"restore", "--images-dir", o.Images, "--work-dir", o.Work, "--log-file", "restore.log", "-v2",
		"--restore-detached", "--pidfile", pidfile,
	}, o.Config.args()...)
	args = append(args, o.flags()...)
	var files []*os.File
	for key, file := range o.Inherit {
		// Descriptors 0 to 2 are CRIU's own streams.
		args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", 3+len(files), key))
		files = append(files, file)
	}
	cmd, err := t.criuCommand(ctx, args...)
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = files
	if err := t.do(ctx, run{op: "criu restore", cmd: cmd, criuLog: filepath.Join(o.Work, "restore.log")}); err != nil {
		return nil, errors.Join(err, UnmountBelow(o.Work))
	}
	pid, err := readPID(pidfile)
	if err != nil {
		return nil, err
	}
	return openProcess(pid)
}

func readPID(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("read pid: %s holds %q", path, data)
	}
	return pid, nil
}
