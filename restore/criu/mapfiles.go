package criu

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"google.golang.org/protobuf/proto"

	"thaw/restore"
)

// ErrCannotMap says that the tasks of a skeleton could not open the files that they are to map.
var ErrCannotMap = errors.New("files cannot be mapped")

// A FilePlan says which memory of a skeleton's tasks is to be mapped from files.
type FilePlan struct {
	// Mount is the mount point, in the tasks' mount namespace, below which the files lie. It says nothing where the tasks have
	// none of their own.
	Mount string

	// Files are the files, which must hold still while anybody maps them.
	Files []MappedFile

	// Tasks are the mappings by image pid, sorted by address and not overlapping, each inside one range of Mappable and inside
	// one lazy mapping of the task.
	Tasks map[int][]FileMapping
}

// A MappedFile is a file that restored tasks map.
type MappedFile struct {
	Path string // absolute, in the tasks' mount namespace
	Size int64  // in bytes; CRIU refuses to restore if it differs
}

// A FileMapping says that Pages pages from Addr on are those of file number File from Offset on, in bytes.
type FileMapping struct {
	PageRange
	File   int
	Offset int64

	// Random has the kernel read single pages, and nothing around them, where the file is not in memory (MADV_RANDOM): for who has
	// what is needed read ahead, and that is little.
	Random bool
}

// MapFiles makes in the empty folder dir images like those of the skeleton, but with the memory that the plan names as
// private mappings of files: CRIU maps it itself, and neither registers it with userfaultfd nor asks for its pages. Images that
// do not change are hard links to the skeleton's, or copies if dir is in another file system.
//
// Returns an error that wraps ErrCannotMap if the tasks could not open files there, whatever they are, and ErrImages if the plan
// or the skeleton makes no sense. On error the folder is left as it is.
func MapFiles(skeleton, dir string, plan *FilePlan) error {
	m := fileMapper{skeletonWriter: skeletonWriter{dir: dir}, from: skeleton, plan: plan}
	if err := m.write(); err != nil {
		return fmt.Errorf("map files into %s: %w", skeleton, err)
	}
	return nil
}

type fileMapper struct {
	skeletonWriter
	from    string
	plan    *FilePlan
	mount   *int32 // id of the files' mount, nil if the tasks have the host's
	firstID uint32 // of the files, in files.img
}

func (m *fileMapper) write() error {
	entries, err := os.ReadDir(m.from)
	if err != nil {
		return err
	}
	if m.mount, err = m.findMount(entries); err != nil {
		return err
	}
	if err := m.writeFiles(); err != nil {
		return err
	}
	done := map[string]bool{filesImage: true}
	for pid, mappings := range m.plan.Tasks {
		mmName, pagemapName := fmt.Sprintf("mm-%d.img", pid), fmt.Sprintf("pagemap-%d.img", pid)
		if err := m.writeMM(mmName, mappings); err != nil {
			return err
		}
		if err := m.writePagemap(pagemapName, mappings); err != nil {
			return err
		}
		done[mmName], done[pagemapName] = true, true
	}
	for _, e := range entries {
		if done[e.Name()] {
			continue
		}
		if err := m.link(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// link makes a file of the skeleton's a file of dir's, without a copy where both are in one file system. A symbolic link would not
// do: CRIU opens images from within the tasks' mount namespace.
func (m *fileMapper) link(name string) error {
	if os.Link(filepath.Join(m.from, name), filepath.Join(m.dir, name)) == nil {
		return nil
	}
	return m.copyFile(m.from, name)
}

// findMount returns the id of the mount that the files are on.
func (m *fileMapper) findMount(entries []os.DirEntry) (id *int32, err error) {
	var mounts string
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "userns-"):
			return nil, fmt.Errorf("%w: the tasks have a user namespace of their own, which may forbid it", ErrCannotMap)
		case strings.HasPrefix(e.Name(), "mountpoints-") && mounts != "":
			return nil, fmt.Errorf("%w: the tasks have several mount namespaces", ErrCannotMap)
		case strings.HasPrefix(e.Name(), "mountpoints-"):
			mounts = e.Name()
		}
	}
	switch {
	case mounts == "":
		return nil, nil
	case filepath.Clean(m.plan.Mount) == "/":
		return nil, fmt.Errorf("%w: the tasks have a mount namespace of their own, with another root", ErrCannotMap)
	}
	return readImage(filepath.Join(m.from, mounts), mounts, magicMounts, func(er *entryReader) (*int32, error) {
		for {
			var entry mnt.MntEntry
			if err := er.next(&entry); errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("%w: nothing was mounted on %s when the tasks were frozen", ErrCannotMap, m.plan.Mount)
			} else if err != nil {
				return nil, err
			}
			if filepath.Clean(entry.GetMountpoint()) == filepath.Clean(m.plan.Mount) {
				return proto.Int32(int32(entry.GetMntId())), nil
			}
		}
	})
}

