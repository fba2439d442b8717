package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"thaw/pagestore"
	"thaw/restore"
	"thaw/restore/criu"
)

// touchLooks is when a restored process is looked at, counted from the runtime's finish message: the first call of a function is
// over after one of these times, and a process that has ended by then has shown what it needs before.
var touchLooks = []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second}

// maxTouched bounds the snapshots that are remembered, at one bit for each page of their images and of the files that they map.
const maxTouched = 256

// touched remembers what processes have touched soon after their restore of memory that is mapped from files, packs above all, by
// snapshot. It decides only what is read from the disk first. It is safe for concurrent use, and forgotten with thawd.
type touched struct {
	mu    sync.Mutex
	sets  map[pagestore.Digest]*touchedSet // protected by mu
	order []pagestore.Digest               // protected by mu; by first use
}

// maxFilePages bounds what is looked at of one file, and of all files of a process together: 4 GiB. Libraries are smaller, and a
// process may map any number at any offset.
const maxFilePages = 1 << 20

// A touchedSet is what is known of one snapshot: pages of its image, and of files by their path for the processes.
type touchedSet struct {
	image pageSet
	files map[string]pageSet
}

// A pageSet has a bit for each page of an image or a file.
type pageSet []uint64

func (s pageSet) has(page uint64) bool {
	return page/64 < uint64(len(s)) && s[page/64]&(1<<(page%64)) != 0
}

// count returns how many of the n pages from first on are in the set.
func (s pageSet) count(first, n uint64) (found uint64) {
	for p := first; p < first+n; p++ {
		if s.has(p) {
			found++
		}
	}
	return found
}

// add returns s with a page.
func (s pageSet) add(page uint64) pageSet {
	if need := page/64 + 1; need > uint64(len(s)) {
		s = append(s, make([]uint64, need-uint64(len(s)))...)
	}
	s[page/64] |= 1 << (page % 64)
	return s
}

// union returns s with the pages of o.
func (s pageSet) union(o pageSet) pageSet {
	if len(o) > len(s) {
		s = append(s, make([]uint64, len(o)-len(s))...)
	}
	for i, word := range o {
		s[i] |= word
	}
	return s
}

// A pageRun is n pages from page first on.
type pageRun struct{ first, n uint64 }

// runs returns the pages of the set from first on, n at most, as runs.
func (s pageSet) runs(first, n uint64) []pageRun {
	var out []pageRun
	for p := first; p < first+n; p++ {
		if !s.has(p) {
			continue
		}
		begin := p
		for p++; p < first+n && s.has(p); p++ {
		}
		out = append(out, pageRun{begin, p - begin})
	}
	return out
}

// all returns all pages of the set as runs.
func (s pageSet) all() []pageRun { return s.runs(0, uint64(len(s))*64) }

// note adds what was found to what is known of a snapshot.
func (t *touched) note(snapshot pagestore.Digest, found *touchedSet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set := t.sets[snapshot]
	if set == nil {
		if t.sets == nil {
			t.sets = make(map[pagestore.Digest]*touchedSet)
		}
		set = &touchedSet{files: make(map[string]pageSet)}
		t.sets[snapshot] = set
		t.order = append(t.order, snapshot)
		if len(t.order) > maxTouched {
			delete(t.sets, t.order[0])
			t.order = t.order[1:]
		}
	}
	set.image = set.image.union(found.image)
	for path, pages := range found.files {
		set.files[path] = set.files[path].union(pages)
	}
}

// knows reports whether anything is known of the snapshot.
func (t *touched) knows(snapshot pagestore.Digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sets[snapshot] != nil
}

// imageRuns returns the pages of the image among the extents that are known to be touched.
func (t *touched) imageRuns(snapshot pagestore.Digest, extents []restore.Extent) []pageRun {
	t.mu.Lock()
	defer t.mu.Unlock()
	set := t.sets[snapshot]
	if set == nil {
		return nil
	}
	var out []pageRun
	for _, e := range extents {
		out = append(out, set.image.runs(e.Image, e.Pages)...)
	}
	return out
}

