package suite

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// startLead is how long before their common start threads are told of it: longer than it takes to tell them.
const startLead = 5 * time.Millisecond

// monotonic returns the time that targets go by, in nanoseconds.
func monotonic() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // the clock exists
	}
	return uint64(t.Nano())
}

// waitUntil waits until the clock of targets shows at, or ctx ends.
func waitUntil(ctx context.Context, at uint64) {
	wait := time.NewTimer(time.Duration(int64(at - monotonic())))
	defer wait.Stop()
	select {
	case <-ctx.Done():
	case <-wait.C:
	}
}
