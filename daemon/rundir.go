package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// A runDir is the folder of the work folders, which several daemons may use at the same time. Each holds a shared lock on the file lock in it:
// who gets the exclusive one is alone, and what is there was left by daemons that have ended or were killed.
type runDir struct{ lock *os.File }

// leftFolder matches the names of what a daemon makes in the folder: work folders of sessions (see newID), and images (see mappedImages).
var leftFolder = regexp.MustCompile(`^([a-z2-7]{16}|images-[0-9]+)$`)

// openRunDir takes the shared lock, and removes what was left before if nobody else has it. The caller closes it.
func openRunDir(dir string, log *slog.Logger) (*runDir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for work folders: %w", err)
	}
	path := filepath.Join(dir, "lock")
	_, err := os.Lstat(path)
	ours := err == nil // without the file no daemon has ever been here, and nothing is a daemon's
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock folder for work folders: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && ours {
		// What cannot be removed, as for a mount in it, is in nobody's way.
		if err := removeLeft(dir, log); err != nil {
			log.Warn("something of an earlier thawd stays", "err", err)
		}
	}
	// Another daemon may get the exclusive lock in between: this one has not made anything yet.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		return nil, errors.Join(fmt.Errorf("lock folder for work folders: %w", err), lock.Close())
	}
	return &runDir{lock}, nil
}

func (r *runDir) close() error { return r.lock.Close() }

func removeLeft(dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	removed := 0
	for _, e := range entries {
		if !e.IsDir() || !leftFolder.MatchString(e.Name()) {
			continue
		}
		if err := (workDir{path: filepath.Join(dir, e.Name()), ours: true}).remove(); err != nil {
			errs = append(errs, err)
		} else {
			removed++
		}
	}
	if removed > 0 {
		log.Info("what an earlier thawd has left is removed", "folders", removed)
	}
	return errors.Join(errs...)
}
