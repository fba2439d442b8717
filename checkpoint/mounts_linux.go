package checkpoint

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is one line of /proc/self/mountinfo.
type mount struct {
	point  string // where it is mounted
	fsType string
	super  string // options of the file system itself; for cgroup v1 they name the controllers
}

// mounts returns the mounts that this process sees, in the order in which they were made.
func mounts() ([]mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts reads the format of proc(5), /proc/[pid]/mountinfo.
func parseMounts(r io.Reader) ([]mount, error) {
	var all []mount
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		// A variable number of optional fields ends with a lone dash.
		before, after, ok := strings.Cut(lines.Text(), " - ")
		front, back := strings.Fields(before), strings.Fields(after)
		if !ok || len(front) < 6 || len(back) < 2 {
			return nil, fmt.Errorf("mountinfo: unexpected line %q", lines.Text())
		}
		m := mount{point: unescape(front[4]), fsType: back[0]}
		if len(back) > 2 {
			m.super = back[2]
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// unescape undoes the kernel's escapes for white space and backslash: a backslash and three octal digits.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// pointsBelow returns the mount points at or below dir, the last made first, which is the order to unmount them in.
func pointsBelow(all []mount, dir string) []string {
	var points []string
	for i := len(all) - 1; i >= 0; i-- {
		if p := all[i].point; p == dir || strings.HasPrefix(p, dir+"/") {
			points = append(points, p)
		}
	}
	return points
}

// UnmountBelow unmounts everything that is mounted at or below dir. A dir that does not exist has nothing mounted.
func UnmountBelow(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unmount below: %w", err)
	}
	if real, err = filepath.Abs(real); err != nil {
		return fmt.Errorf("unmount below: %w", err)
	}
	if real == "/" {
		return errors.New("unmount below: refusing to unmount everything")
	}
	all, err := mounts()
	if err != nil {
		return fmt.Errorf("unmount below %s: %w", dir, err)
	}
	var errs []error
	for _, point := range pointsBelow(all, real) {
		// Detached, for a process of a failed restore may still be dying inside. EINVAL: unmounted by another meanwhile.
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

// RemoveAll removes dir and all below it, as os.RemoveAll does, but never follows a mount: the kernel refuses to open a
// folder that another mount lies on, and RemoveAll then returns an error matching [unix.EXDEV] and leaves it alone.
func RemoveAll(dir string) error {
	parent, err := os.Open(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := removeAt(parent, filepath.Base(dir)); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// removeAt removes name in the open folder parent, and all below it on the same mount.
func removeAt(parent *os.File, name string) error {
	switch err := unix.Unlinkat(int(parent.Fd()), name, 0); err {
	case nil, unix.ENOENT:
		return nil
	case unix.EISDIR:
	default:
		return &fs.PathError{Op: "unlinkat", Path: name, Err: err}
	}
	fd, err := unix.Openat2(int(parent.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return &fs.PathError{Op: "openat2", Path: name, Err: err}
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, child := range names {
		errs = append(errs, removeAt(dir, child))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "rmdir", Path: name, Err: err}
	}
	return nil
}
