package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"thaw/function/version"
	"thaw/internal/durable"
)

// Remove removes a version that is not the current one. Whoever has a lease on it keeps its files until the lease has ended and [Registry.GC]
// has run. Its snapshots stay in the page store. Errors are [ErrNotFound] and [ErrCurrent].
func (r *Registry) Remove(ctx context.Context, app string, key version.Key) error {
	unlock, err := lock(ctx, r.lockPath())
	if err != nil {
		return err
	}
	defer unlock()
	current, err := r.Current(app)
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
		return err
	}
	if current == key {
		return fmt.Errorf("version %s of app %s: %w", key.Short(), app, ErrCurrent)
	}
	if _, err := os.Stat(r.versionDir(app, key)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("version %s of app %s: %w", key.Short(), app, ErrNotFound)
	}
	if err := r.moveAway(app, key); err != nil {
		return classify(err)
	}
	return classify(r.sweep())
}

// RemoveApp removes an app with all its versions. The error is [ErrNotFound] if there is none.
func (r *Registry) RemoveApp(ctx context.Context, app string) error {
	unlock, err := lock(ctx, r.lockPath())
	if err != nil {
		return err
	}
	defer unlock()
	a, err := r.App(app)
	if err != nil {
		return err
	}
	// First, so that nobody takes what is about to go for the current version.
	if err := r.fs.Remove(filepath.Join(r.appDir(app), currentFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := r.fs.SyncDir(r.appDir(app)); err != nil {
		return err
	}
	for _, v := range a.Versions {
		if err := r.moveAway(app, v.Key); err != nil {
			return classify(err)
		}
	}
	if err := durable.RemoveAll(r.fs, r.appDir(app)); err != nil {
		return err
	}
	return errors.Join(r.fs.SyncDir(r.path(appsDir)), r.sweep())
}

// GC deletes what abandoned deployments and removals left, and removed versions that nobody leases any more.
func (r *Registry) GC(ctx context.Context) error {
	unlock, err := lock(ctx, r.lockPath())
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(r.clearStaging(), r.sweep())
}

// moveAway moves a version to the removed ones, if there is something under its name.
func (r *Registry) moveAway(app string, key version.Key) error {
	from := r.versionDir(app, key)
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	to, err := r.freeName(app + "-" + key.String())
	if err != nil {
		return err
	}
	if err := r.fs.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(r.fs.SyncDir(filepath.Dir(from)), r.fs.SyncDir(r.path(removedDir)))
}

// freeName returns a path in the removed folder where nothing is.
func (r *Registry) freeName(base string) (string, error) {
	for n := 0; ; n++ {
		path := r.path(removedDir, fmt.Sprintf("%s-%d", base, n))
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return path, nil
		} else if err != nil {
			return "", err
		}
	}
}

// sweep deletes the removed versions that nobody leases.
func (r *Registry) sweep() error {
	entries, err := os.ReadDir(r.path(removedDir))
	if err != nil || len(entries) == 0 {
		return err
	}
	for _, e := range entries {
		dir := r.path(removedDir, e.Name())
		leased, err := isLeased(dir)
		if err != nil {
			return err
		}
		if leased {
			continue
		}
		if err := durable.RemoveAll(r.fs, dir); err != nil {
			return err
		}
	}
	return r.fs.SyncDir(r.path(removedDir))
}

// isLeased reports whether somebody has a lease on the removed version. None can be taken any more.
func isLeased(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, codeDir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // an earlier deletion got this far, or it never was a version
	} else if err != nil {
		return false, err
	}
	defer f.Close()
	ok, err := tryFlock(f, unix.LOCK_EX)
	return !ok, err
}
