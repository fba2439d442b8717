package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"thaw/daemon"
)

// errSecondSignal ends the daemon's context.
var errSecondSignal = errors.New("thawd was told twice to end")

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
