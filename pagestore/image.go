package pagestore

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/mapping"
	"thaw/pagestore/internal/pack"
)

// prefetchGap is how many pages between two extents of a pack are read along rather than asked around: 64 KiB more
// cost a disk less than a second request.
const prefetchGap = 16

// openTogether is how many packs are opened at a time.
const openTogether = 8

// Image is the memory of a snapshot as one space of pages, served from mapped packs. It lives until its Snapshot is
// closed and is safe for concurrent use. Ready and Load take no lock and, unless they fail, allocate nothing.
//
// Some pages may have a second copy, in the snapshot's hot file, from which they are served as long as it is known to be equal; see
// [WorkingSet]. It is never needed, and compared with what the pack says of the page before it is used.
//
// Pages are checked the first time that they are used since their pack was opened, and a pack stays open while any
// snapshot of the Store uses it. What the kernel drops from memory later and reads again from a disk that went bad in
// between is not checked again.
type Image struct {
	store    *Store
	ns       namespace
	name     Name
	manifest *manifest.Manifest
	gate     *gate

	// The packs of the manifest, by position; packs is nil where packErrs says why it could not be opened. Immutable.
	ids      []PackID
	packs    []*openPack
	packErrs []error

	hot hotCopy

	// remote is where missing pages come from, nil if none are missing; what waits for them ends with ctx, which close cancels.
	remote *Remote
	digest Digest // of the manifest
	ctx    context.Context
	cancel context.CancelCauseFunc
	// hotTable is which pages the hot object has, nil if there is none; stream brings them.
	hotTable *hot.Table
	stream   atomic.Pointer[hotStream]
}

// newImage opens the packs of a snapshot, whose lock the caller holds, and its hot file. Those that cannot be opened are not its error.
func newImage(s *Snapshot) (*Image, error) {
	ids, pages, err := readPacks(s.manifest)
	if err != nil {
		return nil, err
	}
	im := &Image{
		store:    s.store,
		ns:       s.ns,
		name:     s.info.Name,
		manifest: s.manifest,
		gate:     newGate(),
		ids:      ids,
		packs:    make([]*openPack, len(ids)),
		packErrs: make([]error, len(ids)),
		remote:   s.remote,
		digest:   s.info.Digest,
	}
	im.ctx, im.cancel = context.WithCancelCause(s.store.ctx)
	if im.remote != nil && !s.mu.aside {
		s.used()
	}
	// Each costs a read of half a megabyte, 2 ms from a disk.
	var g errgroup.Group
	g.SetLimit(openTogether)
	for i, id := range ids {
		g.Go(func() error {
			im.packs[i], im.packErrs[i] = s.store.acquirePack(s.ns, id, pages[i], s.remote.partialPack(id))
			return nil
		})
	}
	err = g.Wait()
	im.openHot(s)
	im.openRemoteHot(s)
	return im, err
}

// readPacks copies the table of packs: one entry for at most 256 MiB of pages.
func readPacks(m *manifest.Manifest) (ids []PackID, pages []uint32, err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	for i := range m.Packs() {
		p := m.Pack(i)
		ids, pages = append(ids, p.ID), append(pages, p.Pages)
	}
	return ids, pages, nil
}

// close waits for the calls that are running and gives the packs back.
func (im *Image) close() {
	im.cancel(ErrClosed)
	im.gate.close()
	im.leaveHot()
	for _, p := range im.packs {
		if p != nil {
			im.store.releasePack(p)
		}
	}
	im.closeHot()
}

// Pages returns the size of the image in pages.
func (im *Image) Pages() uint64 { return im.manifest.ImagePages() }

// Ready returns the bytes of pages from page on that are known to be intact: n of them, at most limit, and no further
// than they lie one after the other in storage. It does not wait. data nil with n > 0 means that these pages are zero;
// n == 0, that Load has to be asked. data is valid until the snapshot is closed and must not be written to.
//
// The bytes are in memory or in the page cache's care: a read of them may still wait for the disk if the kernel has
// dropped them since. They are those of the packed copy, if the page has one that is known to be intact (see [WorkingSet]): who asked
// for that has just had it read. Storage means that copy, then.
func (im *Image) Ready(page uint64, limit int) (data []byte, n int) {
	if !im.gate.enter() {
		return nil, 0
	}
	defer im.gate.leave()
	if im.hot.file != nil {
		if data, n = im.hot.ready(page, limit); n > 0 {
			return data, n
		}
	}
	if data, n = im.readyStored(page, limit); n == 0 && im.stream.Load() != nil {
		if at, err := im.locate(page, limit); err == nil && im.packs[at.pack] != nil {
			return im.arrived(page, at)
		}
	}
	return data, n
}

