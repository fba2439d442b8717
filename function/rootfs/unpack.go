package rootfs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How a layer says what it takes away from those below it, and how an overlay does.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	opaqueXAttr    = "trusted.overlay.opaque"
	kernelsXAttrs  = "trusted.overlay."
	paxXAttr       = "SCHILY.xattr."
)

// unpack makes what an archive describes, in a folder. Paths that lead out of it, by themselves or by links, are an error, as is all that an
// archive cannot mean, and files of more than maxBytes together: a few bytes of an archive can stand for a hole of any size. Errors wrap
// [ErrCorrupt] if the archive is to blame.
func unpack(r io.Reader, dir string, maxBytes int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{root: root, archive: tar.NewReader(r), left: maxBytes, hidden: make(map[string]bool)}
	for {
		h, err := u.archive.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err := u.entry(h); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

type unpacker struct {
	root    *os.Root
	archive *tar.Reader
	left    int64           // bytes that files may still take
	folders []folderTime    // to be set in the end: what is made in a folder changes its time
	hidden  map[string]bool // names that whiteouts have hidden
}

type folderTime struct {
	name  string
	mtime time.Time
}

// finish sets the times of folders, the deepest of which come last.
func (u *unpacker) finish() error {
	for i := len(u.folders) - 1; i >= 0; i-- {
		f := u.folders[i]
		if err := u.root.Chtimes(f.name, f.mtime, f.mtime); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// entry makes one entry.
func (u *unpacker) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	parent, base := path.Split(name)
	parent = path.Clean(parent)
	// An archive says of each folder what it is. Where one does not, it is as good as any.
	if err := u.root.MkdirAll(parent, 0o755); err != nil {
		return corruptPath(err)
	}
	if base == opaqueName {
		return u.at(parent, setOpaque)
	}
	if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		if hidden == "" || hidden == "." || hidden == ".." {
			return fmt.Errorf("%w: it takes away nothing", ErrCorrupt)
		}
		return u.whiteout(parent, hidden)
	}
	if err := u.clear(name, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	if err := u.make(name, h); err != nil {
		return corruptPath(err)
	}
	if h.Typeflag == tar.TypeLink {
		return nil // all else is the first name's
	}
	return u.at(parent, func(dir int) error { return u.attributes(dir, base, name, h) })
}

// cleanName returns the path of an entry below the root, "." for the root itself.
func cleanName(name string) (string, error) {
	clean := path.Clean("/" + name)
	if strings.Contains(name, "\x00") || clean != path.Join("/", name) {
		return "", fmt.Errorf("%w: it is no path", ErrCorrupt)
	}
	for elem := range strings.SplitSeq(name, "/") {
		if elem == ".." {
			return "", fmt.Errorf("%w: the path leads out of the layer", ErrCorrupt)
		}
	}
	if clean == "/" {
		return ".", nil
	}
	return clean[1:], nil
}

// corruptPath marks the error of a path that leads out of the root, or through something that is no folder.
func corruptPath(err error) error {
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	if (errors.As(err, &pathErr) || errors.As(err, &linkErr)) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.EIO) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// clear removes what an earlier entry has made under the name. A folder that is to be a folder stays.
func (u *unpacker) clear(name string, folder bool) error {
	if name == "." {
		if !folder {
			return fmt.Errorf("%w: the root is no folder", ErrCorrupt)
		}
		return nil
	}
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return corruptPath(err)
	}
	if info.IsDir() && folder {
		return nil
	}
	return u.root.RemoveAll(name)
}

// make makes what the entry is, without its attributes.
func (u *unpacker) make(name string, h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeDir:
		u.folders = append(u.folders, folderTime{name, h.ModTime})
		if name == "." {
			return nil
		}
		if err := u.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if u.hidden[name] { // and what replaces it must not show what it hid
			return u.at(name, setOpaque)
		}
		return nil
	case tar.TypeReg, tar.TypeGNUSparse:
		if u.left -= h.Size; u.left < 0 {
			return fmt.Errorf("%w: its files are too large", ErrCorrupt)
		}
		return u.file(name)
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		target, err := cleanName(h.Linkname)
		if err != nil {
			return err
		}
		return u.root.Link(target, name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(name, h)
	}
	return fmt.Errorf("%w: type %q is unknown", ErrCorrupt, h.Typeflag)
}

func (u *unpacker) file(name string) error {
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, u.archive); err != nil {
		f.Close()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return err
	}
	return f.Close()
}

// node makes a device or a pipe.
func (u *unpacker) node(name string, h *tar.Header) error {
	kinds := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}
	if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor >= 1<<12 || h.Devminor >= 1<<20 {
		return fmt.Errorf("%w: there is no device %d:%d", ErrCorrupt, h.Devmajor, h.Devminor)
	}
	rdev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	return u.mknod(name, kinds[h.Typeflag]|0o600, int(rdev))
}

// whiteout hides a name of the layers below.
func (u *unpacker) whiteout(parent, hidden string) error {
	name := path.Join(parent, hidden)
	u.hidden[name] = true
	// An archive may make what it hides below, in either order; then its own stays, over nothing.
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return u.mknod(name, unix.S_IFCHR, 0)
	}
	if err != nil || !info.IsDir() {
		return err
	}
	return u.at(name, setOpaque)
}

// setOpaque has an open folder hide what the layers below have in it.
func setOpaque(dir int) error { return setXAttr(dir, ".", opaqueXAttr, "y") }

func (u *unpacker) mknod(name string, mode uint32, rdev int) error {
	parent, base := path.Split(name)
	return u.at(path.Clean(parent), func(dir int) error {
		if err := unix.Mknodat(dir, base, mode, rdev); err != nil {
			return &fs.PathError{Op: "mknod", Path: name, Err: err}
		}
		return nil
	})
}

// at calls f with an open folder.
func (u *unpacker) at(name string, f func(dir int) error) error {
	dir, err := u.root.Open(name)
	if err != nil {
		return corruptPath(err)
	}
	defer dir.Close()
	return f(int(dir.Fd()))
}

// attributes sets what an entry has besides its content. The owner comes first: changing it takes the set-user-ID bit away.
func (u *unpacker) attributes(dir int, base, name string, h *tar.Header) error {
	if base == "" {
		base = "."
	}
	if err := unix.Fchownat(dir, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "chown", Path: name, Err: err}
	}
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, paxXAttr)
		if !ok {
			continue
		}
		if strings.HasPrefix(attr, kernelsXAttrs) {
			return fmt.Errorf("%w: attribute %s is for overlays alone", ErrCorrupt, attr)
		}
		if err := setXAttr(dir, base, attr, value); err != nil {
			return fmt.Errorf("%s: attribute %s: %w", name, attr, err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(dir, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return &fs.PathError{Op: "chmod", Path: name, Err: err}
		}
	}
	when := []unix.Timespec{unix.NsecToTimespec(h.ModTime.UnixNano()), unix.NsecToTimespec(h.ModTime.UnixNano())}
	if err := unix.UtimesNanoAt(dir, base, when, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimes", Path: name, Err: err}
	}
	return nil
}

// setXAttr sets an attribute of what has a name in an open folder, not of what a link leads to.
func setXAttr(dir int, base, attr, value string) error {
	return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, base), attr, []byte(value), 0)
}
