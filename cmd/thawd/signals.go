package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"thaw/daemon"
)

// errSecondSignal ends the daemon's context.
var errSecondSignal = errors.New("thawd was told twice to end")

// catchSignals takes over the signals that would end the program by themselves: processes whose thawd is gone read zeros in
// place of the memory that they still miss. A terminal that is closed (SIGHUP) is a reason to end in order, and a reader
// of the log that goes away (SIGPIPE) is none to end at all.
func catchSignals() chan os.Signal {
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	return signals
}

// handleSignals drains at the first signal and stops at the second.
func handleSignals(ctx context.Context, signals <-chan os.Signal, d *daemon.Daemon, stop context.CancelCauseFunc, log *slog.Logger) {
	for count := 1; ; count++ {
		select {
		case <-ctx.Done():
			return
		case got := <-signals:
			left := d.Dependents()
			if count == 1 {
				log.Info("told to end: running sessions finish, new ones are refused", "signal", got.String(), "processes", left)
				if err := notify("STOPPING=1"); err != nil {
					log.Warn("service manager not told", "err", err)
				}
				d.Drain()
				continue
			}
			log.Error("told to end at once: processes that still miss memory are killed, for they would lose it",
				"signal", got.String(), "processes", left)
			stop(errSecondSignal)
			return
		}
	}
}
