package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"thaw/function/version"
)

// Lease keeps a version's files while somebody uses them. It ends with Close, or with the process.
type Lease struct {
	record *Record
	code   string
	folder *os.File
}

// Record returns the version.
func (l *Lease) Record() *Record { return l.record }

// Code returns the folder of the app's files, absolute. It is where it was when the lease was taken: bind it, or open it, at once. If
// the version is removed it moves, and what is bound or open stays.
func (l *Lease) Code() string { return l.code }

// Close ends the lease.
func (l *Lease) Close() error { return l.folder.Close() }

// Lease takes a lease on a version. The error is [ErrNotFound] if there is none.
func (r *Registry) Lease(app string, key version.Key) (*Lease, error) {
	rec, err := r.Version(app, key)
	if err != nil {
		return nil, err
	}
	dir := r.versionDir(app, key)
	f, err := leaseFolder(filepath.Join(dir, codeDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("version %s of app %s: %w", key.Short(), app, ErrNotFound)
	} else if err != nil {
		return nil, err
	}
	return &Lease{record: rec, code: f.Name(), folder: f}, nil
}

// leaseFolder opens and locks the folder, which is still at its path then: one that was moved away may be deleted any time.
func leaseFolder(path string) (_ *os.File, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	// Only a sweep takes the exclusive lock, and only of what was moved away.
	if ok, err := tryFlock(f, unix.LOCK_SH); err != nil {
		return nil, err
	} else if !ok {
		return nil, fs.ErrNotExist
	}
	opened, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(opened, now) {
		return nil, fs.ErrNotExist
	}
	return f, nil
}