const filesImage = "files.img"

// writeFiles copies files.img, as it is, and adds the files of the plan.
func (m *fileMapper) writeFiles() error {
	src, err := openImage(filepath.Join(m.from, filesImage), filesImage, magicFiles)
	if err != nil {
		return err
	}
	defer src.Close()
	return m.create(filesImage, 0o600, func(f *os.File) error {
		iw := newImageWriter(f, magicFiles)
		var last uint32
		for {
			var entry fdinfo.FileEntry
			if err := src.next(&entry); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			last = max(last, entry.GetId())
			iw.raw(src.buf) // with whatever a newer CRIU has put there
		}
		if uint64(last)+uint64(len(m.plan.Files)) >= math.MaxUint32 {
			return badFile(filesImage, "has a file with number %d, which leaves none for others", last)
		}
		m.firstID = last + 1
		for i := range m.plan.Files {
			iw.record(m.fileEntry(i))
		}
		return iw.flush()
	})
}

func (m *fileMapper) fileEntry(i int) *fdinfo.FileEntry {
	id := proto.Uint32(m.firstID + uint32(i))
	kind := fdinfo.FdTypes_REG
	zero := proto.Uint32(0)
	return &fdinfo.FileEntry{
		Type: &kind, Id: id,
		Reg: &regfile.RegFileEntry{
			Id: id, Name: &m.plan.Files[i].Path, MntId: m.mount, Size: proto.Uint64(uint64(m.plan.Files[i].Size)),
			Flags: proto.Uint32(uint32(os.O_RDONLY)), Pos: proto.Uint64(0),
			Fown: &fown.FownEntry{Uid: zero, Euid: zero, Signum: zero, PidType: zero, Pid: zero},
		},
	}
}

// writeMM writes mm-PID.img with the mappings cut at the borders of the plan.
func (m *fileMapper) writeMM(name string, plan []FileMapping) error {
	entry, err := readImage(filepath.Join(m.from, name), name, magicMM, readMM)
	if err != nil {
		return err
	}
	var out []*vma.VmaEntry
	for _, v := range entry.GetVmas() {
		here := mappingOf(v)
		for len(plan) > 0 && here.status&statusGuard == 0 && plan[0].Addr < here.end {
			p := plan[0]
			if p.Addr < here.start || p.end() > here.end || !here.lazy() {
				return badFile(name, "has no lazy mapping for %d pages at %#x", p.Pages, p.Addr)
			}
			if p.Addr > here.start {
				out = append(out, cutVMA(v, here.start, p.Addr))
			}
			out = append(out, m.fileVMA(v, &p))
			here.start = p.end()
			plan = plan[1:]
		}
		if here.start < here.end {
			out = append(out, cutVMA(v, here.start, here.end))
		}
	}
	if len(plan) > 0 {
		return badFile(name, "has no mapping at %#x", plan[0].Addr)
	}
	entry.Vmas = out
	return m.create(name, 0o600, func(f *os.File) error {
		iw := newImageWriter(f, magicMM)
		iw.record(entry)
		return iw.flush()
	})
}

// cutVMA returns the part of an anonymous mapping from start to end, or all of another one.
func cutVMA(v *vma.VmaEntry, start, end uint64) *vma.VmaEntry {
	if start == v.GetStart() && end == v.GetEnd() {
		return v
	}
	part := proto.CloneOf(v)
	part.Start, part.End = &start, &end
	return part
}

