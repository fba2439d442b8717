package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LazyPagesSocket is the name, in the work folder of a restore, of the socket on which CRIU expects the server of lazy
// pages.
const LazyPagesSocket = "lazy-pages.socket"

// LazyPages is a run of CRIU's own server of lazy pages. It serves one restore and ends by itself when all memory is in
// place. Not safe for concurrent use.
type LazyPages struct {
	run run
}

// LazyPagesOptions say what CRIU's own server of lazy pages serves.
type LazyPagesOptions struct {
	// Images is the folder with the image files, Work the work folder of the restore that is to be served; both absolute.
	Images, Work string
	// Debug makes CRIU log each page fault in [LazyPagesLog], which slows it down. By default it logs warnings.
	Debug bool
}

// LazyPagesLog is the name, in the work folder, of the log of CRIU's own server.
const LazyPagesLog = "lazy-pages.log"

// StartLazyPages starts CRIU's own server for one restore, and returns when it listens. The caller must call Wait or Stop.
func (t *Tools) StartLazyPages(ctx context.Context, o LazyPagesOptions) (*LazyPages, error) {
	images, work := o.Images, o.Work
	verbosity := "-v2"
	if o.Debug {
		verbosity = "-v4"
	}
	if err := makeDirs(images, work); err != nil {
		return nil, err
	}
	// The server outlives ctx, which bounds only the start.
	cmd, err := t.criuCommand(context.WithoutCancel(ctx), "lazy-pages", "--images-dir", images, "--work-dir", work,
		"--log-file", LazyPagesLog, verbosity, "--status-fd", "3")
	if err != nil {
		return nil, err
	}
	ready, status, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	cmd.ExtraFiles = []*os.File{status}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	status.Close()
	if err != nil {
		return nil, fmt.Errorf("start criu lazy-pages: %w", err)
	}
	l := &LazyPages{run{op: "criu lazy-pages", cmd: cmd, criuLog: filepath.Join(work, LazyPagesLog)}}
	if err := waitReady(ctx, ready); err != nil {
		// A server that ended by itself has said why; one that did not is ended here.
		return nil, errors.Join(err, l.Stop())
	}
	return l, nil
}

// waitReady waits for the byte that CRIU writes when it listens. Returns an error if the pipe closes before.
func waitReady(ctx context.Context, ready *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := io.ReadFull(ready, make([]byte, 1))
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("criu lazy-pages ended before it was ready: %w", err)
	}
	return nil
}

// PID returns the server's process number.
func (l *LazyPages) PID() int { return l.run.cmd.Process.Pid }

// Wait waits until the server ends by itself and returns how it did. When ctx ends before, the server is killed, and whoever
// it served has to be killed, too, as with Stop.
func (l *LazyPages) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.run.cmd.Process.Kill() })
	defer stop()
	err := l.run.cmd.Wait()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return l.run.failure(err, "")
}

// Stop ends the server. Processes whose memory is not complete then read zeros in place of what is missing, so they
// have to be killed before.
func (l *LazyPages) Stop() error {
	_ = unix.Kill(-l.PID(), unix.SIGKILL)
	err := l.run.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return nil
	}
	if err != nil {
		return l.run.failure(err, "")
	}
	return nil
}
