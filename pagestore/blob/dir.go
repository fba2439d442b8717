package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/durable"
)

// tmpDir holds what is being written, beside all keys: none begins with a dot.
const tmpDir = ".tmp"

// abandoned is how old a file below tmpDir is, by its last write, when whoever wrote it must be dead.
const abandoned = 24 * time.Hour

// Dir is a folder of blobs: each is a file, and its key is the path. Several processes may use one folder at a time, also over a network file system
// that has hard links. A crash leaves a blob or nothing; what Create has returned for survives a power cut.
//
// Below the folder no symbolic link is followed, and nothing but regular files is a blob.
type Dir struct {
	root   string
	fs     durable.FS
	denied error // why nothing can be put; nil if it can
}

var _ Bucket = (*Dir)(nil)

// NewDir returns the bucket in a folder, which it makes if the folder above exists. It removes what dead writers have left for a day. A folder
// that may only be read is one to read from.
func NewDir(root string) (*Dir, error) { return newDir(root, durable.Disk) }

func newDir(root string, fsys durable.FS) (*Dir, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, fs: fsys}
	if err := d.prepare(); err != nil {
		return nil, fmt.Errorf("folder of blobs %s: %w", root, err)
	}
	return d, nil
}

func (d *Dir) prepare() error {
	switch info, err := os.Stat(d.root); {
	case errors.Is(err, fs.ErrNotExist):
		if err := durable.MkdirAll(d.fs, filepath.Dir(d.root), filepath.Base(d.root)); err != nil {
			return place(err)
		}
	case err != nil:
		return place(err)
	case !info.IsDir():
		return errors.New("is not a folder")
	}
	err := durable.MkdirAll(d.fs, d.root, tmpDir)
	if err == nil {
		err = d.sweep(time.Now())
	}
	if err = place(err); errors.Is(err, ErrDenied) {
		d.denied = err
		return nil
	}
	return err
}

// sweep removes unfinished files that nobody has written to for long.
func (d *Dir) sweep(now time.Time) error {
	f, err := d.beneath(tmpDir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // its writer was faster
		} else if err != nil {
			return err
		}
		if info.IsDir() || now.Sub(info.ModTime()) < abandoned {
			continue
		}
		if err := d.fs.Remove(filepath.Join(d.root, tmpDir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// String implements Reader.
func (d *Dir) String() string { return d.root }

// Exclusive implements Bucket: link(2) replaces nothing.
func (d *Dir) Exclusive() bool { return true }

// Size implements Reader.
func (d *Dir) Size(ctx context.Context, key string) (int64, error) {
	f, size, err := d.open(ctx, key, unix.O_PATH)
	if err != nil {
		return 0, failed("size of", key, err)
	}
	return size, f.Close()
}

// Open implements Reader.
func (d *Dir) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	// A FIFO would block the opening, and is refused afterwards.
	f, size, err := d.open(ctx, key, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, failed("open", key, err)
	}
	n, err = Range(size, off, n)
	if err != nil {
		return nil, failed("open", key, errors.Join(err, f.Close()))
	}
	return &section{ctx: ctx, f: f, key: key, off: off, left: n}, nil
}

// open opens the file of a blob, and returns its size in bytes.
func (d *Dir) open(ctx context.Context, key string, flags int) (*os.File, int64, error) {
	if err := check(ctx, key); err != nil {
		return nil, 0, err
	}
	f, err := d.beneath(key, flags)
	if missing(err) {
		return nil, 0, fmt.Errorf("%w: %w", ErrNotFound, err)
	} else if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %v", ErrNotFound, info.Mode().Type())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// beneath opens what is below the folder, and follows no link there.
func (d *Dir) beneath(path string, flags int) (*os.File, error) {
	root, err := unix.Open(d.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		// Not as an error of a blob: that the whole folder is missing does not mean that one is not there.
		return nil, fmt.Errorf("open the folder %s: %s", d.root, err.Error())
	}
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(root, path, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) { // the latter if a rename came in between: openat2(2)
			continue
		}
		if closeErr := unix.Close(root); err == nil && closeErr != nil {
			err = errors.Join(closeErr, unix.Close(fd))
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), filepath.Join(d.root, path)), nil
	}
}

// section reads a part of a file.
type section struct {
	ctx       context.Context
	f         *os.File
	key       string
	off, left int64
}

// Read implements io.Reader.
func (s *section) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, failed("read", s.key, err)
	}
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.f.ReadAt(b[:min(int64(len(b)), s.left)], s.off)
	s.off += int64(n)
	s.left -= int64(n)
	switch {
	case n > 0 || err == nil:
		return n, nil // what is wrong behind it, the next call says
	case errors.Is(err, io.EOF):
		return 0, failed("read", s.key, io.ErrUnexpectedEOF)
	}
	return 0, failed("read", s.key, err)
}

// Close implements io.Closer.
func (s *section) Close() error { return s.f.Close() }
