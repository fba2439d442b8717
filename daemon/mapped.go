package daemon

import (
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"thaw/control"
	"thaw/pagestore"
	"thaw/restore"
	"thaw/restore/criu"
)

// minMapped is the fewest pages that are mapped from a pack rather than copied: each mapping costs the runtime some 20 us, and so
// does copying 64 pages.
const minMapped = 64

// maxMappings bounds the mappings that are made for one process, and maxRegions those that it may have of its own for any to be
// made: each adds two at most, and the kernel allows 65530 by default.
const (
	maxMappings = 4096
	maxRegions  = 16384
)

// cachedShare is the share, in percent, of a run that has to be in memory for the run to be checked before the restore. The
// check of what is there goes at 20 GB/s; a wait for the disk would be better spent behind the process.
const cachedShare = 98

// mapImages has the origin's images map memory from packs, as far as the processes will see packs and the memory is known to be
// intact or can be checked at once, and its layouts be what is left. Memory that is fit for mapping and not mapped is copied like all other.
func (o *origin) mapImages(kept *mappedImages, binds []control.Bind, sight *foresight) error {
	if o.image == nil || len(binds) == 0 {
		return nil
	}
	mappable, err := criu.Mappable(o.images)
	if err != nil {
		return err
	}
	p := filePlanner{image: o.image, binds: binds, files: make(map[string]int)}
	if sight.learned != nil {
		p.needs = sight.needs
	}
	mapped := make(map[int][]restore.Extent)
	for pid, ranges := range mappable {
		l, ok := o.layouts[pid]
		if !ok || len(l.Regions) > maxRegions {
			continue
		}
		if mapped[pid], err = p.add(pid, &l, ranges); err != nil {
			return err
		}
	}
	if len(p.plan.Files) == 0 {
		return nil
	}
	for pid, extents := range mapped {
		for i, e := range extents {
			p.plan.Tasks[pid][i].Random = sight.needs.sparse(e)
		}
	}
	folder, err := kept.use(o.images, o.digest, &p.plan)
	if err != nil {
		return err
	}
	o.images, o.fromPacks, o.folder = folder.path, mapped, folder
	for pid, extents := range mapped {
		l := o.layouts[pid]
		o.layouts[pid] = l.Without(extents)
		for _, e := range extents {
			o.pages -= e.Pages
			o.mapped += e.Pages
		}
	}
	return nil
}

// A filePlanner finds out what can be mapped.
type filePlanner struct {
	image *pagestore.Image
	binds []control.Bind
	plan  criu.FilePlan
	files map[string]int // position in plan.Files by path here; -1: not to be seen by the processes
	needs *needs         // by the working set; nil if there is none
}

// add plans for one process. It returns what will be mapped.
func (p *filePlanner) add(pid int, l *restore.Layout, ranges []criu.PageRange) ([]restore.Extent, error) {
	runs, err := p.runs(l, ranges)
	if err != nil {
		return nil, err
	}
	intact := p.intact(runs)
	var extents []restore.Extent
	for i, r := range runs {
		if !intact[i] || len(extents) == maxMappings {
			continue
		}
		extents = append(extents, r.Extent)
		if p.plan.Tasks == nil {
			p.plan.Tasks = make(map[int][]criu.FileMapping)
		}
		p.plan.Tasks[pid] = append(p.plan.Tasks[pid], criu.FileMapping{
			PageRange: criu.PageRange{Addr: r.Addr, Pages: r.Pages}, File: r.file, Offset: r.offset,
		})
	}
	return extents, nil
}

// A fileRun is a run of pages that lie one after the other in a pack.
type fileRun struct {
	restore.Extent
	file   int // position in FilePlan.Files
	offset int64
}

