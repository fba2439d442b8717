package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// read reads into the page cache everything that a start of these containers in the mode reads: their images or the store, the tools, and the
// files that the frozen processes have mapped, or all programs of the root file system for a cold start. It is done before each
// start, for no kernel promises to keep a file in memory, and some give up what has not been used for a minute: one page of a library that
// is missing then costs as much as the whole of what is measured.
func (l *Lab) read(ctx context.Context, frozen []*Frozen, mode Mode) error {
	paths := l.config.Files()
	byCRIU := mode == CRIUEager || mode == CRIULazy
	switch {
	case mode == Cold:
		paths = append(paths, filepath.Join(l.config.Rootfs, "usr"))
	case !byCRIU:
		paths = append(paths, l.store())
	}
	for f := range distinct(frozen) {
		paths = append(paths, f.files...)
		if byCRIU {
			paths = append(paths, f.images)
		}
	}
	_, err := ReadAll(ctx, paths...)
	return err
}

// DropCaches empties the page cache, and the caches of names and inodes with it.
func DropCaches() error {
	// Only clean pages can be dropped.
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("drop caches: %w", err)
	}
	return nil
}

// ReadImages drops the page cache and reads the images of a frozen container once, from the first byte to the last, as the
// simplest program does. It returns how long that took and how many bytes it was: what the disk needs, if not for all
// of the memory then for as much of it as a first response touches.
func (l *Lab) ReadImages(ctx context.Context, f *Frozen) (took time.Duration, n uint64, err error) {
	if err := DropCaches(); err != nil {
		return 0, 0, err
	}
	start := time.Now()
	n, err = ReadAll(ctx, f.images)
	return time.Since(start), n, err
}

// ReadAll reads all files at or below the paths once, which brings them into the page cache, and returns their size in bytes.
func ReadAll(ctx context.Context, paths ...string) (uint64, error) {
	var total uint64
	buf := make([]byte, 1<<20)
	for _, dir := range paths {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			n, err := readFile(path, buf)
			total += n
			return errors.Join(err, ctx.Err())
		})
		if err != nil {
			return total, fmt.Errorf("read files below %s: %w", dir, err)
		}
	}
	return total, nil
}

func readFile(path string, buf []byte) (uint64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var total uint64
	for {
		n, err := f.Read(buf)
		total += uint64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// diskUsage returns the bytes that the files below dir take on disk; holes take none.
func diskUsage(dir string) (uint64, error) {
	var total uint64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			// The kernel counts in units of 512 bytes, whatever the file system's own.
			total += uint64(stat.Blocks) * 512
		}
		return nil
	})
	return total, err
}
