package criu

import (
	"slices"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"

	"thaw/restore"
)

// Bits of a mapping's status and flags in mm.img, and positions of its madvise bitmap. They are part of CRIU's format
// and of the kernel's interface.
const (
	statusRegular     = 1 << 0
	statusStack       = 1 << 1
	statusHeap        = 1 << 5 // the brk heap
	statusFilePrivate = 1 << 6
	statusFileShared  = 1 << 7
	statusAnonPrivate = 1 << 9
	statusGuard       = 1 << 16 // not a mapping: a range inside one that MADV_GUARD_INSTALL guards

	mapPrivate   = 0x2
	mapAnonymous = 0x20
	mapGrowsDown = 0x100
	mapNoReserve = 0x4000

	protRead  = 0x1
	protWrite = 0x2

	madvRandom     = 1
	madvDontFork   = 10
	madvHugePage   = 14
	madvNoHugePage = 15
	madvDontDump   = 16
	madvWipeOnFork = 18

	// madvHarmless are those that mean the same for anonymous memory and for a private file mapping.
	madvHarmless = 1<<madvDontFork | 1<<madvHugePage | 1<<madvNoHugePage | 1<<madvDontDump
)

// minMappable is the content in bytes from which on it is worthwhile to look in a mapping for memory that a file could hold.
const minMappable = 256 << 10

// addressLimit is the end of the user addresses of x86-64 with five levels of page tables.
const addressLimit = 1<<56 - restore.PageSize

// A mapping is one mapping of a task.
type mapping struct {
	start, end uint64
	prot       uint32
	flags      uint32
	status     uint32
	madvise    uint64 // bit n: madvise(n) is in force
	file       uint64 // id of the file, if it is of one
	offset     uint64 // where in the file it begins, in bytes
	backed     bool   // it was of a Backing, and counts as anonymous
}

// lazy says whether the mapping is restored lazily: CRIU registers it with userfaultfd when it restores with
// --lazy-pages, and nothing is known of it that would call for its pages before.
//
// CRIU registers some mappings more: shadow stacks, whose contents it needs before that, and mappings of kinds that
// later versions may bring. To restore pages eagerly is right in every mapping, so what is not known here is not lazy.
func (m *mapping) lazy() bool {
	const (
		mustStatus = statusRegular | statusAnonPrivate
		mayStatus  = mustStatus | statusStack | statusHeap
		mustFlags  = mapPrivate | mapAnonymous
		mayFlags   = mustFlags | mapGrowsDown | mapNoReserve
	)
	return m.status&mustStatus == mustStatus && m.status&^mayStatus == 0 &&
		m.flags&mustFlags == mustFlags && m.flags&^mayFlags == 0 && m.end <= addressLimit
}

// region returns what a session has to know about the mapping, which is lazy.
func (m *mapping) region() restore.Region {
	return restore.Region{
		Start: m.start,
		End:   m.end,
		// brk heaps and stacks are never moved by mremap, and glibc's thread arenas, the users of MAP_NORESERVE
		// that matter, are not either. Anything else may be a chunk of malloc, which grows by mremap.
		Splittable: m.status&statusHeap != 0 || m.flags&(mapGrowsDown|mapNoReserve) != 0,
		WipeOnFork: m.madvise&(1<<madvWipeOnFork) != 0,
	}
}

// A memoryMap is the mappings of a task.
type memoryMap struct {
	mappings []mapping // sorted by address, not overlapping
	guards   []mapping // guarded ranges, sorted by address

	brkStart, brkEnd uint64 // the brk heap, in bytes
}

// parseMM reads mm-PID.img.
func parseMM(er *entryReader) (*memoryMap, error) {
	entry, err := readMM(er)
	if err != nil {
		return nil, err
	}
	mem := &memoryMap{brkStart: entry.GetMmStartBrk(), brkEnd: entry.GetMmBrk()}
	for i, v := range entry.GetVmas() {
		m := mappingOf(v)
		if m.start%restore.PageSize != 0 || m.end%restore.PageSize != 0 || m.start >= m.end {
			return nil, badEntry(er.name, 0, "mapping %d [%#x, %#x) is not a range of pages", i, m.start, m.end)
		}
		if m.status&statusGuard != 0 {
			mem.guards = append(mem.guards, m)
			continue
		}
		mem.mappings = append(mem.mappings, m)
	}
	byStart := func(a, b mapping) int {
		if a.start < b.start {
			return -1
		}
		if a.start > b.start {
			return 1
		}
		return 0
	}
	slices.SortFunc(mem.guards, byStart)
	if !slices.IsSortedFunc(mem.mappings, byStart) {
		return nil, badEntry(er.name, 0, "the mappings are out of order")
	}
	for i := 1; i < len(mem.mappings); i++ {
		a, b := mem.mappings[i-1], mem.mappings[i]
		if a.end > b.start {
			return nil, badEntry(er.name, 0, "mappings [%#x, %#x) and [%#x, %#x) overlap", a.start, a.end, b.start, b.end)
		}
	}
	return mem, nil
}

func mappingOf(v *vma.VmaEntry) mapping {
	return mapping{
		start:   v.GetStart(),
		end:     v.GetEnd(),
		prot:    v.GetProt(),
		flags:   v.GetFlags(),
		status:  v.GetStatus(),
		madvise: v.GetMadv(),
		file:    v.GetShmid(),
		offset:  v.GetPgoff(),
	}
}

// regions returns the lazy mappings.
func (mem *memoryMap) regions() []restore.Region {
	var out []restore.Region
	for i := range mem.mappings {
		if m := &mem.mappings[i]; m.lazy() {
			out = append(out, m.region())
		}
	}
	return out
}

// classify sorts the runs of a task into those that are restored lazily and those that are not, cut at the borders of
// the mappings: a run may cross them, but UFFDIO_COPY may not. runs are sorted by address and do not overlap; name is
// the pagemap they came from.
func (mem *memoryMap) classify(runs []Run, name string) (lazy, eager []Run, err error) {
	maps, guards := mem.mappings, mem.guards
	for _, r := range runs {
		for len(guards) > 0 && guards[0].end <= r.Addr {
			guards = guards[1:]
		}
		if len(guards) > 0 && guards[0].start < r.end() {
			return nil, nil, badFile(name, "has pages in the guarded range [%#x, %#x), which can have none", guards[0].start, guards[0].end)
		}
		for r.Pages > 0 {
			for len(maps) > 0 && maps[0].end <= r.Addr {
				maps = maps[1:]
			}
			if len(maps) == 0 || r.Addr < maps[0].start {
				return nil, nil, badFile(name, "has a page at %#x, where the task has no mapping", r.Addr)
			}
			part := r
			part.Pages = min(r.Pages, (maps[0].end-r.Addr)/restore.PageSize)
			if maps[0].lazy() {
				lazy = appendRun(lazy, part, maps[0].start)
			} else {
				eager = appendRun(eager, part, 0)
			}
			r = r.skip(part.Pages)
		}
	}
	return lazy, eager, nil
}
