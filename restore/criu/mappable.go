package criu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"thaw/restore"
	"thaw/restore/criu/internal/heap"
)

// mappableFile is the file of a skeleton that lists the memory of its tasks that may be mapped from files. `criu restore` does
// not look at it. docs/format/skeleton.md describes it.
const mappableFile = "thaw-mappable.json"

// These are part of the format; do not change them.
const (
	mappableVersion = 1
	maxMappableFile = 64 << 20 // bytes; over a million ranges
)

// mappableDoc is the content of a mappableFile.
type mappableDoc struct {
	Version int            `json:"version"`
	Tasks   []mappableTask `json:"tasks"`
}

type mappableTask struct {
	PID    int         `json:"pid"`
	Ranges [][2]uint64 `json:"ranges"` // address of the first page, number of pages; ascending, not overlapping
}

// A PageRange is Pages pages at consecutive addresses from Addr on.
type PageRange struct{ Addr, Pages uint64 }

func (r PageRange) end() uint64 { return r.Addr + r.Pages*restore.PageSize }

// mappable returns the ranges of the task's lazy memory that may be a private mapping of a file with the same content,
// because whoever uses them never gives pages up with MADV_DONTNEED and counts on zeros, nor lets the mapping grow.
func (im *Images) mappable(t *Task) ([]PageRange, error) {
	mem := &taskMemory{im: im, runs: t.Lazy}
	var out []PageRange
	for rest := im.memory[t.PID].mappings; len(rest) > 0; {
		n := joined(rest)
		found, err := mem.find(rest[:n])
		if err != nil {
			return nil, fmt.Errorf("look for the memory of allocators in task %d: %w", t.PID, err)
		}
		out = append(out, split(found, rest[:n])...)
		rest = rest[n:]
	}
	return out, nil
}

// joined returns how many of the mappings, from the first on, have to be looked at together: advice for a part of an
// allocator's block cuts its mapping.
func joined(mappings []mapping) int {
	n := 1
	for n < len(mappings) && mappings[n-1].joins(&mappings[n]) {
		n++
	}
	return n
}

// joins reports whether next may hold the rest of a block that begins in m.
func (m *mapping) joins(next *mapping) bool {
	return m.end == next.start && m.fitForFile() && next.fitForFile() && (m.status|next.status)&statusHeap == 0
}

// split cuts the ranges at the borders of the mappings that they lie in.
func split(found []heap.Range, mappings []mapping) []PageRange {
	var out []PageRange
	for _, m := range mappings {
		for _, r := range found {
			if start, end := max(r.Start, m.start), min(r.End, m.end); start < end {
				out = append(out, PageRange{start, (end - start) / restore.PageSize})
			}
		}
	}
	return out
}

// fitForFile reports whether the mapping could be one of a file, as far as that does not depend on who uses it.
func (m *mapping) fitForFile() bool {
	return m.lazy() && m.prot == protRead|protWrite && m.madvise&^madvHarmless == 0 &&
		// Not a stack, nor an arena of glibc's, which shrinks with MADV_DONTNEED and grows again.
		m.flags&^(mapPrivate|mapAnonymous) == 0
}

// A taskMemory is the memory of a task as its images have it.
type taskMemory struct {
	im   *Images
	runs []Run // sorted by address
}

var _ heap.Memory = (*taskMemory)(nil)

// find looks for the memory of allocators in mappings that are looked at together.
func (m *taskMemory) find(in []mapping) ([]heap.Range, error) {
	first := &in[0]
	if !first.fitForFile() {
		return nil, nil
	}
	var content uint64
	for i := m.at(first.start); i < len(m.runs) && m.runs[i].Addr < in[len(in)-1].end; i++ {
		content += m.runs[i].Pages * restore.PageSize
	}
	if content < minMappable {
		return nil, nil // a thread's stack, mostly
	}
	if first.status&statusHeap != 0 {
		return heap.Brk(m, first.start, first.end)
	}
	var ranges []heap.Range
	for _, mapping := range in {
		ranges = append(ranges, heap.Range{Start: mapping.start, End: mapping.end})
	}
	return heap.Mapped(m, ranges...)
}

// at returns the index of the first run that ends after addr.
func (m *taskMemory) at(addr uint64) int {
	return sort.Search(len(m.runs), func(i int) bool { return m.runs[i].end() > addr })
}

// Read fills p with the bytes at addr. What is in no run is zero.
func (m *taskMemory) Read(p []byte, addr uint64) error {
	end := addr + uint64(len(p))
	for i := m.at(addr); i < len(m.runs) && m.runs[i].Addr < end; i++ {
		r := &m.runs[i]
		from, to := max(addr, r.Addr), min(end, r.end())
		clear(p[:from-addr])
		p = p[from-addr:]
		if _, err := m.im.Reader(r.File).ReadAt(p[:to-from], r.Offset+int64(from-r.Addr)); err != nil {
			return err
		}
		p, addr = p[to-from:], to
	}
	clear(p)
	return nil
}

// writeMappable lists the mappable memory of all tasks.
func (w *skeletonWriter) writeMappable() error {
	doc := mappableDoc{Version: mappableVersion}
	for i := range w.im.Tasks {
		t := &w.im.Tasks[i]
		if t.Zombie {
			continue
		}
		ranges, err := w.im.mappable(t)
		if err != nil {
			return err
		}
		if len(ranges) == 0 {
			continue
		}
		task := mappableTask{PID: t.PID}
		for _, r := range ranges {
			task.Ranges = append(task.Ranges, [2]uint64{r.Addr, r.Pages})
		}
		doc.Tasks = append(doc.Tasks, task)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return w.create(mappableFile, 0o600, func(f *os.File) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// Mappable returns, by image pid, the memory of a skeleton's tasks that MapFiles may turn into mappings of files: sorted by
// address, not overlapping. A skeleton that was written before there was such a list has none. Errors wrap ErrImages.
func Mappable(skeleton string) (map[int][]PageRange, error) {
	path := filepath.Join(skeleton, mappableFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fileError(mappableFile, err)
	}
	if info.Size() > maxMappableFile {
		return nil, badFile(mappableFile, "has %d bytes, at most %d make sense", info.Size(), maxMappableFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fileError(mappableFile, err)
	}
	return parseMappable(data)
}

func parseMappable(data []byte) (map[int][]PageRange, error) {
	var doc mappableDoc
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, badFile(mappableFile, "is no list of ranges: %v", err)
	}
	if doc.Version != mappableVersion {
		return nil, unsupported(mappableFile, -1, "version %d", doc.Version)
	}
	out := make(map[int][]PageRange, len(doc.Tasks))
	for _, t := range doc.Tasks {
		if _, twice := out[t.PID]; twice || t.PID <= 0 {
			return nil, badFile(mappableFile, "lists task %d twice, or it is none", t.PID)
		}
		ranges := make([]PageRange, len(t.Ranges))
		var prev uint64
		for i, r := range t.Ranges {
			addr, pages := r[0], r[1]
			if addr%restore.PageSize != 0 || addr < prev || pages == 0 || addr >= addressLimit || pages > (addressLimit-addr)/restore.PageSize {
				return nil, badFile(mappableFile, "range %d of task %d, %d pages at %#x, is not possible there", i, t.PID, pages, addr)
			}
			ranges[i] = PageRange{addr, pages}
			prev = ranges[i].end()
		}
		out[t.PID] = ranges
	}
	return out, nil
}
