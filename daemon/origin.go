package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"thaw/control"
	"thaw/pagestore"
	"thaw/restore"
	"thaw/restore/criu"
)

// An origin is what a session restores from: a snapshot of the store, or a folder of plain CRIU images. Once it is made, mapImages
// included, it is immutable but for the failures that it notes, and safe for concurrent use.
type origin struct {
	name     string          // full name of the snapshot; empty for plain images
	host     json.RawMessage // what the snapshot says of its host; nil for plain images
	images   string          // folder for the runtime
	skeleton string          // the snapshot's own; empty for plain images
	source   restore.PageSource
	image    *pagestore.Image       // nil for plain images
	layouts  map[int]restore.Layout // by image pid
	pages    uint64                 // with content, of all processes together, without those that are mapped
	mapped   uint64                 // pages that the runtime maps from packs

	fromPacks map[int][]restore.Extent // what those are, by image pid
	folder    *mappedFolder            // that has them mapped; nil if nothing is
	digest    pagestore.Digest         // of the snapshot
	partly    bool                     // pages of the snapshot are elsewhere
	release   func() error
	snap      *pagestore.Snapshot // nil for plain images

	ranges func() (map[int][]criu.FileRange, error) // of files that the processes map, by image pid; read once

	badPage atomic.Pointer[pagestore.PageError] // of the page that failed last
}

// openSnapshot leases a snapshot, until close.
func openSnapshot(store *pagestore.Store, name string) (*origin, error) {
	parsed, err := pagestore.ParseName(name)
	if err != nil {
		return nil, err
	}
	snap, err := store.Snapshot(parsed)
	if err != nil {
		return nil, err
	}
	o, err := leased(snap)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshot %s: %w", parsed, err), snap.Close())
	}
	return o, nil
}

// leased makes an origin of a snapshot, which it owns if it succeeds.
func leased(snap *pagestore.Snapshot) (*origin, error) {
	image, err := snap.Image()
	if err != nil {
		return nil, err
	}
	o := &origin{
		name: snap.Name().String(), host: snap.Host(), images: snap.SkeletonDir(), skeleton: snap.SkeletonDir(), layouts: map[int]restore.Layout{}, release: snap.Close, snap: snap,
	}
	o.image, o.digest = image, snap.Digest()
	o.ranges = sync.OnceValues(func() (map[int][]criu.FileRange, error) { return criu.FileRanges(o.skeleton) })
	o.source = &notingSource{Image: image, bad: &o.badPage}
	for _, space := range snap.Spaces() {
		if space.Zombie() {
			continue
		}
		l, err := layoutOf(space)
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", space.ID(), err)
		}
		o.layouts[int(space.ID())] = l
		o.pages += l.Pages()
	}
	return o, nil
}

// layoutOf turns an address space of the store into a session's words.
func layoutOf(space pagestore.SpaceView) (restore.Layout, error) {
	l := restore.Layout{
		Regions: make([]restore.Region, 0, space.NumRegions()),
		Extents: make([]restore.Extent, 0, space.NumRuns()),
	}
	for r, err := range space.Regions() {
		if err != nil {
			return l, err
		}
		l.Regions = append(l.Regions, restore.Region{
			Start: r.Start, End: r.End, Splittable: r.Flags&pagestore.RegionSplittable != 0,
			WipeOnFork: r.Flags&pagestore.RegionWipeOnFork != 0,
		})
	}
	for r, err := range space.Runs() {
		if err != nil {
			return l, err
		}
		l.Extents = append(l.Extents, restore.Extent{Addr: r.Addr, Pages: r.Pages, Image: r.Image})
	}
	return l, l.Validate()
}

// openImages opens a folder of CRIU images as it lies: the runtime restores from the folder itself.
func openImages(dir string) (*origin, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("open images: %w", err)
	}
	images, err := criu.Open(dir)
	if err != nil {
		return nil, err
	}
	source, layouts, err := images.Source()
	if err = errors.Join(err, images.Close()); err != nil {
		return nil, err
	}
	o := &origin{images: dir, source: source, layouts: layouts, release: source.Close}
	for pid := range layouts {
		l := layouts[pid]
		o.pages += l.Pages()
	}
	return o, nil
}

// files returns where a process maps files. What cannot be read is left out: the runtime will say it better.
func (o *origin) files(pid int) []criu.FileRange {
	all, err := o.ranges()
	if err != nil {
		return nil
	}
	return all[pid]
}

// close gives up the lease. The source must not be in use any more.
func (o *origin) close() error { return o.release() }

