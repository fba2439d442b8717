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
)

// touchLooks is when a restored process is looked at, counted from the runtime's finish message: the first call of a function is
// over after one of these times, and a process that has ended by then has shown what it needs before.
var touchLooks = []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second}

// maxTouched bounds the snapshots that are remembered, at one bit for each page of their images.
const maxTouched = 256

// touched remembers which of the pages that processes mapped from packs they have touched soon after their restore, by snapshot. It
// decides only what is read from the disk first. It is safe for concurrent use, and forgotten with thawd.
type touched struct {
	mu    sync.Mutex
	pages map[pagestore.Digest]pageSet // protected by mu
	order []pagestore.Digest           // protected by mu; by first use
}

// A pageSet has a bit for each page of an image.
type pageSet []uint64

func (s pageSet) has(page uint64) bool {
	return page/64 < uint64(len(s)) && s[page/64]&(1<<(page%64)) != 0
}

// add returns s with a page.
func (s pageSet) add(page uint64) pageSet {
	for page/64 >= uint64(len(s)) {
		s = append(s, 0)
	}
	s[page/64] |= 1 << (page % 64)
	return s
}

// note adds pages of the snapshot's image.
func (t *touched) note(snapshot pagestore.Digest, pages []uint64) {
	if len(pages) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pages == nil {
		t.pages = make(map[pagestore.Digest]pageSet)
	}
	set, known := t.pages[snapshot]
	if !known {
		t.order = append(t.order, snapshot)
		if len(t.order) > maxTouched {
			delete(t.pages, t.order[0])
			t.order = t.order[1:]
		}
	}
	for _, p := range pages {
		set = set.add(p)
	}
	t.pages[snapshot] = set
}

// knows reports whether anything is known of the snapshot.
func (t *touched) knows(snapshot pagestore.Digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.pages[snapshot]
	return ok
}

// among returns the runs of the extents' pages that are known to be touched, in order. ok is false if nothing is known of the
// snapshot.
func (t *touched) among(snapshot pagestore.Digest, extents []restore.Extent) (hot []restore.Extent, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set, ok := t.pages[snapshot]
	if !ok {
		return nil, false
	}
	for _, e := range extents {
		for i := uint64(0); i < e.Pages; i++ {
			if !set.has(e.Image + i) {
				continue
			}
			first := i
			for i++; i < e.Pages && set.has(e.Image+i); i++ {
			}
			hot = append(hot, restore.Extent{Addr: e.Addr + first*restore.PageSize, Pages: i - first, Image: e.Image + first})
		}
	}
	return hot, true
}

// watch looks at the processes of a session now and then, until ctx ends, and has the rest of their memory read at last if they are
// still there.
func (t *touched) watch(ctx context.Context, o *origin, processes func() []restore.ProcessInfo) {
	begin := time.Now()
	for _, after := range touchLooks {
		timer := time.NewTimer(after - time.Since(begin))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		seen := 0
		for _, p := range processes() {
			// A process that is gone, or not ours to look into, tells nothing.
			pages, _ := presentPages(p.HostPID, o.fromPacks[p.ID])
			t.note(o.digest, pages)
			seen += len(pages)
		}
		if seen == 0 {
			return
		}
	}
	o.readMapped()
}

// presentPages returns the image pages of the extents that the process has in its page tables, as far as it can be told.
func presentPages(pid int, extents []restore.Extent) (pages []uint64, err error) {
	if pid == 0 || len(extents) == 0 {
		return nil, nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const present = 1 << 63
	buf := make([]byte, 8<<10)
	for _, e := range extents {
		for done := uint64(0); done < e.Pages; {
			n := min(e.Pages-done, uint64(len(buf))/8)
			got, err := f.ReadAt(buf[:n*8], int64(e.Addr/restore.PageSize+done)*8)
			for i := 0; i+8 <= got; i += 8 {
				if binary.LittleEndian.Uint64(buf[i:])&present != 0 {
					pages = append(pages, e.Image+done+uint64(i)/8)
				}
			}
			if got == 0 || err != nil && !errors.Is(err, io.EOF) {
				return pages, err
			}
			done += uint64(got) / 8
		}
	}
	return pages, nil
}