// readyStored is Ready from the packs.
func (im *Image) readyStored(page uint64, limit int) (data []byte, n int) {
	at, err := im.locate(page, limit)
	if err != nil || at.zero {
		return nil, at.n
	}
	p := im.packs[at.pack]
	if p == nil {
		return nil, 0
	}
	if n = p.mapped.Verified(at.page, at.n); n == 0 || p.remote != nil && p.remote.err() != nil {
		return nil, 0
	}
	return p.mapped.Bytes(at.page, n), n
}

// Load is Ready that reads and checks what is not known to be intact: n is at least 1, or there is an error that
// says what is wrong with page. If a later page of the run is bad, Load returns what comes before it. What is missing comes from the
// store's Origin: a Load of up to 64 pages is taken for a fault and waits for no more than it needs, a larger one for a part of a
// stream. The wait ends with the snapshot and with the store. Errors are
// *[PageError] (ErrCorrupt, ErrMissingPack, ErrNotLocal, ErrClosed, or one of the storage or the origin), [ErrRange] and [ErrClosed].
func (im *Image) Load(page uint64, limit int) (data []byte, n int, err error) {
	if !im.gate.enter() {
		return nil, 0, ErrClosed
	}
	defer im.gate.leave()
	return im.load(page, limit, true)
}

// load is Load, or, without copied, Load from the packs.
func (im *Image) load(page uint64, limit int, copied bool) (data []byte, n int, err error) {
	at, err := im.locate(page, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("image page %d of %s: %w", page, im.name, err)
	}
	if at.zero {
		return nil, at.n, nil
	}
	p := im.packs[at.pack]
	if p == nil {
		return nil, 0, im.pageError(page, at, im.packErrs[at.pack])
	}
	if p.partial() {
		if copied {
			if data, n = im.loadArrived(page, at); n > 0 {
				return data, n, nil
			}
		}
		n, err = im.loadRemote(p, page, at, limit)
		return p.mapped.Bytes(at.page, n), n, err
	}
	if copied {
		if data, n = im.loadHot(page, at); n > 0 {
			return data, n, nil
		}
	}
	if n, err = p.mapped.Verify(at.page, at.n); n == 0 {
		return nil, 0, im.pageError(page, at, classify(err))
	}
	return p.mapped.Bytes(at.page, n), n, nil
}

// Stored is where pages of an image lie in the store.
type Stored struct {
	File   string // path of the pack; empty if pages of the pack may be missing, which nobody may map then
	Size   int64  // of that file, in bytes
	Offset int64  // of the first page in it, in bytes
	Pages  int
}

// Stored returns where the pages from page on lie, at most limit of them and no further than they lie one after the other.
// Pages 0 with a positive zeros says that so many pages are stored nowhere, because they are zero or because they cannot be had.
func (im *Image) Stored(page uint64, limit int) (s Stored, zeros int, err error) {
	if !im.gate.enter() {
		return Stored{}, 0, ErrClosed
	}
	defer im.gate.leave()
	at, err := im.locate(page, limit)
	if err != nil {
		return Stored{}, 0, fmt.Errorf("image page %d of %s: %w", page, im.name, err)
	}
	if at.zero || im.packs[at.pack] == nil {
		return Stored{}, at.n, nil
	}
	p := im.packs[at.pack]
	if p.partial() {
		return Stored{Pages: at.n}, 0, nil
	}
	return Stored{File: p.path, Size: pack.FileSize(int(p.mapped.Pages())), Offset: pack.Offset(at.page), Pages: at.n}, 0, nil
}

// StoredCached returns how many of the pages from page on, at most limit of them and no further than they lie one after the other, are in
// memory where Stored says that they lie; 0 also if that is not known, or if some of them are not here at all.
func (im *Image) StoredCached(page uint64, limit int) int {
	if !im.gate.enter() {
		return 0
	}
	defer im.gate.leave()
	at, err := im.locate(page, limit)
	if err != nil || at.zero || im.packs[at.pack] == nil {
		return 0
	}
	p := im.packs[at.pack]
	if p.partial() && p.remote.part.Present(at.page, at.page+uint32(at.n)) != at.n {
		return 0
	}
	return p.mapped.Cached(at.page, at.n)
}

// StoredIntact returns how many pages from page on, limit at most, are known to be intact where Stored says that they lie, which Ready
// does not say: it may know another copy of them. Pages that are zero count.
func (im *Image) StoredIntact(page uint64, limit int) int {
	if !im.gate.enter() {
		return 0
	}
	defer im.gate.leave()
	_, n := im.readyStored(page, limit)
	return n
}

