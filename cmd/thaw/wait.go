package main

import (
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

// heed collects the signals that are a restored process' own, from now on until stop is called. It has to begin before the process runs: one that came
// between its restore and the wait for it would be lost, or end us and not the process. SIGINT and SIGTERM end the command's context, too,
// and with it a restore that is not done.
func heed() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	return signals, func() { signal.Stop(signals) }
}

// waitFor waits for a child to end, passes signals on to it, those first that heed has collected, and returns the exit code that tells how it
// ended, in the way of shells. It stops the signals and closes their channel.
func waitFor(signals chan os.Signal, pid int) (int, error) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return 0, err
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
