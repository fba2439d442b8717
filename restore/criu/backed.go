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
		at := m.start
		for at < m.end {
			next := m.end
			if len(pages) > 0 {
				next = min(next, max(at, pages[0].Addr))
			}
			if next > at {
				offset := int64(m.offset + (at - m.start))
				out = append(out, Run{Addr: at, Pages: (next - at) / restore.PageSize, File: file, Offset: offset})
			}
			if at = next; at == m.end {
				break
			}
			// A page that the task has written to, cut at the end of the mapping.
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
	}
	return append(out, pages...), nil
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

// writeMM writes mm-PID.img of a task with mappings that stand for anonymous memory.
func (w *skeletonWriter) writeMM(t *Task) error {
	name := fmt.Sprintf("mm-%d.img", t.PID)
	entry, err := readImage(filepath.Join(w.im.dir, name), name, magicMM, readMM)
	if err != nil {
		return err
	}
	backed := make(map[uint64]bool)
	status := make(map[uint64]uint32)
	for _, m := range w.im.memory[t.PID].mappings {
		backed[m.start], status[m.start] = m.backed, m.status
	}
	var out []*vma.VmaEntry
	for _, v := range entry.GetVmas() {
		if v.GetStatus()&statusGuard == 0 && backed[v.GetStart()] {
			v.Flags = proto.Uint32(v.GetFlags() | mapAnonymous)
			v.Status = proto.Uint32(status[v.GetStart()])
			v.Shmid, v.Pgoff, v.Fdflags = proto.Uint64(0), proto.Uint64(0), nil
			if v.Madv != nil {
				v.Madv = proto.Uint64(v.GetMadv() &^ (1 << madvRandom))
			}
		}
		if n := len(out); n > 0 && (backed[v.GetStart()] || backed[out[n-1].GetStart()]) && continues(out[n-1], v) {
			// As it was before it was mapped: mremap does not take what is two mappings.
			backed[out[n-1].GetStart()] = true
			out[n-1].End = v.End
			continue
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

// continues reports whether anonymous mapping b is like a and begins where a ends.
func continues(a, b *vma.VmaEntry) bool {
	return a.GetEnd() == b.GetStart() && a.GetProt() == b.GetProt() && a.GetFlags() == b.GetFlags() && a.GetMadv() == b.GetMadv() &&
		a.GetStatus() == b.GetStatus() && a.GetStatus()&^statusHeap == statusRegular|statusAnonPrivate
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
