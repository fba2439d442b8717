package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Modes of what the store makes. Pages of a frozen process are its memory: nobody but the owner reads them.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// FS makes the changes to a disk from which crash-safe updates are composed. Implementations are safe for concurrent
// use. Errors carry the operation and the path, as those of package os do.
type FS interface {
	// Create makes a file for writing. It is an error if the name exists.
	Create(name string) (File, error)
	// Mkdir makes one folder. It is an error if the name exists.
	Mkdir(name string) error
	// Rename moves a file or folder within the file system.
	Rename(from, to string) error
	// Link gives a file another name. It is an error if that name exists: of several that race for it one succeeds.
	Link(from, to string) error
	// Remove deletes a file or an empty folder.
	Remove(name string) error
	// SyncFile makes the content of an existing file durable: for files that somebody else wrote.
	SyncFile(name string) error
	// SyncDir makes the names in a folder durable.
	SyncDir(name string) error
}

// File is a file under construction. It is not safe for concurrent use, but for WriteAt, Reserve, Writeback and Sync, which may run
// beside each other and beside Write. What is to be durable must have been written when Sync is called.
type File interface {
	io.Writer
	io.WriterAt
	// Reserve takes n bytes at off from the free space of the disk, and leaves the size of the file as it is. It is a hint: writes
	// there cost less then. What lies beyond the end in the end, Truncate gives back.
	Reserve(off, n int64) error
	// Truncate cuts the file, and what is reserved for it, to size bytes.
	Truncate(size int64) error
	// Writeback starts to write n bytes at off to the disk and does not wait for them. It is a hint: the later Sync
	// has less to do. It may block while the queue of the disk is full.
	Writeback(off, n int64) error
	// Sync makes the content durable.
	Sync() error
	// Close closes the file, without syncing it.
	Close() error
}

// Disk is the real file system.
var Disk FS = disk{}

type disk struct{}

func (disk) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (disk) Mkdir(name string) error      { return os.Mkdir(name, dirMode) }
func (disk) Rename(from, to string) error { return os.Rename(from, to) }
func (disk) Link(from, to string) error   { return os.Link(from, to) }
func (disk) Remove(name string) error     { return os.Remove(name) }
func (disk) SyncFile(name string) error   { return syncPath(name, 0) }
func (disk) SyncDir(name string) error    { return syncPath(name, unix.O_DIRECTORY) }

func syncPath(name string, flags int) error {
	f, err := os.OpenFile(name, os.O_RDONLY|flags, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type diskFile struct{ *os.File }

func (f diskFile) Reserve(off, n int64) error {
	return f.control("fallocate", func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n) })
}

func (f diskFile) Writeback(off, n int64) error {
	return f.control("sync_file_range", func(fd int) error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
}

// control makes a system call that package os has not.
func (f diskFile) control(op string, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	if err := conn.Control(func(fd uintptr) { errno = call(int(fd)) }); err != nil {
		return err
	}
	if errno != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: errno}
	}
	return nil
}

// Write makes a durable file of data under a name that must not exist yet, in a folder that the caller syncs.
func Write(fsys FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// Replace gives the file name the content data, atomically: readers see the old content or the new. The temporary
// file lies beside it as name+".tmp"; one that an earlier crash left there is removed.
func Replace(fsys FS, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := Write(fsys, tmp, data); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// MkdirAll makes a folder and its missing parents below root, durably; root must exist. Folders that exist are synced
// too: whoever made them may have died before that.
func MkdirAll(fsys FS, root string, elem ...string) error {
	dir := root
	for _, e := range elem {
		parent := dir
		dir = filepath.Join(dir, e)
		if err := fsys.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := fsys.SyncDir(parent); err != nil {
			return err
		}
	}
	return nil
}

// ErrMountPoint is returned by [RemoveAll] when something is mounted inside the tree: deleting on would delete what
// is mounted there.
var ErrMountPoint = errors.New("is a mount point")

// SyncTree makes all files and folders below dir durable, and dir itself; the caller syncs the folder that holds it.
// It visits every regular file with fn (nil for none) and refuses anything that is neither file nor folder.
func SyncTree(fsys FS, dir string, fn func(path string, info fs.FileInfo) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case info.IsDir():
			err = SyncTree(fsys, path, fn)
		case info.Mode().IsRegular():
			if err = fsys.SyncFile(path); err == nil && fn != nil {
				err = fn(path, info)
			}
		default:
			err = fmt.Errorf("%s is neither a file nor a folder (%v)", path, info.Mode().Type())
		}
		if err != nil {
			return err
		}
	}
	return fsys.SyncDir(dir)
}

// RemoveAll deletes a file or a folder with all its content, and nothing across a mount: at the first mount point
// it stops with [ErrMountPoint]. A name that does not exist is no error. It follows no symbolic link.
func RemoveAll(fsys FS, name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if info.IsDir() {
		if err := removeContent(fsys, name); err != nil {
			return err
		}
	}
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func removeContent(fsys FS, dir string) error {
	if mounted, err := isMountPoint(dir); err != nil {
		return err
	} else if mounted {
		return &fs.PathError{Op: "remove", Path: dir, Err: ErrMountPoint}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := RemoveAll(fsys, filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// isMountPoint asks statx(2) rather than comparing device numbers: a bind mount of the same file system, which is
// what a failed container restore leaves behind, has the same one.
func isMountPoint(name string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st); err != nil {
		return false, &fs.PathError{Op: "statx", Path: name, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// NoSpace reports whether err says that the disk or a quota is full.
func NoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
