package blob

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// List implements Bucket. It reads a folder as a whole and sorts it.
func (d *Dir) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := ValidatePrefix(prefix); err != nil {
			yield(Info{}, err)
			return
		}
		dir := "" // the folder that holds all of them
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			dir = prefix[:i+1]
		}
		l := &lister{ctx: ctx, d: d, prefix: prefix, yield: yield}
		if err := l.folder(dir); err != nil && !errors.Is(err, errStop) {
			yield(Info{}, failed("list", prefix, err))
		}
	}
}

// errStop: whoever asked has enough.
var errStop = errors.New("stop")

// lister is one walk.
type lister struct {
	ctx    context.Context
	d      *Dir
	prefix string
	yield  func(Info, error) bool
}

// folder yields the blobs in a folder, "" or with '/' behind it, and below.
func (l *lister) folder(dir string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	entries, err := l.read(dir)
	if missing(err) {
		return nil
	} else if err != nil {
		return err
	}
	for _, name := range entries {
		path := dir + name
		switch begins := strings.HasPrefix(path, l.prefix); {
		case strings.HasSuffix(path, "/"):
			if begins || strings.HasPrefix(l.prefix, path) {
				err = l.folder(path)
			}
		case begins:
			err = l.file(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read returns what is in a folder, folders with '/' behind their names: sorted so, a walk yields keys in the order of their bytes.
func (l *lister) read(dir string) ([]string, error) {
	path := strings.TrimSuffix(dir, "/")
	if path == "" {
		path = "."
	}
	f, err := l.d.beneath(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return sorted(entries), nil
}

func (l *lister) file(key string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	info, err := os.Lstat(filepath.Join(l.d.root, key))
	if missing(err) || err == nil && !info.Mode().IsRegular() || ValidateKey(key) != nil {
		return nil // deleted meanwhile, or not ours
	} else if err != nil {
		return err
	}
	if !l.yield(Info{Key: key, Size: info.Size(), Modified: info.ModTime().UnixNano()}, nil) {
		return errStop
	}
	return nil
}

// sorted returns the names of files and folders that parts of keys can have, in the order of the keys that they make.
func sorted(entries []fs.DirEntry) []string {
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			names = append(names, e.Name()+"/")
		case e.Type().IsRegular():
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}
