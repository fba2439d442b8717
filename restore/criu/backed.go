package criu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"google.golang.org/protobuf/proto"

	"thaw/restore"
)

// A Backing is a file that frozen tasks had mapped in place of anonymous memory; see MapFiles.
type Backing interface {
	io.ReaderAt
	io.Closer
}

// OpenBacked is Open for images of tasks that may have been restored from images of MapFiles. find is asked for each file that a
// task has mapped privately, by the path that the tasks have for it, and returns the file if it is such a one, nil if it is one
// like any other. Memory that is mapped from such a file counts as the anonymous memory that it stands for: its pages are listed
// with the others, and a skeleton has it as anonymous.
//
// The Images close what find returned.
func OpenBacked(dir string, find func(path string) (Backing, error)) (*Images, error) {
	return open(dir, (*chain).runs, find)
}

// firstBacking is the number that the first Backing has as Run.File. It is out of the way of the pages files.
const firstBacking = 1 << 30

// backings are the files that tasks have mapped in place of anonymous memory.
type backings struct {
	find   func(path string) (Backing, error) // nil: there are none
	names  map[uint64]string                  // paths of the regular files in the images, by id
	byPath map[string]int                     // index in files, -1: a file like any other
	files  []Backing
}

// load reads the names of the files.
func (b *backings) load(dir string) error {
	b.names, b.byPath = make(map[uint64]string), make(map[string]int)
	if b.find == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, filesImage)); errors.Is(err, fs.ErrNotExist) {
		return nil // images of CRIU 3.1 and before
	}
	return eachFile(dir, func(e *fdinfo.FileEntry) {
		if e.Reg != nil {
			b.names[uint64(e.GetId())] = e.Reg.GetName()
		}
	})
}

// of returns the number of the file that the mapping is of, as in Run.File, and whether it stands for anonymous memory.
func (b *backings) of(m *mapping) (file int, ok bool, err error) {
	path := b.names[m.file]
	if b.find == nil || path == "" || m.status != statusRegular|statusFilePrivate || m.flags&mapPrivate == 0 {
		return 0, false, nil
	}
	i, known := b.byPath[path]
	if !known {
		f, err := b.find(path)
		if err != nil {
			return 0, false, fmt.Errorf("memory mapped from %s: %w", path, err)
		}
		if i = -1; f != nil {
			i = len(b.files)
			b.files = append(b.files, f)
		}
		b.byPath[path] = i
	}
	return firstBacking + i, i >= 0, nil
}

func (b *backings) close() error {
	var errs []error
	for _, f := range b.files {
		errs = append(errs, f.Close())
	}
	b.files = nil
	return errors.Join(errs...)
}

// restoreAnonymous makes anonymous memory of the mappings that stand for it, and adds their pages to the others.
func (im *Images) restoreAnonymous(mem *memoryMap, pages []Run) ([]Run, error) {
	var out []Run
	for i := range mem.mappings {
		m := &mem.mappings[i]
		file, ok, err := im.backings.of(m)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		m.status, m.flags, m.backed = statusRegular|statusAnonPrivate, m.flags|mapAnonymous, true
		m.madvise &^= 1 << madvRandom
		if m.start >= mem.brkStart && m.start < mem.brkEnd {
			m.status |= statusHeap // the kernel says that of anonymous memory only
		}
		before := indexAfter(pages, m.start)
		out, pages = append(out, pages[:before]...), pages[before:]
		out, pages = appendBacked(out, pages, mem.guards, m, file)
	}
	if mem.hasBacked() {
		mem.join()
	}
	return append(out, pages...), nil
}

// appendBacked appends the pages of a mapping that is backed by a file: those that the task has written to, which are the first of
// pages, and for all others but guarded ones those of the file. It returns the rest of pages.
func appendBacked(out, pages []Run, guards []mapping, m *mapping, file int) (all, rest []Run) {
	for at := m.start; at < m.end; {
		next := m.end
		if len(pages) > 0 {
			next = min(next, max(at, pages[0].Addr))
		}
		for len(guards) > 0 && guards[0].end <= at {
			guards = guards[1:]
		}
		guarded := len(guards) > 0 && guards[0].start < next
		if guarded {
			next = max(at, guards[0].start)
		}
		if next > at {
			out = append(out, Run{Addr: at, Pages: (next - at) / restore.PageSize, File: file, Offset: int64(m.offset + (at - m.start))})
			at = next
			continue
		}
		if guarded {
			at = min(guards[0].end, m.end)
			continue
		}
		r := pages[0]
		if r.end() > m.end {
			r.Pages = (m.end - r.Addr) / restore.PageSize
		}
		out = append(out, r)
		if pages[0] = pages[0].skip(r.Pages); pages[0].Pages == 0 {
			pages = pages[1:]
		}
		at = r.end()
	}
	return out, pages
}