// runs returns the runs of at least minMapped pages that lie in the ranges and in packs that the processes will see.
func (p *filePlanner) runs(l *restore.Layout, ranges []criu.PageRange) ([]fileRun, error) {
	var out []fileRun
	extents := l.Extents
	for _, r := range ranges {
		end := r.Addr + r.Pages*restore.PageSize
		for len(extents) > 0 && extents[0].Addr+extents[0].Pages*restore.PageSize <= r.Addr {
			extents = extents[1:]
		}
		for _, e := range extents {
			if e.Addr >= end {
				break
			}
			from, to := max(e.Addr, r.Addr), min(e.Addr+e.Pages*restore.PageSize, end)
			part := restore.Extent{Addr: from, Pages: (to - from) / restore.PageSize, Image: e.Image + (from-e.Addr)/restore.PageSize}
			var err error
			if out, err = p.stored(out, part); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// stored appends the runs of an extent.
func (p *filePlanner) stored(out []fileRun, e restore.Extent) ([]fileRun, error) {
	for e.Pages > 0 {
		s, n, err := p.image.Stored(e.Image, int(min(e.Pages, 1<<30)))
		if err != nil {
			return nil, err
		}
		n += s.Pages
		if s.Pages >= minMapped && s.File != "" { // else pages of the pack may be missing, and a process would read zeros
			if file := p.file(s.File, s.Size); file >= 0 {
				run := e
				run.Pages = uint64(s.Pages)
				// Few pages of a run that is on the disk are there sooner if they are copied: the working set has them in one piece.
				if !p.needs.sparse(run) || p.cached(run) {
					out = p.needs.appendRead(out, fileRun{run, file, s.Offset})
				}
			}
		}
		e = restore.Extent{Addr: e.Addr + uint64(n)*restore.PageSize, Pages: e.Pages - uint64(n), Image: e.Image + uint64(n)}
	}
	return out, nil
}

const (
	// writtenBlock is how many pages are looked at together for whether they are written to: 256 KiB, four mappings' worth of copying.
	writtenBlock = 64
	// writtenLeast is how many of them the working set has to know as written for the block to be copied. A write to a mapped page costs
	// a fault and a copy in the process; to copy the page before it runs takes another thread's time. Where the limit pays best was not measured.
	writtenLeast = writtenBlock / 8
)

// appendRead appends the parts of a run that are for the most part only read, and long enough to be mapped.
func (n *needs) appendRead(out []fileRun, r fileRun) []fileRun {
	if n == nil || n.written == nil {
		return append(out, r)
	}
	begin := uint64(0) // of the part
	flush := func(end uint64) {
		if end-begin >= minMapped {
			part := r
			part.Addr, part.Image, part.Pages = r.Addr+begin*restore.PageSize, r.Image+begin, end-begin
			part.offset += int64(begin) * restore.PageSize
			out = append(out, part)
		}
	}
	for at := uint64(0); at < r.Pages; {
		end := min((r.Image+at)/writtenBlock*writtenBlock+writtenBlock-r.Image, r.Pages)
		if n.written.count(r.Image+at, end-at) >= writtenLeast {
			flush(at)
			begin = end
		}
		at = end
	}
	flush(r.Pages)
	return out
}

// file returns the position of a pack in the plan, -1 if the processes do not see it.
func (p *filePlanner) file(path string, size int64) int {
	if i, ok := p.files[path]; ok {
		return i
	}
	p.files[path] = -1
	bind, seen := seenAt(path, p.binds)
	if bind == nil || p.plan.Mount != "" && p.plan.Mount != bind.Target {
		return -1
	}
	p.plan.Mount = bind.Target
	p.files[path] = len(p.plan.Files)
	p.plan.Files = append(p.plan.Files, criu.MappedFile{Path: seen, Size: size})
	return p.files[path]
}

// seenAt returns the path under which processes with the binds see the file path, and the bind through which they do; nil if they
// do not.
func seenAt(path string, binds []control.Bind) (*control.Bind, string) {
	path, err := realPath(path)
	if err != nil {
		return nil, ""
	}
	var best *control.Bind
	var seen string
	longest := -1
	for i := range binds {
		source, err := realPath(binds[i].Source)
		if err != nil {
			continue
		}
		rel, err := filepath.Rel(source, path)
		if err == nil && filepath.IsLocal(rel) && len(source) > longest {
			best, seen, longest = &binds[i], filepath.Join(binds[i].Target, rel), len(source)
		}
	}
	if best == nil {
		return nil, ""
	}
	// What is mounted over it hides it.
	if back, ok := foundAt(seen, binds); !ok || !sameFile(back, path) {
		return nil, ""
	}
	return best, seen
}

func sameFile(a, b string) bool {
	a, err := realPath(a)
	return err == nil && a == b
}

func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// cached reports whether a run is in memory, but for so little that it can be checked before the restore.
func (p *filePlanner) cached(e restore.Extent) bool {
	return uint64(p.image.StoredCached(e.Image, int(e.Pages)))*100 >= e.Pages*cachedShare
}

// intact says of each run whether its content is known to be what was stored, and checks the runs that are in memory.
func (p *filePlanner) intact(runs []fileRun) []bool {
	out := make([]bool, len(runs))
	var g errgroup.Group
	g.SetLimit(2)
	for i, r := range runs {
		if ready(p.image, r.Extent) {
			out[i] = true
		} else if p.cached(r.Extent) {
			g.Go(func() error {
				out[i] = check(p.image, r.Extent)
				return nil
			})
		}
	}
	_ = g.Wait() // what is not intact is copied, and fails there with a reason
	return out
}

// ready reports whether all pages of e are known to be intact in their packs, which are what is mapped.
func ready(image *pagestore.Image, e restore.Extent) bool {
	for e.Pages > 0 {
		n := image.StoredIntact(e.Image, int(e.Pages))
		if n == 0 {
			return false
		}
		e.Image, e.Pages = e.Image+uint64(n), e.Pages-uint64(n)
	}
	return true
}

// check makes sure that all pages of e are intact in their packs.
func check(image *pagestore.Image, e restore.Extent) bool {
	for e.Pages > 0 {
		n, err := image.CheckStored(e.Image, int(e.Pages))
		if err != nil {
			return false
		}
		e.Image, e.Pages = e.Image+uint64(n), e.Pages-uint64(n)
	}
	return true
}
