package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"thaw/function/version"
	"thaw/internal/durable"
)

// Deployed says what a deployment did.
type Deployed struct {
	// New tells whether the version was not there before, Switched whether another one was current.
	New, Switched bool
	// Before is the version that was current; nil if there was none, or if it cannot be read.
	Before *Record
}

// Deploy keeps the version, with a copy of its files from the app's folder, and makes it the current one. To deploy what is current
// changes nothing. Errors are [ErrChanged], [ErrNoSpace], that of the context, and those of reading the files; after an error all is as
// before, but for a version that is there and not current.
func (r *Registry) Deploy(ctx context.Context, v *version.Version, files fs.FS) (*Deployed, error) {
	if err := v.Verify(); err != nil {
		return nil, fmt.Errorf("deploy: %w", err)
	}
	d, err := r.deploy(ctx, v, files)
	if err != nil {
		return nil, fmt.Errorf("deploy %s: %w", v.App(), classify(err))
	}
	return d, nil
}

func (r *Registry) deploy(ctx context.Context, v *version.Version, files fs.FS) (*Deployed, error) {
	unlock, err := lock(ctx, r.lockPath())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := r.clearStaging(); err != nil {
		return nil, err
	}
	before, err := r.Current(v.App())
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	d := &Deployed{Switched: before != v.Key}
	if before != (version.Key{}) {
		d.Before, _ = r.Version(v.App(), before) // it is told for comparison only
	}
	there, err := r.Version(v.App(), v.Key)
	if err != nil {
		d.New = true
		err = r.keep(ctx, &Record{Version: v, Deployed: time.Now().UTC(), Before: before}, files)
	} else {
		err = r.renew(there, v)
	}
	if err != nil {
		return nil, err
	}
	if d.Switched {
		err = durable.Replace(r.fs, filepath.Join(r.appDir(v.App()), currentFile), []byte(v.Key.String()+"\n"))
	}
	return d, err
}

// renew writes what may change in a version while its key does not: where its root file system is, and what its code says of it.
func (r *Registry) renew(there *Record, v *version.Version) error {
	text, err := encode(&Record{Version: v, Deployed: there.Deployed, Before: there.Before})
	if err != nil {
		return fmt.Errorf("%s: %w", versionFile, err)
	}
	old, err := encode(there)
	if err != nil || bytes.Equal(text, old) {
		return err
	}
	return durable.Replace(r.fs, filepath.Join(r.versionDir(v.App(), v.Key), versionFile), text)
}

// keep stages the version and moves it to its place. What is there under its name cannot be read, and is moved away.
func (r *Registry) keep(ctx context.Context, rec *Record, files fs.FS) error {
	staged, err := r.stage(ctx, rec, files)
	if err != nil {
		return errors.Join(err, r.clearStaging())
	}
	if err := durable.MkdirAll(r.fs, r.path(appsDir), rec.App(), versionsDir); err != nil {
		return errors.Join(err, r.clearStaging())
	}
	if err := r.moveAway(rec.App(), rec.Key); err != nil {
		return errors.Join(err, r.clearStaging())
	}
	place := r.versionDir(rec.App(), rec.Key)
	if err := r.fs.Rename(staged, place); err != nil {
		return errors.Join(err, r.clearStaging())
	}
	return errors.Join(r.fs.SyncDir(filepath.Dir(place)), r.fs.SyncDir(r.path(stagingDir)))
}

// stage makes the version's folder in staging.
func (r *Registry) stage(ctx context.Context, rec *Record, files fs.FS) (dir string, err error) {
	dir = r.path(stagingDir, rec.Key.String())
	if err := r.fs.Mkdir(dir); err != nil {
		return "", err
	}
	if err := r.fs.Mkdir(filepath.Join(dir, codeDir)); err != nil {
		return "", err
	}
	made := map[string]bool{".": true}
	for _, f := range rec.Files() {
		if err := ctx.Err(); err != nil {
			return "", context.Cause(ctx)
		}
		if err := r.makeFolders(filepath.Join(dir, codeDir), filepath.Dir(f.Path), made); err != nil {
			return "", err
		}
		if err := r.copyFile(filepath.Join(dir, codeDir, f.Path), &f, files); err != nil {
			return "", err
		}
	}
	for folder := range made {
		if err := r.fs.SyncDir(filepath.Join(dir, codeDir, folder)); err != nil {
			return "", err
		}
	}
	text, err := encode(rec)
	if err != nil {
		return "", fmt.Errorf("%s: %w", versionFile, err)
	}
	if err := durable.Write(r.fs, filepath.Join(dir, versionFile), text); err != nil {
		return "", err
	}
	return dir, errors.Join(r.fs.SyncDir(dir), r.fs.SyncDir(r.path(stagingDir)))
}

// makeFolders makes the folder, relative to base, and those above it; made are those that are there.
func (r *Registry) makeFolders(base, folder string, made map[string]bool) error {
	at := "."
	for name := range strings.SplitSeq(folder, string(filepath.Separator)) {
		at = filepath.Join(at, name)
		if made[at] {
			continue
		}
		if err := r.fs.Mkdir(filepath.Join(base, at)); err != nil {
			return err
		}
		made[at] = true
	}
	return nil
}

// copyFile copies a file of the app, which has to be what the version says of it.
func (r *Registry) copyFile(to string, f *version.File, files fs.FS) (err error) {
	in, err := files.Open(f.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := r.fs.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	h := sha256.New()
	// One byte more than there should be is enough to see that the file grew.
	if _, err := io.CopyBuffer(onlyWriter{io.MultiWriter(out, h)}, io.LimitReader(in, f.Bytes+1), make([]byte, 1<<20)); err != nil {
		return err
	}
	if version.Digest(h.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("%s: %w", f.Path, ErrChanged)
	}
	if f.Executable {
		if err := os.Chmod(to, 0o700); err != nil {
			return err
		}
	}
	return out.Sync()
}

// onlyWriter hides other methods, so that a buffer is used.
type onlyWriter struct{ io.Writer }

// clearStaging deletes what an abandoned deployment left. The caller holds the lock.
func (r *Registry) clearStaging() error { return r.clear(stagingDir) }

func (r *Registry) clear(folder string) error {
	entries, err := os.ReadDir(r.path(folder))
	if err != nil || len(entries) == 0 {
		return err
	}
	for _, e := range entries {
		if err := durable.RemoveAll(r.fs, r.path(folder, e.Name())); err != nil {
			return err
		}
	}
	return r.fs.SyncDir(r.path(folder))
}
