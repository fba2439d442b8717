package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/durable"
)

// How often a waiting writer looks whether the lock is free. flock(2) has no wait with a deadline, and a goroutine
// blocked in it cannot be called back.
const (
	lockPollMin = 2 * time.Millisecond
	lockPollMax = 200 * time.Millisecond
)

// makeLockFile makes the file that writers lock. It stays empty.
func makeLockFile(fsys durable.FS, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := durable.Write(fsys, path, nil); !errors.Is(err, fs.ErrExist) { // else somebody else has just made it
		return err
	}
	return nil
}

// lock makes the caller the store's one writer until it calls unlock. The lock belongs to the open file, so it also
// keeps apart two writers of one process, and ends with the process.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	return s.lockOr(ctx, s.opts.NoWait)
}

// lockOr is lock that, with noWait, returns ErrLocked rather than wait.
func (s *Store) lockOr(ctx context.Context, noWait bool) (unlock func(), err error) {
	s.mu.Lock()
	closed := s.mu.closed
	s.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	// Only opened, never made: a lock file that came and went would let two writers lock two files.
	f, err := os.OpenFile(filepath.Join(s.dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := s.waitLock(ctx, f, noWait); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

func (s *Store) waitLock(ctx context.Context, f *os.File, noWait bool) error {
	for wait := lockPollMin; ; wait = min(2*wait, lockPollMax) {
		switch ok, err := tryFlock(f, unix.LOCK_EX); {
		case err != nil:
			return fmt.Errorf("lock store: %w", err)
		case ok:
			return nil
		case noWait:
			return ErrLocked
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrLocked, context.Cause(ctx))
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

// errMoved says that a manifest was moved or deleted between its opening and its locking.
var errMoved = errors.New("snapshot moved")

// lease opens the manifest of the snapshot folder dir with a shared lock on it: while the file stays open, GC keeps
// what the manifest names. Errors are fs.ErrNotExist if there is no manifest and errMoved.
//
// GC deletes a removed snapshot only while it holds the exclusive lock, so a lease that comes too late is either
// refused here or finds that the manifest is no longer at its path. Evict holds the locks of stubs while it deletes packs of theirs:
// that is waited for.
func lease(dir string) (*os.File, error) {
	path := filepath.Join(dir, manifestFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := leaseFile(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func leaseFile(f *os.File, path string) error {
	wait := lockPollMin
	for {
		if ok, err := tryFlock(f, unix.LOCK_SH); err != nil {
			return err
		} else if ok {
			break
		}
		if !isStub(filepath.Dir(path)) {
			return errMoved // only GC takes the exclusive lock, and only of removed snapshots
		}
		time.Sleep(wait)
		wait = min(2*wait, lockPollMax)
	}
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(opened, now) {
		return errMoved
	}
	return nil
}

// leased reports whether somebody has a lease on the snapshot in the folder dir, which was removed or is a stub. If not, the caller may
// delete it, or packs of the stub, before it calls release.
func leased(dir string) (yes bool, release func(), err error) {
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, func() {}, nil // an earlier deletion got this far
	} else if err != nil {
		return false, nil, err
	}
	ok, err := tryFlock(f, unix.LOCK_EX)
	if err != nil || !ok {
		return !ok, nil, errors.Join(err, f.Close())
	}
	return false, func() { f.Close() }, nil
}
