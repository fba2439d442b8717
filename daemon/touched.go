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
	sets  map[pagestore.Digest]*needs // protected by mu
	order []pagestore.Digest          // protected by mu; by first use
}

// note adds what was found to what is known of a snapshot.
func (t *touched) note(snapshot pagestore.Digest, found *needs) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, known := t.sets[snapshot]
	if t.sets == nil {
		t.sets = make(map[pagestore.Digest]*needs)
	}
	t.sets[snapshot] = before.union(found)
	if known {
		return
	}
	t.order = append(t.order, snapshot)
	if len(t.order) > maxTouched {
		delete(t.sets, t.order[0])
		t.order = t.order[1:]
	}
}

// of returns what is known of a snapshot; nil: nothing.
func (t *touched) of(snapshot pagestore.Digest) *needs {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sets[snapshot]
}

// watch looks at the processes of a session now and then, until ctx ends, and has the rest of their memory read at last if they are
// still there. From a session with a working set only what was written to is learned: the rest that is there was brought.
func (t *touched) watch(ctx context.Context, o *origin, sight *foresight, processes func() []restore.ProcessInfo) {
	begin := time.Now()
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
			seen = t.look(ctx, o, sight, p) || seen
		}
		if !seen {
			return
		}
	}
	o.readMapped()
}

// look notes what a process has touched so far. It reports whether the process could be looked at; one that is gone, or not ours to
// look into, tells nothing.
func (t *touched) look(ctx context.Context, o *origin, sight *foresight, p restore.ProcessInfo) (seen bool) {
	if p.HostPID == 0 {
		return false
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", p.HostPID))
	if err != nil {
		return false
	}
	defer f.Close()
	var found needs
	for _, e := range o.fromPacks[p.ID] {
		eachPresent(ctx, f, e.Addr, e.Pages, func(i uint64, ofFile bool) {
			found.image = found.image.add(e.Image + i)
			if !ofFile { // the process has a copy of its own, for it has written to it
				found.written = found.written.add(e.Image + i)
			}
		})
	}
	if found.image == nil {
		return false
	}
	if sight.learned != nil {
		found.image = nil
	} else {
		found.files = presentPages(ctx, f, o.files(p.ID))
	}
	t.note(o.digest, &found)
	return true
}

// presentPages returns the pages of files that a process has in its page tables, as its pagemap tells.
func presentPages(ctx context.Context, pagemap io.ReaderAt, files []criu.FileRange) map[string]pageSet {
	out := make(map[string]pageSet)
	left := uint64(maxFilePages)
	for _, r := range files {
		first := uint64(r.Offset) / restore.PageSize
		if r.Offset < 0 || r.Pages > left || first > maxFilePages || first+r.Pages > maxFilePages {
			continue
		}
		left -= r.Pages
		pages := out[r.Path]
		eachPresent(ctx, pagemap, r.Addr, r.Pages, func(i uint64, _ bool) { pages = pages.add(first + i) })
		out[r.Path] = pages
	}
	return out
}

// eachPresent calls do with the number of each of the pages from addr on that a process has in its page tables, as its pagemap tells, and
// whether it is one of a file, unless ctx ends.
func eachPresent(ctx context.Context, pagemap io.ReaderAt, addr, pages uint64, do func(i uint64, ofFile bool)) {
	const present, fileOrShared = 1 << 63, 1 << 61
	buf := make([]byte, 8<<10)
	for done := uint64(0); done < pages && ctx.Err() == nil; {
		n := min(pages-done, uint64(len(buf))/8)
		got, err := pagemap.ReadAt(buf[:n*8], int64(addr/restore.PageSize+done)*8)
		for i := 0; i+8 <= got; i += 8 {
			if entry := binary.LittleEndian.Uint64(buf[i:]); entry&present != 0 {
				do(done+uint64(i)/8, entry&fileOrShared != 0)
			}
		}
		if got < 8 || err != nil && !errors.Is(err, io.EOF) {
			return
		}
		done += uint64(got) / 8
	}
}
