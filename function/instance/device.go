package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// device is a device node of the host.
type device struct {
	path string
	mode uint32 // type and permissions
	rdev uint64
}

// ErrNoDevice is returned for a path that leads to no device, or not to one that a container can have.
var ErrNoDevice = errors.New("no device")

func findDevice(path string) (device, error) {
	if filepath.Clean(path) != path || !strings.HasPrefix(path, "/dev/") {
		return device{}, fmt.Errorf("%s: %w: want a path below /dev", path, ErrNoDevice)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return device{}, fmt.Errorf("%w: %w", ErrNoDevice, &fs.PathError{Op: "stat", Path: path, Err: err})
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return device{}, fmt.Errorf("%s: %w", path, ErrNoDevice)
	}
	return device{path: path, mode: st.Mode, rdev: st.Rdev}, nil
}

// makeDevices makes the nodes of the devices in the container of a process. Its cgroup allows them already.
func (s *shell) makeDevices(pid int) error {
	if len(s.devices) == 0 {
		return nil
	}
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, d := range s.devices {
		if err := d.makeBelow(root); err != nil {
			return fmt.Errorf("make device %s in the container: %w", d.path, err)
		}
	}
	return nil
}

// makeBelow makes the node below a root folder that is the container's, who may have put links where we expect folders: they lead to nowhere
// outside of the root.
func (d *device) makeBelow(root *os.File) error {
	dir := int(root.Fd())
	for elem := range strings.SplitSeq(strings.TrimPrefix(filepath.Dir(d.path), "/"), "/") {
		next, err := openFolderBelow(dir, elem)
		if dir != int(root.Fd()) {
			unix.Close(dir)
		}
		if err != nil {
			return err
		}
		dir = next
	}
	defer unix.Close(dir)
	return d.makeIn(dir)
}

// makeIn makes the node in an open folder. What has the name already may be of the container's making, such as a link that leads, for us, to a
// file of the host's: it is not followed, and it is an error unless it is the device.
func (d *device) makeIn(dir int) error {
	name := filepath.Base(d.path)
	err := unix.Mknodat(dir, name, d.mode, int(d.rdev))
	if err != nil && err != unix.EEXIST {
		return &fs.PathError{Op: "mknod", Path: d.path, Err: err}
	}
	node, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: d.path, Err: err}
	}
	defer unix.Close(node)
	var st unix.Stat_t
	if err := unix.Fstat(node, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	if st.Mode&unix.S_IFMT != d.mode&unix.S_IFMT || st.Rdev != d.rdev {
		return fmt.Errorf("%w: the container has something else there, of mode %#o", ErrNoDevice, st.Mode)
	}
	// Against the umask of ours. By its name in /proc: a descriptor like this one has no mode to be changed.
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", node), os.FileMode(d.mode&0o777))
}

// openFolderBelow opens a folder by its name, and makes it if it is not there.
func openFolderBelow(dir int, name string) (int, error) {
	if err := unix.Mkdirat(dir, name, 0o755); err != nil && err != unix.EEXIST {
		return -1, &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}