// CheckStored reads and checks pages where Stored says that they lie, as far as they are not known to be intact: it is to StoredIntact
// what Load is to Ready.
func (im *Image) CheckStored(page uint64, limit int) (n int, err error) {
	if !im.gate.enter() {
		return 0, ErrClosed
	}
	defer im.gate.leave()
	_, n, err = im.load(page, limit, false)
	return n, err
}

// Prefetch asks for pages that will be needed soon to be read from the disk. It returns at once: a goroutine of the
// Store asks the kernel, and Store.Close waits for it. It is a hint; if too many are waiting it is dropped.
func (im *Image) Prefetch(page, pages uint64) {
	im.prefetch([]PageRun{{Image: page, Pages: pages}}, &im.store.prefetcher)
}

// PrefetchRuns is Prefetch of runs of the image, in their order, that somebody is about to wait for: they do not give way to other work, nor to
// what Prefetch has asked for. Those that lie near each other in storage are asked for together.
func (im *Image) PrefetchRuns(runs []PageRun) {
	im.prefetch(runs, &im.store.neededPrefetcher)
}

// prefetch has a prefetcher read runs of the image, or the one for what is elsewhere.
func (im *Image) prefetch(runs []PageRun, by *prefetcher) {
	if !im.gate.enter() {
		return
	}
	defer im.gate.leave()
	var want ahead // the run of stored pages collected so far
	for _, r := range runs {
		for r.Pages > 0 {
			n, hot := im.alike(r.Image, min(r.Pages, pack.MaxPages))
			at, err := im.locate(r.Image, int(n))
			if err != nil {
				break
			}
			r.Image, r.Pages = r.Image+uint64(at.n), r.Pages-uint64(at.n)
			if at.zero || im.packs[at.pack] == nil {
				continue
			}
			next := ahead{at, hot}
			if want.n > 0 && want.near(next, im.packs[at.pack].partial()) {
				want.n = int(at.page-want.page) + at.n
				continue
			}
			if !im.ask(want, by) {
				return
			}
			want = next
		}
	}
	im.ask(want, by)
}

// ahead is a run of stored pages to be asked for. hot says that they are to come with the hot pages of a stub.
type ahead struct {
	location
	hot bool
}

// near reports whether b is asked for together with a, which it follows. From elsewhere whole frames come: there it costs nothing if none lies between
// them; but what lies between hot pages is not wanted, and would be asked for when these are here.
func (a *ahead) near(b ahead, partial bool) bool {
	end := a.page + uint32(a.n)
	if a.pack != b.pack || a.hot != b.hot || b.page < end {
		return false
	}
	switch {
	case a.hot:
		return b.page == end
	case partial:
		return b.page/framePages-(end-1)/framePages <= 1
	}
	return b.page-end <= prefetchGap
}

// ask queues the prefetch of one run of stored pages, behind the hot pages that are on their way if it is of these. It reports whether there may be
// room for more.
func (im *Image) ask(at ahead, by *prefetcher) bool {
	if at.n == 0 {
		return true
	}
	p := im.packs[at.pack]
	im.store.retainPack(p)
	r := prefetchRequest{pack: p, page: at.page, pages: at.n}
	if p.partial() {
		by, r.image, r.behind = &im.store.remotePrefetcher, im, at.hot
	}
	if !by.ask(im.store, r) {
		im.store.releasePack(p)
		return false
	}
	return true
}

// location is where a run of n image pages is stored.
type location struct {
	zero bool
	pack uint32
	page uint32
	n    int
}

// locate finds the run that holds page, at most limit pages of it; a limit below 1 counts as 1.
func (im *Image) locate(page uint64, limit int) (at location, err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	total := im.manifest.ImagePages()
	if page >= total {
		return location{}, ErrRange
	}
	run := min(total-page, uint64(max(limit, 1)))
	i := im.manifest.Find(page)
	if i == im.manifest.Extents() {
		return location{zero: true, n: int(run)}, nil
	}
	e := im.manifest.Extent(i)
	if e.Image > page {
		return location{zero: true, n: int(min(run, e.Image-page))}, nil
	}
	skip := uint32(page - e.Image)
	return location{pack: e.Pack, page: e.Page + skip, n: int(min(run, uint64(e.Pages-skip)))}, nil
}

// pageError describes a page that cannot be served.
func (im *Image) pageError(page uint64, at location, err error) *PageError {
	return &PageError{
		Snapshot: im.name,
		Image:    page,
		Pack:     im.ids[at.pack],
		Page:     at.page,
		Offset:   pack.Offset(at.page),
		Err:      err,
	}
}
