package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/durable"
	"thaw/pagestore/internal/hot"
)

const (
	hintFile = "workingset"
	hotFile  = "hot"

	// maxHintLen bounds the hint, which is read whole; part of the format.
	maxHintLen = 256 << 20
)

// WorkingSet is what is kept of a snapshot so that later restores of it are faster. A snapshot needs neither part.
type WorkingSet struct {
	// Hint is whatever the caller wants to find again, at most 256 MiB; empty for none. It is opaque here, and nobody but its
	// writer checks it.
	Hint []byte
	// Order is the pages that a restore wants first, in that order: a second copy of them is kept for [Image.PrefetchHot]. Pages that
	// are zero are skipped, and of a page that comes twice the first counts. Empty for no copy.
	Order []PageRun
	// Far is the pages that come first, as one object, where the snapshot is restored from elsewhere, in that order: those that lie together in packs can
	// be among them, which as a second copy here would be of no use. Only the list is kept. Empty for those of Order. Of a stub, whose object is
	// what it is, it is not kept.
	Far []PageRun
}

// PageRun is Pages pages of an image from Image on.
type PageRun struct{ Image, Pages uint64 }

// SetWorkingSet replaces what is kept for the snapshot's next restores, both parts of it. It is a writer and waits for others; the
// pages of Order are copied from the packs, and compared with their sums, before anything is changed. An Image that is open keeps the
// copy that it has. Each part is replaced by itself: after an error, or a crash, one may be old and the other new, and that harms
// nobody. Errors are [ErrInput] for what is too large, [ErrRange], [ErrNotFound] and [ErrBeingRemoved] if the snapshot has lost its
// name, [ErrLocked], [ErrNoSpace], [ErrClosed], a *[PageError] for a page that cannot be had, and those of ctx.
func (s *Snapshot) SetWorkingSet(ctx context.Context, w WorkingSet) error {
	if err := s.setWorkingSet(ctx, w); err != nil {
		return fmt.Errorf("set working set of %s: %w", s.info.Name, classify(err))
	}
	return nil
}

// SetHint replaces the hint alone: the packed copy stays as it is. It is a writer, with the errors of SetWorkingSet.
func (s *Snapshot) SetHint(ctx context.Context, hint []byte) error {
	c := &workingSetChange{hint: hint, parts: []string{hintFile}}
	if err := s.change(ctx, c); err != nil {
		return fmt.Errorf("set working set of %s: %w", s.info.Name, classify(err))
	}
	return nil
}

// DropWorkingSet deletes what SetWorkingSet keeps. Errors are as of that.
func (s *Snapshot) DropWorkingSet(ctx context.Context) error {
	if err := s.setWorkingSet(ctx, WorkingSet{}); err != nil {
		return fmt.Errorf("drop working set of %s: %w", s.info.Name, classify(err))
	}
	return nil
}

func (s *Snapshot) setWorkingSet(ctx context.Context, w WorkingSet) error {
	im, err := s.Image()
	if err != nil {
		return err
	}
	c := &workingSetChange{image: im, hint: w.Hint, parts: []string{hotFile, hintFile}}
	if c.runs, err = im.hotRuns(w.Order); err != nil {
		return err
	}
	if s.remote == nil {
		c.parts = []string{hotFile, hotOrderFile, hintFile}
		if c.far, err = im.hotRuns(w.Far); err != nil {
			return err
		}
	}
	return s.change(ctx, c)
}

// change carries a change out.
func (s *Snapshot) change(ctx context.Context, c *workingSetChange) error {
	if len(c.hint) > maxHintLen {
		return fmt.Errorf("%w: hint of %d bytes, want at most %d", ErrInput, len(c.hint), maxHintLen)
	}
	unlock, err := s.store.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.checkPlace(); err != nil {
		return err
	}
	if err := s.store.sweepStaging(s.ns); err != nil {
		return err
	}
	c.fs, c.dir = s.store.opts.fs, filepath.Join(s.ns.staging(), uniqueName(s.info.Name.Snapshot))
	if err = c.stage(ctx, s); err == nil {
		err = c.publish(s.ns.snapshot(s.info.Name.Snapshot))
	}
	clean := durable.RemoveAll(c.fs, c.dir)
	if err == nil && clean != nil {
		s.store.opts.Logger.Warn("staging folder is left to the next writer", "snapshot", s.info.Name.String(), "err", clean)
		return nil
	}
	return errors.Join(err, clean)
}

// checkPlace returns an error unless the snapshot still has its name.
func (s *Snapshot) checkPlace() error {
	opened, err := s.file.Stat()
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	} else if err != nil {
		return err
	}
	now, err := os.Stat(filepath.Join(s.ns.snapshot(s.info.Name.Snapshot), manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s.ns.whyAbsent(s.info.Name.Snapshot)
	} else if err != nil {
		return err
	}
	if !os.SameFile(opened, now) {
		return fmt.Errorf("%w: another one has its name now", ErrNotFound)
	}
	return nil
}

