package version

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Files are the files of an app as they are now.
type Files struct {
	Code []File // sources, included files, the lock file
	Data []File
	Lock *File // nil if none is declared
}

// Collect reads and hashes the files that the description names in the app's folder. Use the FS of an [os.Root]: one of [os.DirFS] follows
// links out of the folder. A pattern that fits no file is an error, since it is a mistake in most cases.
func Collect(fsys fs.FS, d *Description) (*Files, error) {
	c := collector{fs: fsys}
	code := slices.Clone(d.Sources)
	if d.Dependencies != "" {
		code = append(code, d.Dependencies)
	}
	included, err := c.expand(d.Include)
	if err != nil {
		return nil, fmt.Errorf("included files: %w", err)
	}
	data, err := c.expand(d.Data)
	if err != nil {
		return nil, fmt.Errorf("data files: %w", err)
	}
	out := new(Files)
	if out.Code, err = c.files(append(code, included...)); err != nil {
		return nil, err
	}
	if out.Data, err = c.files(data); err != nil {
		return nil, err
	}
	if d.Dependencies != "" {
		out.Lock = find(out.Code, path.Clean(d.Dependencies))
	}
	return out, nil
}

// collector lists the folder once, if there are patterns.
type collector struct {
	fs     fs.FS
	listed bool
	all    []string
}

// files hashes the files of the paths, sorted and each once.
func (c *collector) files(paths []string) ([]File, error) {
	for i := range paths {
		paths[i] = path.Clean(paths[i])
	}
	slices.Sort(paths)
	var out []File
	for _, p := range slices.Compact(paths) {
		f, err := hashFile(c.fs, p)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func hashFile(fsys fs.FS, name string) (f File, err error) {
	in, err := fsys.Open(name)
	if err != nil {
		return File{}, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	info, err := in.Stat()
	if err != nil {
		return File{}, err
	}
	if !info.Mode().IsRegular() {
		return File{}, fmt.Errorf("%s is no file (%v)", name, info.Mode().Type())
	}
	h := sha256.New()
	f = File{Path: name, Executable: info.Mode()&0o111 != 0}
	if f.Bytes, err = io.Copy(h, in); err != nil {
		return File{}, err
	}
	h.Sum(f.SHA256[:0])
	return f, nil
}

// expand returns the files that the patterns fit: each one at least one.
func (c *collector) expand(patterns []string) ([]string, error) {
	if len(patterns) > 0 && !c.listed {
		if err := c.list(); err != nil {
			return nil, err
		}
	}
	var out []string
	for _, p := range patterns {
		segments := strings.Split(path.Clean(p), "/")
		n := len(out)
		for _, file := range c.all {
			ok, err := fits(segments, strings.Split(file, "/"))
			if err != nil {
				return nil, fmt.Errorf("%q: %w", p, err)
			}
			if ok {
				out = append(out, file)
			}
		}
		if len(out) == n {
			return nil, fmt.Errorf("%q: %w", p, fs.ErrNotExist)
		}
	}
	return out, nil
}

// list lists the files of the folder, but for what tools keep there.
func (c *collector) list() error {
	c.listed = true
	return fs.WalkDir(c.fs, ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "__pycache__" || e.Name() == ".git"):
			return fs.SkipDir
		case !e.IsDir():
			c.all = append(c.all, p)
		}
		return nil
	})
}

// fits reports whether the pattern names the file, or a folder that it is in. "**" is any number of folders, the rest as in [path.Match].
func fits(pattern, file []string) (bool, error) {
	switch {
	case len(pattern) == 0 || len(pattern) == 1 && pattern[0] == ".":
		return true, nil
	case pattern[0] == "**":
		for i := range len(file) + 1 {
			if ok, err := fits(pattern[1:], file[i:]); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	case len(file) == 0:
		return false, nil
	}
	ok, err := path.Match(pattern[0], file[0])
	if !ok || err != nil {
		return false, err
	}
	return fits(pattern[1:], file[1:])
}
