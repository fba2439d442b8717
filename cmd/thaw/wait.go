package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// adoptOrphans makes processes our children whose parent, below us, ends: CRIU and runc leave what they restored behind,
// and only a parent learns how a process ended.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of what is restored: %w", err)
	}
	return nil
}

// waitFor waits for a child to end, passes signals on to it, and returns the exit code that tells how it ended, in the
// way of shells. ctx is the command's, which ends with the first signal: one that has come before we wait is passed on, too.
func waitFor(ctx context.Context, pid int) (int, error) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	if ctx.Err() != nil {
		_ = p.Signal(unix.SIGTERM)
	}
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		for s := range signals {
			// A process that has ended meanwhile is what Wait is about to tell of.
			_ = p.Signal(s)
		}
	}()
	state, err := p.Wait()
	signal.Stop(signals)
	close(signals)
	<-passed
	if err != nil {
		return 0, fmt.Errorf("wait for process %d: %w", pid, err)
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}
