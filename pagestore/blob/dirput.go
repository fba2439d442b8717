package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"thaw/internal/durable"
)

// Create implements Bucket.
func (d *Dir) Create(ctx context.Context, key string, r io.Reader, size int64) error {
	return failedPut("create", key, d.put(ctx, key, r, size, false))
}

// Replace implements Bucket.
func (d *Dir) Replace(ctx context.Context, key string, r io.Reader, size int64) error {
	return failedPut("replace", key, d.put(ctx, key, r, size, true))
}

// put writes a blob.
//
//	mkdir, fsync of the folder above, for each folder on the way
//	openat(O_EXCL) write fsync close                           .tmp/RANDOM
//	linkat(.tmp/RANDOM, key), or renameat                      the blob is there
//	fsync(folder of key)                                       and stays
//	unlink(.tmp/RANDOM)                                        after a link
func (d *Dir) put(ctx context.Context, key string, r io.Reader, size int64, replace bool) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if d.denied != nil {
		return d.denied
	}
	name, dir := filepath.Join(d.root, key), filepath.Dir(key)
	if err := d.folders(dir); err != nil {
		return err
	}
	switch info, err := os.Lstat(name); {
	case err == nil && info.IsDir():
		return unix.EISDIR
	case err == nil && !replace:
		return d.exists(name)
	}
	if size < 0 {
		return fmt.Errorf("%w: %d bytes", ErrSize, size)
	}
	tmp := filepath.Join(d.root, tmpDir, rand.Text())
	if err := d.write(ctx, tmp, r, size); err != nil {
		return d.discard(tmp, err)
	}
	if replace {
		if err := d.fs.Rename(tmp, name); err != nil {
			return d.discard(tmp, err)
		}
		return d.fs.SyncDir(filepath.Dir(name))
	}
	switch err := d.fs.Link(tmp, name); {
	case errors.Is(err, fs.ErrExist):
		return d.discard(tmp, d.exists(name))
	case err != nil:
		return d.discard(tmp, err)
	}
	return d.discard(tmp, d.fs.SyncDir(filepath.Dir(name)))
}

// exists returns ErrExists for a blob that is there for good: another may have put it and died before its name was durable, and what is said to exist will be
// relied on.
func (d *Dir) exists(name string) error {
	if err := d.fs.SyncDir(filepath.Dir(name)); err != nil {
		return err
	}
	return ErrExists
}

// folders makes the folder of a key. One that is a link, or a blob, is refused.
func (d *Dir) folders(dir string) error {
	// What exists of it is looked at before anything is made there.
	f, err := d.beneath(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		err = f.Close()
	}
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case dir == ".":
		return nil
	}
	return durable.MkdirAll(d.fs, d.root, strings.Split(dir, "/")...)
}

// copySize is how much is read and written at a time, in bytes: as much as an import does.
const copySize = 1 << 20

func (d *Dir) write(ctx context.Context, name string, r io.Reader, size int64) (err error) {
	f, err := d.fs.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, min(size+1, copySize)) // not empty for an empty blob
	if _, err := io.CopyBuffer(writer{f}, Exact(ctx, r, size), buf); err != nil {
		return err
	}
	return f.Sync()
}

// writer hides all but Write.
type writer struct{ io.Writer }

// discard removes a temporary name, and returns err. What cannot be removed, sweep finds.
func (d *Dir) discard(tmp string, err error) error {
	_ = d.fs.Remove(tmp)
	return err
}

// Delete implements Bucket. Folders stay, also empty ones: another may be about to put something there.
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return failed("delete", key, err)
	}
	dir := filepath.Dir(key)
	f, err := d.beneath(dir, unix.O_PATH|unix.O_DIRECTORY)
	if missing(err) {
		return nil
	} else if err != nil {
		return failed("delete", key, err)
	}
	if err := f.Close(); err != nil {
		return failed("delete", key, err)
	}
	name := filepath.Join(d.root, key)
	if info, err := os.Lstat(name); missing(err) || err == nil && info.IsDir() {
		return nil
	}
	if err := d.fs.Remove(name); missing(err) {
		return nil
	} else if err != nil {
		return failed("delete", key, err)
	}
	return failed("delete", key, d.fs.SyncDir(filepath.Dir(name)))
}

// missing reports whether there is nothing of that name, or a file on the way to it.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }
