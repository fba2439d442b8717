package durabletest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"thaw/internal/durable"
)

// Fault is what happens at the chosen step.
type Fault int

const (
	// ErrorBefore: the step has no effect and returns [ErrInjected].
	ErrorBefore Fault = iota
	// ErrorAfter: the step has its effect and returns ErrInjected all the same.
	ErrorAfter
	// NoSpace: this step and all later ones that need space fail with ENOSPC; writes have half of their effect.
	NoSpace
	// CrashBefore: the step has no effect, and no later step has one either.
	CrashBefore
	// CrashAfter: the step has its effect, a write half of it, and no later step has one.
	CrashAfter
)

// Faults are all of them.
var Faults = []Fault{ErrorBefore, ErrorAfter, NoSpace, CrashBefore, CrashAfter}

// String names the fault in the names of tests.
func (f Fault) String() string {
	return [...]string{"error before", "error after", "no space", "crash before", "crash after"}[f]
}

// Errors of injected faults.
var (
	// ErrInjected is the error of a step that was chosen to fail.
	ErrInjected = errors.New("injected fault")
	// ErrCrashed is the error of all steps after a crash: what follows it in the caller never happened.
	ErrCrashed = errors.New("the process is dead")
)

// FS is a durable.FS with one fault. It syncs nothing for real.
type FS struct {
	trash string // a folder on the same file system, for what is removed

	mu      sync.Mutex
	step    int
	failAt  int
	fault   Fault
	reached bool
	down    bool // after a crash
	full    bool // after NoSpace
	log     []change
	files   []*file
	trashed int
}

// change is a change of names. Paths are those of its time: folders on the way may have been renamed since.
type change struct {
	kind    kind
	name    string // what was made or removed, or the new name
	from    string // of a rename
	saved   string // where what it removed or replaced is kept; "" for none
	durable bool   // a sync of the folder came after it
}

type kind int

const (
	made kind = iota
	renamed
	removedFile
	removedDir
)

// New returns a file system that breaks step number failAt, counted from 1; none if failAt is 0. trash is an
// empty folder on the file system of the test.
func New(trash string, failAt int, fault Fault) *FS {
	return &FS{trash: trash, failAt: failAt, fault: fault}
}

// Reached reports whether the chosen step came.
func (f *FS) Reached() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reached
}

// Crashed reports whether the fault was a crash, and happened.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}

// do runs one step. needsSpace steps fail on a full disk. half, if not nil, is its effect when it is broken
// off.
func (f *FS) do(needsSpace bool, effect, half func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return ErrCrashed
	}
	f.step++
	if f.step == f.failAt {
		f.reached = true
		return f.broken(needsSpace, effect, half)
	}
	if f.full && needsSpace {
		return full(half)
	}
	return effect()
}

// full is a step on a full disk.
func full(half func() error) error {
	if half == nil {
		return syscall.ENOSPC
	}
	return errors.Join(syscall.ENOSPC, half())
}

// broken is the chosen step.
func (f *FS) broken(needsSpace bool, effect, half func() error) error {
	switch f.fault {
	case ErrorBefore:
		return fmt.Errorf("step %d: %w", f.step, ErrInjected)
	case ErrorAfter:
		return errors.Join(fmt.Errorf("step %d: %w", f.step, ErrInjected), effect())
	case NoSpace:
		f.full = true
		if !needsSpace {
			return effect()
		}
		return full(half)
	case CrashBefore:
		f.down = true
		return ErrCrashed
	case CrashAfter:
		f.down = true
		if half == nil {
			half = effect
		}
		return errors.Join(ErrCrashed, half())
	}
	panic("unknown fault")
}

// note remembers a change of names.
func (f *FS) note(c change) { f.log = append(f.log, c) }