// sparse says of each extent whether little of it is known to be touched: the pages around one that is wanted are not worth reading then. Of
// an extent that is touched for the most part they are, because what comes from the disk in single pages comes slowly.
func (t *touched) sparse(snapshot pagestore.Digest, extents []restore.Extent) []bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]bool, len(extents))
	set := t.sets[snapshot]
	if set == nil {
		return out
	}
	for i, e := range extents {
		out[i] = set.image.count(e.Image, e.Pages) < e.Pages/2
	}
	return out
}

// fileRuns returns the pages of files that are known to be touched, by path.
func (t *touched) fileRuns(snapshot pagestore.Digest) map[string][]pageRun {
	t.mu.Lock()
	defer t.mu.Unlock()
	set := t.sets[snapshot]
	if set == nil {
		return nil
	}
	out := make(map[string][]pageRun, len(set.files))
	for path, pages := range set.files {
		out[path] = pages.all()
	}
	return out
}

// watch looks at the processes of a session now and then, until ctx ends, and has the rest of their memory read at last if they are
// still there.
func (t *touched) watch(ctx context.Context, o *origin, processes func() []restore.ProcessInfo) {
	begin := time.Now()
	files, err := criu.FileRanges(o.skeleton)
	if err != nil {
		files = nil // then packs alone are known of
	}
	for _, after := range touchLooks {
		timer := time.NewTimer(after - time.Since(begin))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		seen := false
		for _, p := range processes() {
			seen = t.look(ctx, o, p, files[p.ID]) || seen
		}
		if !seen {
			return
		}
	}
	o.readMapped()
}

// look notes what a process has touched so far. It reports whether the process could be looked at; one that is gone, or not ours to
// look into, tells nothing.
func (t *touched) look(ctx context.Context, o *origin, p restore.ProcessInfo, files []criu.FileRange) (seen bool) {
	if p.HostPID == 0 {
		return false
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", p.HostPID))
	if err != nil {
		return false
	}
	defer f.Close()
	var found touchedSet
	for _, e := range o.fromPacks[p.ID] {
		eachPresent(ctx, f, e.Addr, e.Pages, func(i uint64) { found.image = found.image.add(e.Image + i) })
	}
	if found.image == nil {
		return false
	}
	found.files = make(map[string]pageSet)
	left := uint64(maxFilePages)
	for _, r := range files {
		first := uint64(r.Offset) / restore.PageSize
		if r.Offset < 0 || r.Pages > left || first > maxFilePages || first+r.Pages > maxFilePages {
			continue
		}
		left -= r.Pages
		pages := found.files[r.Path]
		eachPresent(ctx, f, r.Addr, r.Pages, func(i uint64) { pages = pages.add(first + i) })
		found.files[r.Path] = pages
	}
	t.note(o.digest, &found)
	return true
}

// eachPresent calls do with the number of each of the pages from addr on that a process has in its page tables, as its pagemap tells, unless
// ctx ends.
func eachPresent(ctx context.Context, pagemap io.ReaderAt, addr, pages uint64, do func(i uint64)) {
	const present = 1 << 63
	buf := make([]byte, 8<<10)
	for done := uint64(0); done < pages && ctx.Err() == nil; {
		n := min(pages-done, uint64(len(buf))/8)
		got, err := pagemap.ReadAt(buf[:n*8], int64(addr/restore.PageSize+done)*8)
		for i := 0; i+8 <= got; i += 8 {
			if binary.LittleEndian.Uint64(buf[i:])&present != 0 {
				do(done + uint64(i)/8)
			}
		}
		if got < 8 || err != nil && !errors.Is(err, io.EOF) {
			return
		}
		done += uint64(got) / 8
	}
}