// fileVMA returns the part of a mapping that p makes one of a file.
func (m *fileMapper) fileVMA(v *vma.VmaEntry, p *FileMapping) *vma.VmaEntry {
	part := cutVMA(v, p.Addr, p.end())
	if part == v {
		part = proto.CloneOf(v)
	}
	part.Flags = proto.Uint32(v.GetFlags() &^ mapAnonymous)
	part.Status = proto.Uint32(statusRegular | statusFilePrivate)
	part.Shmid = proto.Uint64(uint64(m.firstID) + uint64(p.File))
	part.Pgoff = proto.Uint64(uint64(p.Offset))
	part.Fdflags = proto.Uint32(uint32(os.O_RDONLY))
	if p.Random {
		part.Madv = proto.Uint64(v.GetMadv() | 1<<madvRandom)
	}
	return part
}

// writePagemap writes pagemap-PID.img without the pages of the plan.
func (m *fileMapper) writePagemap(name string, plan []FileMapping) error {
	pm, err := readImage(filepath.Join(m.from, name), name, magicPagemap, parsePagemap)
	if err != nil {
		return err
	}
	return m.create(name, 0o600, func(f *os.File) error {
		iw := newImageWriter(f, magicPagemap)
		iw.record(pagemapHead(pm.pagesID))
		for _, e := range pm.entries {
			if e.flags != flagLazy {
				writeEntries(iw, Run{Addr: e.addr, Pages: e.pages}, e.flags)
				continue
			}
			for _, r := range without(PageRange{e.addr, e.pages}, plan) {
				writeEntries(iw, Run{Addr: r.Addr, Pages: r.Pages}, flagLazy)
			}
		}
		return iw.flush()
	})
}

// without returns what is left of r without the mappings, which are sorted by address.
func without(r PageRange, mappings []FileMapping) []PageRange {
	var out []PageRange
	for _, p := range mappings[firstAfter(mappings, r.Addr):] {
		if p.Addr >= r.end() {
			break
		}
		if p.Addr > r.Addr {
			out = append(out, PageRange{r.Addr, (p.Addr - r.Addr) / restore.PageSize})
		}
		if p.end() >= r.end() {
			return out
		}
		r = PageRange{p.end(), (r.end() - p.end()) / restore.PageSize}
	}
	return append(out, r)
}

// firstAfter returns the index of the first mapping that ends after addr.
func firstAfter(mappings []FileMapping, addr uint64) int {
	return sort.Search(len(mappings), func(i int) bool { return mappings[i].end() > addr })
}

// FileNames returns the paths of the regular files that a restore from the images in dir opens, as the tasks see them.
func FileNames(dir string) ([]string, error) {
	var names []string
	err := eachFile(dir, func(e *fdinfo.FileEntry) {
		if name := e.GetReg().GetName(); name != "" {
			names = append(names, name)
		}
	})
	return names, err
}

// eachFile calls do for each record of files.img.
func eachFile(dir string, do func(*fdinfo.FileEntry)) error {
	_, err := readImage(filepath.Join(dir, filesImage), filesImage, magicFiles, func(er *entryReader) (struct{}, error) {
		for {
			var entry fdinfo.FileEntry
			if err := er.next(&entry); errors.Is(err, io.EOF) {
				return struct{}{}, nil
			} else if err != nil {
				return struct{}{}, err
			}
			do(&entry)
		}
	})
	return err
}

// A FileRange is a part of a task's memory that is mapped from a file.
type FileRange struct {
	PageRange
	Path   string // as the tasks see it
	Offset int64  // in the file, in bytes
}

// FileRanges returns, by image pid, what a restore from the images in dir maps from files.
func FileRanges(dir string) (map[int][]FileRange, error) {
	names := make(map[uint64]string)
	err := eachFile(dir, func(e *fdinfo.FileEntry) {
		if e.Reg != nil {
			names[uint64(e.GetId())] = e.Reg.GetName()
		}
	})
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make(map[int][]FileRange)
	for _, e := range entries {
		id, ok := imageID(e.Name(), "mm-")
		pid, err := strconv.Atoi(id)
		if !ok || err != nil {
			continue
		}
		mem, err := readImage(filepath.Join(dir, e.Name()), e.Name(), magicMM, parseMM)
		if err != nil {
			return nil, err
		}
		for i := range mem.mappings {
			m := &mem.mappings[i]
			if path := names[m.file]; path != "" && m.status&(statusFilePrivate|statusFileShared) != 0 {
				out[pid] = append(out[pid], FileRange{PageRange{m.start, (m.end - m.start) / restore.PageSize}, path, int64(m.offset)})
			}
		}
	}
	return out, nil
}
