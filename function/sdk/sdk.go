package sdk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"thaw/function/version"
	"thaw/internal/durable"
)

// Folder returns the folder of the SDK with that digest below base. It may not be there.
func Folder(base string, digest version.Digest) string { return filepath.Join(base, digest.String()) }

// Digest returns the SHA-256 of the paths and contents of the SDK's files.
func Digest(files fs.FS) (version.Digest, error) {
	h := sha256.New()
	h.Write([]byte("thaw sdk 1\n")) // part of the key of versions, do not change it
	err := walk(files, func(path string, data []byte) error {
		fmt.Fprintf(h, "%q %x\n", path, sha256.Sum256(data))
		return nil
	}, func(string) error { return nil })
	return version.Digest(h.Sum(nil)), err
}

// Unpack puts the files below base, which it makes, unless they are there. Several processes may do so at once.
func Unpack(files fs.FS, base string) (dir string, digest version.Digest, err error) {
	return unpack(durable.Disk, files, base)
}

func unpack(disk durable.FS, files fs.FS, base string) (dir string, digest version.Digest, err error) {
	if digest, err = Digest(files); err != nil {
		return "", digest, fmt.Errorf("unpack SDK: %w", err)
	}
	dir = Folder(base, digest)
	if _, err := os.Stat(dir); err == nil {
		return dir, digest, nil
	}
	if err := place(disk, files, base, dir); err != nil {
		return "", digest, fmt.Errorf("unpack SDK: %w", err)
	}
	return dir, digest, nil
}

// place makes the folder under another name and renames it. Whoever comes second finds it there.
func place(disk durable.FS, files fs.FS, base, dir string) error {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(base, "unpack-")
	if err != nil {
		return err
	}
	write := func(path string, data []byte) error { return durable.Write(disk, filepath.Join(temp, path), data) }
	mkdir := func(path string) error { return disk.Mkdir(filepath.Join(temp, path)) }
	err = walk(files, write, mkdir)
	if err == nil {
		err = durable.SyncTree(disk, temp, nil)
	}
	if err == nil {
		err = disk.Rename(temp, dir)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(temp))
		if _, there := os.Stat(dir); there == nil {
			return nil
		}
		return err
	}
	return disk.SyncDir(base)
}

// walk goes through the SDK's files in the order of their paths, and through the folders before what is in them.
func walk(files fs.FS, file func(path string, data []byte) error, folder func(path string) error) error {
	return fs.WalkDir(files, ".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && e.Name() == "__pycache__":
			return fs.SkipDir
		case e.IsDir():
			if path == "." {
				return nil
			}
			return folder(path)
		}
		data, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		return file(path, data)
	})
}