// workingSetChange is one run of SetWorkingSet or SetHint. The caller holds the lock.
type workingSetChange struct {
	parts []string // names of the files that are replaced, or deleted where there is nothing new
	hint  []byte
	runs  []hot.Run // of image
	far   []hot.Run // of image
	image *Image

	fs  durable.FS
	dir string // in staging

	staged []string // names of the files in dir
}

// stage writes the new files, if there are any, to the staging folder.
func (c *workingSetChange) stage(ctx context.Context, s *Snapshot) error {
	if len(c.hint) == 0 && len(c.runs) == 0 && len(c.far) == 0 {
		return ctx.Err()
	}
	if err := c.fs.Mkdir(c.dir); err != nil {
		return err
	}
	if len(c.runs) > 0 {
		if err := c.image.writeHot(ctx, c.fs, filepath.Join(c.dir, hotFile), s.info.Digest, c.runs); err != nil {
			return err
		}
		c.staged = append(c.staged, hotFile)
	}
	if len(c.far) > 0 {
		head, _, err := hot.Encode(s.info.Digest, c.image.Pages(), c.far)
		if err == nil {
			err = durable.Write(c.fs, filepath.Join(c.dir, hotOrderFile), head)
		}
		if err != nil {
			return err
		}
		c.staged = append(c.staged, hotOrderFile)
	}
	if len(c.hint) > 0 {
		if err := durable.Write(c.fs, filepath.Join(c.dir, hintFile), c.hint); err != nil {
			return err
		}
		c.staged = append(c.staged, hintFile)
	}
	if err := c.fs.SyncDir(c.dir); err != nil {
		return err
	}
	return ctx.Err()
}

// publish moves the staged files into the folder of the snapshot, and deletes there what has no successor.
func (c *workingSetChange) publish(folder string) error {
	for _, name := range c.parts {
		if slices.Contains(c.staged, name) {
			if err := c.fs.Rename(filepath.Join(c.dir, name), filepath.Join(folder, name)); err != nil {
				return err
			}
		} else if err := c.fs.Remove(filepath.Join(folder, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return c.fs.SyncDir(folder)
}

// WorkingSet returns the hint of the last SetWorkingSet. The error is [fs.ErrNotExist] if there is none.
func (s *Snapshot) WorkingSet() ([]byte, error) {
	hint, err := s.readHint()
	if err != nil {
		return nil, fmt.Errorf("read working set of %s: %w", s.info.Name, err)
	}
	return hint, nil
}

func (s *Snapshot) readHint() ([]byte, error) {
	f, err := s.openBeside(hintFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	hint, err := io.ReadAll(io.LimitReader(f, maxHintLen+1))
	if err != nil {
		return nil, err
	}
	if len(hint) > maxHintLen {
		return nil, corruptf("%s has more than %d bytes", hintFile, maxHintLen)
	}
	return hint, nil
}

// HintVersion tells one hint of a snapshot from another. The zero value stands for none.
type HintVersion struct{ inode, modified, size int64 }

// HintVersion returns that of the hint that there is now, at the cost of one look at the file.
func (s *Snapshot) HintVersion() (HintVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return HintVersion{}, ErrClosed
	}
	var st unix.Stat_t
	switch err := unix.Fstatat(int(s.dir.Fd()), hintFile, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, fs.ErrNotExist):
		return HintVersion{}, nil
	case err != nil:
		return HintVersion{}, fmt.Errorf("look at working set of %s: %w", s.info.Name, err)
	}
	return HintVersion{int64(st.Ino), st.Mtim.Nano(), st.Size}, nil
}

// openBeside opens a file in the snapshot's folder, wherever that has been moved.
func (s *Snapshot) openBeside(name string) (*os.File, error) {
	s.mu.Lock() // or Close might give the folder's descriptor to another file
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, ErrClosed
	}
	return s.openBesideLocked(name)
}

func (s *Snapshot) openBesideLocked(name string) (*os.File, error) {
	path := filepath.Join(s.dir.Name(), name)
	for {
		fd, err := unix.Openat(int(s.dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// WorkingSetBytes returns the sizes of the hint and of the packed copy, in bytes; 0 for what is not there.
func (s *Snapshot) WorkingSetBytes() (hint, packed int64) {
	hint, packed, _ = workingSetFiles(filepath.Dir(s.SkeletonDir()))
	return hint, packed
}

// workingSetFiles returns the sizes of the hint and of the packed copy in the snapshot folder dir, and when either was written last.
func workingSetFiles(dir string) (hint, packed int64, last time.Time) {
	size := func(name string) int64 {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			return 0
		}
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
		return info.Size()
	}
	return size(hintFile), size(hotFile), last
}
