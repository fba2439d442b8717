package rootfs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// entry is a line of the listing of a layer's content, docs/format/layer.md. The order of its fields is part of the format.
type entry struct {
	Path     string            `json:"path"`           // below the content, "." for itself; bytes that are no UTF-8 as %XX, and % as %25
	Mode     uint32            `json:"mode"`           // type and permissions, as stat(2) has them
	UID      uint32            `json:"uid"`            //
	GID      uint32            `json:"gid"`            //
	MTime    int64             `json:"mtime"`          // nanoseconds since 1970
	Size     int64             `json:"size,omitempty"` // of a regular file
	SHA256   string            `json:"sha256,omitempty"`
	Target   string            `json:"target,omitempty"` // of a symbolic link, written as a path is
	Rdev     uint64            `json:"rdev,omitempty"`   // of a device; a whiteout is the character device 0
	HardLink string            `json:"link,omitempty"`   // the first path of the same file, where this is not the first
	XAttrs   map[string]string `json:"xattrs,omitempty"` // in hexadecimal digits
}

// summary is the digest of a listing, and what was counted on the way.
type summary struct {
	hash    hash.Hash
	entries int64
	bytes   int64
}

func (s *summary) digest() string { return "sha256:" + hex.EncodeToString(s.hash.Sum(nil)) }

// inode tells hard links of one file.
type inode struct{ dev, ino uint64 }

// list walks what is at and below dir, in the order of the names, each folder before what it holds. visit is called with each regular file,
// open, and each folder behind its content, open; nil is fine.
func list(dir string, visit func(*os.File) error) (*summary, error) {
	return listTo(io.Discard, dir, visit)
}

// listTo writes the listing, too.
func listTo(text io.Writer, dir string, visit func(*os.File) error) (*summary, error) {
	w := &walk{visit: visit, seen: make(map[inode]string), sum: summary{hash: sha256.New()}}
	w.lines = json.NewEncoder(io.MultiWriter(w.sum.hash, text))
	w.lines.SetEscapeHTML(false)
	root, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := w.folder(root, "."); err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return &w.sum, nil
}

// syncEntry makes a file or the names in a folder durable.
func syncEntry(f *os.File) error { return f.Sync() }

type walk struct {
	visit func(*os.File) error
	seen  map[inode]string
	sum   summary
	lines *json.Encoder // of the listing
}

// folder lists an open folder and what it holds.
func (w *walk) folder(dir *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := w.write(dir, path, &st, &entry{}); err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, name := range names {
		if err := w.child(dir, name, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	if w.visit != nil {
		return w.visit(dir)
	}
	return nil
}

// child lists what has a name in an open folder.
func (w *walk) child(dir *os.File, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	flags := unix.O_PATH
	if kind == unix.S_IFDIR || kind == unix.S_IFREG {
		flags = unix.O_RDONLY
	}
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if kind == unix.S_IFDIR {
		return w.folder(f, path)
	}
	e := &entry{}
	id := inode{st.Dev, st.Ino}
	first, again := w.seen[id]
	switch {
	case again:
		e.HardLink = escapePath(first)
	case st.Nlink > 1:
		w.seen[id] = path
	}
	switch {
	case kind == unix.S_IFLNK:
		target, err := readLink(fd, path)
		if err != nil {
			return err
		}
		e.Target = escapePath(target)
	case kind == unix.S_IFREG && !again:
		if err := w.content(f, e); err != nil {
			return err
		}
	case kind == unix.S_IFCHR || kind == unix.S_IFBLK:
		e.Rdev = st.Rdev
	}
	return w.write(f, path, &st, e)
}

// content hashes a regular file.
func (w *walk) content(f *os.File, e *entry) error {
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	e.Size, e.SHA256 = n, hex.EncodeToString(h.Sum(nil))
	w.sum.bytes += n
	if w.visit != nil {
		return w.visit(f)
	}
	return nil
}

// write completes an entry and adds its line.
func (w *walk) write(f *os.File, path string, st *unix.Stat_t, e *entry) error {
	e.Path, e.Mode, e.UID, e.GID, e.MTime = escapePath(path), st.Mode, st.Uid, st.Gid, st.Mtim.Nano()
	var err error
	// A descriptor that was opened with O_PATH has no attributes but by its name in /proc.
	if e.XAttrs, err = xattrs(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), st.Mode); err != nil {
		return &fs.PathError{Op: "read attributes", Path: path, Err: err}
	}
	w.sum.entries++
	return w.lines.Encode(e)
}

// xattrs reads all extended attributes of a file, by a path that leads to it and to no link's target.
func xattrs(path string, mode uint32) (map[string]string, error) {
	if mode&unix.S_IFMT == unix.S_IFLNK {
		return nil, nil // the link in /proc leads to the link, whose target would be asked
	}
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Listxattr(path, buf)
	if err == unix.ENOTSUP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		n, err := unix.Getxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = hex.EncodeToString(value[:n])
	}
	return all, nil
}

func readLink(fd int, path string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	return string(buf[:n]), nil
}

// escapePath writes a path so that JSON can hold it, whatever its bytes are.
func escapePath(path string) string {
	var b strings.Builder
	for len(path) > 0 {
		r, n := utf8.DecodeRuneInString(path)
		if r == '%' || r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, "%%%02X", path[0])
		} else {
			b.WriteString(path[:n])
		}
		path = path[n:]
	}
	return b.String()
}