// Create implements durable.FS.
func (f *FS) Create(name string) (durable.File, error) {
	var out *file
	err := f.do(true, func() error {
		osFile, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		out = &file{fs: f, os: osFile}
		f.files = append(f.files, out)
		f.note(change{kind: made, name: name})
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Mkdir implements durable.FS.
func (f *FS) Mkdir(name string) error {
	return f.do(true, func() error {
		if err := os.Mkdir(name, 0o700); err != nil {
			return err
		}
		f.note(change{kind: made, name: name})
		return nil
	}, nil)
}

// Rename implements durable.FS. The sync of the new folder makes it durable, as on file systems with a journal.
func (f *FS) Rename(from, to string) error {
	return f.do(false, func() error {
		saved := ""
		if info, err := os.Lstat(to); err == nil && info.Mode().IsRegular() {
			saved = f.trashName()
			if err := os.Link(to, saved); err != nil {
				return err
			}
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
		f.note(change{kind: renamed, name: to, from: from, saved: saved})
		return nil
	}, nil)
}

// Link implements durable.FS. A power cut takes back the name, not what the file has under its other one.
func (f *FS) Link(from, to string) error {
	return f.do(true, func() error {
		if err := os.Link(from, to); err != nil {
			return err
		}
		f.note(change{kind: made, name: to})
		return nil
	}, nil)
}

// Remove implements durable.FS.
func (f *FS) Remove(name string) error {
	return f.do(false, func() error {
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		if info.IsDir() {
			if err := os.Remove(name); err != nil {
				return err
			}
			f.note(change{kind: removedDir, name: name})
			return nil
		}
		saved := f.trashName()
		if err := os.Rename(name, saved); err != nil {
			return err
		}
		f.note(change{kind: removedFile, name: name, saved: saved})
		return nil
	}, nil)
}

func (f *FS) trashName() string {
	f.trashed++
	return filepath.Join(f.trash, fmt.Sprint(f.trashed))
}

// SyncFile implements durable.FS, for files that were not made through it: those are never lost.
func (f *FS) SyncFile(name string) error {
	return f.do(false, func() error { _, err := os.Stat(name); return err }, nil)
}

// SyncDir implements durable.FS.
func (f *FS) SyncDir(name string) error {
	return f.do(false, func() error {
		if _, err := os.ReadDir(name); err != nil {
			return err
		}
		var moved mapping
		for i := len(f.log) - 1; i >= 0; i-- {
			c := &f.log[i]
			if filepath.Dir(moved.now(c.name)) == filepath.Clean(name) {
				c.durable = true
			}
			if c.kind == renamed {
				moved = append(moved, c)
			}
		}
		return nil
	}, nil)
}

// mapping is renames that came after a point in time and that last, the latest first.
type mapping []*change

// now returns what has become of a name of that time.
func (m mapping) now(name string) string {
	name = filepath.Clean(name)
	for i := len(m) - 1; i >= 0; i-- {
		if rest, ok := strings.CutPrefix(name+"/", filepath.Clean(m[i].from)+"/"); ok {
			name = filepath.Clean(m[i].name + "/" + rest)
		}
	}
	return name
}

// undo takes the change back; moved are the lasting renames after it.
func (c *change) undo(moved mapping) error {
	name := moved.now(c.name)
	switch c.kind {
	case made:
		return os.RemoveAll(name)
	case removedDir:
		return os.Mkdir(name, 0o700)
	case removedFile:
		return os.Rename(c.saved, name)
	}
	err := os.Rename(name, moved.now(c.from))
	if c.saved != "" {
		err = errors.Join(err, os.Rename(c.saved, name))
	}
	return err
}

// PowerCut takes back what was not synced. Call it after a crash, and nothing else of f after it.
func (f *FS) PowerCut() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, file := range f.files {
		errs = append(errs, file.os.Truncate(file.synced))
	}
	var moved mapping
	for i := len(f.log) - 1; i >= 0; i-- {
		c := &f.log[i]
		if !c.durable {
			if err := c.undo(moved); !errors.Is(err, fs.ErrNotExist) { // gone with its folder
				errs = append(errs, err)
			}
		} else if c.kind == renamed {
			moved = append(moved, c)
		}
	}
	return errors.Join(append(errs, f.closeFiles())...)
}

// Close frees what f holds.
func (f *FS) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closeFiles()
}

func (f *FS) closeFiles() error {
	var errs []error
	for _, file := range f.files {
		errs = append(errs, file.os.Close())
	}
	f.files = nil
	return errors.Join(errs...)
}

// file is a durable.File. Its descriptor stays open for PowerCut.
type file struct {
	fs     *FS
	os     *os.File
	size   int64 // protected by fs.mu
	synced int64 // protected by fs.mu
}

// Write implements durable.File. Do not mix it with WriteAt.
func (f *file) Write(b []byte) (n int, err error) {
	f.fs.mu.Lock()
	end := f.size
	f.fs.mu.Unlock()
	return f.WriteAt(b, end)
}

// WriteAt implements durable.File.
func (f *file) WriteAt(b []byte, off int64) (n int, err error) {
	write := func(b []byte) error {
		n, err = f.os.WriteAt(b, off)
		f.size = max(f.size, off+int64(n))
		return err
	}
	err = f.fs.do(true, func() error { return write(b) }, func() error { return write(b[:len(b)/2]) })
	return n, err
}

// Reserve implements durable.File.
func (f *file) Reserve(off, n int64) error { return nil }

// Truncate implements durable.File.
func (f *file) Truncate(size int64) error {
	return f.fs.do(false, func() error {
		f.size = min(f.size, size)
		f.synced = min(f.synced, size)
		return f.os.Truncate(size)
	}, nil)
}

// Writeback implements durable.File.
func (f *file) Writeback(off, n int64) error { return nil }

// Sync implements durable.File.
func (f *file) Sync() error {
	return f.fs.do(false, func() error { f.synced = f.size; return nil }, nil)
}

// Close implements durable.File.
func (f *file) Close() error { return nil }
