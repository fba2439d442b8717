package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
)

// Overlay is the root file system of one instance. Not safe for concurrent use.
type Overlay struct {
	dir     string
	mounted bool
}

// Names in the folder of an overlay.
const (
	upperName = "upper" // what the instance writes
	workName  = "work"  // the kernel's
	mountName = "root"  // where the overlay is mounted
)

// ErrUpper is returned for a folder on a file system that cannot hold what an instance writes.
var ErrUpper = errors.New("the file system cannot be the upper one of an overlay")

// Mount makes the folder dir, absolute, and in it an overlay of the root, with the layers above it, the newest first. What is written
// goes to dir, and to nowhere else. The mount is private: what is mounted below it later shows nowhere else.
func (r *Root) Mount(dir string, layers []*Layer) (*Overlay, error) {
	lowers := make([]string, 0, len(layers)+len(r.lowers))
	for _, l := range layers {
		lowers = append(lowers, l.Content())
	}
	lowers = append(lowers, r.lowers...)
	o := &Overlay{dir: dir}
	for _, sub := range []string{upperName, workName, mountName} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, errors.Join(err, o.Remove())
		}
	}
	if err := mountOverlay(o.Root(), lowers, o.upper(), filepath.Join(dir, workName)); err != nil {
		return nil, errors.Join(fmt.Errorf("mount overlay of %s at %s: %w", r.path, o.Root(), explainUpper(err, dir)), o.Remove())
	}
	o.mounted = true
	return o, nil
}

// Root returns the path of the root file system.
func (o *Overlay) Root() string { return filepath.Join(o.dir, mountName) }

func (o *Overlay) upper() string { return filepath.Join(o.dir, upperName) }

// Unmount takes the overlay away, and leaves what was written. Processes that are still in it stay there.
func (o *Overlay) Unmount() error {
	if !o.mounted {
		return nil
	}
	if err := unix.Unmount(o.Root(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
		return fmt.Errorf("unmount %s: %w", o.Root(), err)
	}
	o.mounted = false
	return nil
}

// Remove unmounts the overlay and deletes what was written. Removing again does nothing.
func (o *Overlay) Remove() error {
	return errors.Join(checkpoint.UnmountBelow(o.dir), checkpoint.RemoveAll(o.dir))
}

// explainUpper says of a mount that the kernel refused if the reason is the file system below it.
func explainUpper(err error, dir string) error {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%w: it is an overlay itself: %w", ErrUpper, err)
	}
	return err
}