// join makes one mapping of neighbors that are alike and were cut when a part was mapped from a file: mremap does not take what is
// two mappings, and whoever looks for allocators wants theirs whole.
func (mem *memoryMap) join() {
	var out []mapping
	for _, m := range mem.mappings {
		if n := len(out); n > 0 && (m.backed || out[n-1].backed) && out[n-1].continuedBy(&m) {
			out[n-1].end, out[n-1].backed = m.end, true
			continue
		}
		out = append(out, m)
	}
	mem.mappings = out
}

// continuedBy reports whether anonymous mapping o is like m and begins where m ends.
func (m *mapping) continuedBy(o *mapping) bool {
	return m.end == o.start && m.prot == o.prot && m.flags == o.flags && m.madvise == o.madvise && m.status == o.status &&
		m.status&^statusHeap == statusRegular|statusAnonPrivate
}

// indexAfter returns the index of the first run that ends after addr.
func indexAfter(runs []Run, addr uint64) int {
	i, _ := slices.BinarySearchFunc(runs, addr, func(r Run, addr uint64) int {
		if r.end() > addr {
			return 1
		}
		return -1
	})
	return i
}

// Reader returns the file whose number is that of a run. It is closed with the Images.
func (im *Images) Reader(file int) io.ReaderAt {
	if file >= firstBacking {
		return im.backings.files[file-firstBacking]
	}
	return im.chain.files[file]
}

// fileName returns what the file of that number is called.
func (im *Images) fileName(file int) string {
	if file < firstBacking {
		return filepath.Base(im.chain.files[file].Name())
	}
	for path, i := range im.backings.byPath {
		if firstBacking+i == file {
			return path
		}
	}
	return ""
}

// writeMM writes mm-PID.img of a task with mappings that stand for anonymous memory.
func (w *skeletonWriter) writeMM(t *Task) error {
	name := fmt.Sprintf("mm-%d.img", t.PID)
	entry, err := readImage(filepath.Join(w.im.dir, name), name, magicMM, readMM)
	if err != nil {
		return err
	}
	var out []*vma.VmaEntry
	joined := w.im.memory[t.PID].mappings
	for _, v := range entry.GetVmas() {
		for len(joined) > 0 && joined[0].end <= v.GetStart() {
			joined = joined[1:]
		}
		if v.GetStatus()&statusGuard != 0 || len(joined) == 0 || !joined[0].backed || v.GetStart() < joined[0].start {
			out = append(out, v)
			continue
		}
		m := &joined[0]
		if v.GetStart() > m.start {
			continue // a part of the one before
		}
		v.End, v.Flags, v.Status = &m.end, &m.flags, &m.status
		v.Shmid, v.Pgoff, v.Fdflags = proto.Uint64(0), proto.Uint64(0), nil
		if v.Madv != nil {
			v.Madv = &m.madvise
		}
		out = append(out, v)
	}
	entry.Vmas = out
	return w.create(name, 0o600, func(f *os.File) error {
		iw := newImageWriter(f, magicMM)
		iw.record(entry)
		return iw.flush()
	})
}

// readMM reads the one record of mm-PID.img.
func readMM(er *entryReader) (*mm.MmEntry, error) {
	var entry mm.MmEntry
	if err := er.strict(&entry); errors.Is(err, io.EOF) {
		return nil, badFile(er.name, "holds no record: it is truncated")
	} else if err != nil {
		return nil, err
	}
	return &entry, er.end()
}

func (mem *memoryMap) hasBacked() bool {
	return slices.ContainsFunc(mem.mappings, func(m mapping) bool { return m.backed })
}

// isRewritten reports whether writeMM writes the file called name.
func (im *Images) isRewritten(name string) bool {
	for pid, mem := range im.memory {
		if name == fmt.Sprintf("mm-%d.img", pid) {
			return mem.hasBacked()
		}
	}
	return false
}
