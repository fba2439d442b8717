package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"thaw/function/version"
	"thaw/internal/durable"
)

// Names of files and folders, part of the format.
const (
	formatFile   = "format"
	lockFile     = "lock"
	appsDir      = "apps"
	currentFile  = "current"
	versionsDir  = "versions"
	versionFile  = "version.json"
	statsFile    = "stats.json"
	codeDir      = "code"
	templatesDir = "templates"
	removedDir   = "removed"
	stagingDir   = "staging"
	sdkDir       = "sdk"
)

// The format file marks the folder; its content is part of the format, do not change it.
const formatText = "thaw functions, version 1\n"

// Options change how a registry is opened. The zero value is useful.
type Options struct {
	// Create makes the folder, and its parents, if it does not exist.
	Create bool

	// fs changes the disk; tests put one here that fails.
	fs durable.FS
}

// Registry is a folder with functions. It is safe for concurrent use, and several processes may have one open; it holds no
// resources, and needs no closing.
type Registry struct {
	dir string
	fs  durable.FS
}

// Open opens the registry in the folder dir. Errors are [ErrNotRegistry] if it does not exist and is not to be made, or holds something
// else; [ErrNotEmpty] if it is to be made and holds something else; [ErrVersion].
func Open(dir string, o *Options) (*Registry, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &Registry{dir: dir, fs: durable.Disk}
	if o != nil && o.fs != nil {
		r.fs = o.fs
	}
	err = r.checkFormat()
	if errors.Is(err, ErrNotRegistry) && o != nil && o.Create {
		err = classify(r.create())
	}
	if err != nil {
		return nil, fmt.Errorf("open functions in %s: %w", dir, err)
	}
	return r, nil
}

// Dir returns the folder, absolute.
func (r *Registry) Dir() string { return r.dir }

// SDKs returns the folder below which the SDKs of the versions are: see package sdk.
func (r *Registry) SDKs() string { return r.path(sdkDir) }

func (r *Registry) checkFormat() error {
	f, err := os.Open(filepath.Join(r.dir, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotRegistry
	} else if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return err
	}
	if string(text) != formatText {
		return fmt.Errorf("%w: %s says %q, want %q", ErrVersion, formatFile, text, formatText)
	}
	return nil
}

// create makes the folder what it is to be. Several may be at this at once, and one may have died at it.
func (r *Registry) create() error {
	if err := os.MkdirAll(filepath.Dir(r.dir), 0o755); err != nil {
		return err
	}
	if err := r.fs.Mkdir(r.dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case "lost+found", sdkDir, lockFile, appsDir, templatesDir, removedDir, stagingDir, formatFile, formatFile + ".tmp":
		default:
			return fmt.Errorf("%w: it holds %s", ErrNotEmpty, e.Name())
		}
	}
	if err := durable.Write(r.fs, r.lockPath(), nil); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	unlock, err := lock(context.Background(), r.lockPath())
	if err != nil {
		return err
	}
	defer unlock()
	for _, name := range []string{appsDir, templatesDir, removedDir, stagingDir} {
		if err := durable.MkdirAll(r.fs, r.dir, name); err != nil {
			return err
		}
	}
	if err := durable.Replace(r.fs, filepath.Join(r.dir, formatFile), []byte(formatText)); err != nil {
		return err
	}
	return r.fs.SyncDir(filepath.Dir(r.dir))
}

func (r *Registry) lockPath() string { return filepath.Join(r.dir, lockFile) }

func (r *Registry) path(elem ...string) string {
	return filepath.Join(append([]string{r.dir}, elem...)...)
}

func (r *Registry) appDir(app string) string { return r.path(appsDir, app) }

func (r *Registry) versionDir(app string, k version.Key) string {
	return r.path(appsDir, app, versionsDir, k.String())
}

func (r *Registry) templateDir(k version.Key) string { return r.path(templatesDir, k.String()) }
