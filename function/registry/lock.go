package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How often a waiting writer looks whether a lock is free. flock(2) has no wait with a deadline, and a goroutine blocked in it cannot be
// called back.
const (
	lockPollMin = time.Millisecond
	lockPollMax = 100 * time.Millisecond
)

// lock takes the lock of the file or folder at path, and waits for it until ctx is done. It belongs to the open file, so it also keeps
// apart two callers in one process, and ends with the process.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for wait := lockPollMin; ; wait = min(2*wait, lockPollMax) {
		ok, err := tryFlock(f, unix.LOCK_EX)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if ok {
			return func() { f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the lock of %s: %w", path, context.Cause(ctx)), f.Close())
		case <-time.After(wait):
		}
	}
}

// tryFlock takes a lock of kind how without waiting; ok is false if somebody else holds one that conflicts.
func tryFlock(f *os.File, how int) (ok bool, err error) {
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return true, nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return false, nil
		default:
			return false, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}