// readAhead has what the runtime will open, and pages of the image, at most limit bytes, brought to the page cache, so that the disk
// works while the runtime still prepares. These are the pages that were touched after earlier restores; as long as nothing is
// known of that, all pages, in the order of addresses, which is that of packs. Where all seems to be in memory nothing is done.
func (o *origin) readAhead(ctx context.Context, limit int64, binds []control.Bind, sight *foresight) {
	if limit > 0 && o.image != nil {
		if o.warm(sight.needs, binds, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))) {
			return
		}
		if sight.learned != nil {
			o.image.PrefetchHot()
		}
		// Beside each other: the files are many, and each is opened before it is read; the disk has time for more.
		var files sync.WaitGroup
		defer files.Wait()
		files.Go(func() { o.readFiles(ctx, binds, sight.needs) })
		if o.readNeeds(limit, sight) {
			return
		}
	}
	if o.partly {
		return // what nobody is known to need would be in the way of what somebody waits for; the stream brings it behind the first answer
	}
	if pages := min(o.pages+o.mapped, uint64(max(limit, 0))/restore.PageSize); pages > 0 {
		o.source.Prefetch(0, pages)
	}
}

// readNeeds reads what was touched after earlier restores, and reports whether anything is known of that. Of the rest, what is
// copied is read as it is streamed, or, as long as there is no working set, at once; and what is mapped when the process comes to
// it, or by readMapped.
func (o *origin) readNeeds(limit int64, sight *foresight) bool {
	known := sight.needs
	if known == nil {
		return false
	}
	left := uint64(limit) / restore.PageSize
	for pid := range o.layouts {
		o.image.PrefetchRuns(atMost(&left, known.imageRuns(o.fromPacks[pid])))
		l := o.layouts[pid]
		switch {
		case sight.learned != nil && o.partly:
			o.image.PrefetchRuns(inParts(restore.Place(l.Extents, slices.Concat(sight.must, sight.likely)), &left))
		case sight.learned != nil:
			o.image.PrefetchRuns(o.image.Unpacked(atMost(&left, known.imageRuns(l.Extents))))
		case !o.partly:
			for _, e := range l.Extents {
				n := min(e.Pages, left)
				o.source.Prefetch(e.Image, n)
				left -= n
			}
		}
	}
	return true
}

// atMost returns the runs as the image takes them, at most left pages of them. It takes them off left.
func atMost(left *uint64, runs []pageRun) []pagestore.PageRun {
	out := make([]pagestore.PageRun, 0, len(runs))
	for _, r := range runs {
		n := min(r.n, *left)
		*left -= n
		out = append(out, pagestore.PageRun{Image: r.first, Pages: n})
	}
	return out
}

// partPages is how much of what is needed is asked for from elsewhere in the order in which it lies there: 64 MiB. Between parts it is asked for as
// it will be installed, for who installs waits for what comes next; but a set's order has many short runs, and each is a request.
const partPages = 16384

// inParts returns the pages of the image that extents have, at most left of them, in parts that are each in the order of the image. It takes them off left.
func inParts(extents []restore.Extent, left *uint64) (out []pagestore.PageRun) {
	for len(extents) > 0 && *left > 0 {
		n, pages := 0, uint64(0)
		for n < len(extents) && pages < partPages {
			pages += extents[n].Pages
			n++
		}
		part := slices.SortedFunc(slices.Values(extents[:n]), func(a, b restore.Extent) int { return cmp.Compare(a.Image, b.Image) })
		for _, e := range part {
			n := min(e.Pages, *left)
			if n == 0 {
				return out
			}
			*left -= n
			out = append(out, pagestore.PageRun{Image: e.Image, Pages: n})
		}
		extents = extents[n:]
	}
	return out
}

// readMapped has all that is mapped read behind the processes, at leisure.
func (o *origin) readMapped() {
	for _, extents := range o.fromPacks {
		for _, e := range extents {
			o.source.Prefetch(e.Image, e.Pages)
		}
	}
}

// failedPage returns the page that could not be had, or nil.
func (o *origin) failedPage() *control.FailedPage {
	bad := o.badPage.Load()
	if bad == nil {
		return nil
	}
	return &control.FailedPage{Page: bad.Image, Pack: bad.Pack.String(), PackPage: uint64(bad.Page), Reason: bad.Err.Error()}
}

// notingSource is a store's image that notes which page could not be had. Only Load can fail, so the fault path of pages
// at hand (Ready) is the image's own.
type notingSource struct {
	*pagestore.Image
	bad *atomic.Pointer[pagestore.PageError]
}

var _ restore.PageSource = (*notingSource)(nil)

// Load is the image's Load.
func (s *notingSource) Load(page uint64, limit int) ([]byte, int, error) {
	data, n, err := s.Image.Load(page, limit)
	if err != nil {
		var bad *pagestore.PageError
		if errors.As(err, &bad) {
			s.bad.Store(bad)
		}
	}
	return data, n, err
}
