package pagestore

import (
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"

	"thaw/pagestore/internal/hot"
)

// hotStepPages is how much of a hot file is read and then checked: 1 MiB.
const hotStepPages = 256

// hotCopy is the hot file of an image: a second copy of some of its pages. It is used as long as each page of it that was looked at is
// what the pack has; a file with a wrong page, or that the storage does not deliver, is not looked at again.
type hotCopy struct {
	file *hot.Mapped // nil if there is none that could be opened
	drop bool        // it was read aside, and leaves memory with the image; immutable

	// broken is why the file is not used, nil while it is.
	broken atomic.Pointer[error]
}

// openHot opens the hot file of a snapshot, whose lock the caller holds. That there is none, or none that is of use, is no error.
func (im *Image) openHot(s *Snapshot) {
	f, err := s.openBesideLocked(hotFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		im.hot.file, err = hot.Open(f, s.info.Digest, im.manifest.ImagePages())
	}
	if err != nil {
		im.giveUpHot(err)
		return
	}
	// What was read of its beginning has had the kernel read ahead.
	im.hot.drop = s.mu.aside && 4*im.hot.file.Cached() < int(im.hot.file.Pages())
}

// giveUpHot ends the use of the hot file, and says so the first time.
func (im *Image) giveUpHot(err error) {
	err = classify(err)
	if im.hot.broken.CompareAndSwap(nil, &err) {
		im.store.opts.Logger.Warn("packed copy of a snapshot's working set is not used: its pages come from the packs",
			"snapshot", im.name.String(), "err", err)
	}
}

// Hot returns how many pages of the image have a packed copy that is used. err says why there is one that is not, or not any more.
func (im *Image) Hot() (pages int, err error) {
	if broken := im.hot.broken.Load(); broken != nil {
		return 0, *broken
	}
	if im.hot.file == nil {
		return 0, nil
	}
	return int(im.hot.file.Pages()), nil
}

// Unpacked returns the parts of runs of the image that have no packed copy, in their order. The others come with PrefetchHot, and need not be read from
// the packs, too.
func (im *Image) Unpacked(runs []PageRun) []PageRun {
	if pages, _ := im.Hot(); pages == 0 || !im.gate.enter() {
		return runs
	}
	defer im.gate.leave()
	out := make([]PageRun, 0, len(runs))
	for _, r := range runs {
		for r.Pages > 0 {
			_, packed := im.hot.file.Find(r.Image)
			n := min(uint64(packed), r.Pages)
			if packed == 0 {
				n = min(im.hot.file.Gap(r.Image), r.Pages)
				out = append(out, PageRun{Image: r.Image, Pages: n})
			}
			r.Image, r.Pages = r.Image+n, r.Pages-n
		}
	}
	return out
}

// find returns the copy of the pages of the image from page on, n of them, limit at most; 0 if there is none.
func (h *hotCopy) find(page uint64, limit int) (at uint32, n int) {
	if h.file == nil || h.broken.Load() != nil {
		return 0, 0
	}
	at, n = h.file.Find(page)
	return at, min(n, max(limit, 1))
}

// ready is Image.Ready for pages whose copy is known to be intact.
func (h *hotCopy) ready(page uint64, limit int) (data []byte, n int) {
	at, n := h.find(page, limit)
	if n == 0 {
		return nil, 0
	}
	if n = h.file.Verified(at, n); n == 0 {
		return nil, 0
	}
	return h.file.Bytes(at, n), n
}

// loadHot is Image.Load for pages that have a copy, of which at says where the pack has them. It leaves to the pack what nobody
// has read of it and is in memory there: the copy may not be, and memory that holds both is wasted. n is 0 if the pack has to be asked.
func (im *Image) loadHot(page uint64, at location) (data []byte, n int) {
	copied, n := im.hot.find(page, at.n)
	if n == 0 {
		return nil, 0
	}
	at.n = n
	known := im.hot.file.Verified(copied, n)
	if known == n {
		return im.hot.file.Bytes(copied, n), n
	}
	if known == 0 && im.cached(at) {
		return nil, 0
	}
	im.hot.file.Fetch(copied, n)
	n, err := im.hot.file.Check(copied, im.sums(at))
	if err != nil {
		im.giveUpHot(err)
	}
	return im.hot.file.Bytes(copied, n), n
}

// PrefetchHot has the packed copy, if there is one, read from the disk from its beginning to its end, checked and mapped, but for parts
// that are in memory in the packs. It returns at once: a goroutine of the Store reads, and Store.Close waits for it. A hint, as Prefetch;
// the two do not wait for each other.
//
// If the snapshot is a stub, its hot pages are asked from the origin, and a Load of one of them waits for a while for it to come with the
// others.
func (im *Image) PrefetchHot() {
	im.joinHot()
	if pages, _ := im.Hot(); pages > 0 {
		im.store.hotPrefetcher.ask(im.store, prefetchRequest{hot: im})
	}
}

// readHot reads the hot file; stop, asked now and then, ends it early. It holds nothing of the image between two steps.
func (im *Image) readHot(stop func() bool) {
	pages, _ := im.Hot()
	run := 0
	for page := 0; page < pages && run >= 0 && !stop(); page += hotStepPages {
		run = im.readHotStep(run, uint32(page), uint32(min(page+hotStepPages, pages)))
	}
}

// readHotStep reads the pages [from, to) of the hot file, the first of which is in run number run. It returns the run of page to, and
// -1 if it makes no sense to go on.
func (im *Image) readHotStep(run int, from, to uint32) (next int) {
	if !im.gate.enter() {
		return -1
	}
	defer im.gate.leave()
	file := im.hot.file
	var parts []hotPart
	for ; run < file.Runs(); run++ {
		r, first := file.Run(run)
		if first >= to {
			break
		}
		begin, end := max(first, from), min(first+r.Pages, to)
		parts = im.appendParts(parts, begin, r.Image+uint64(begin-first), int(end-begin))
		if end == to {
			break
		}
	}
	if !slices.ContainsFunc(parts, func(p hotPart) bool { return !im.cached(p.at) }) {
		return run
	}
	file.Stream(from, int(to-from))
	for _, p := range parts {
		if _, err := file.Check(p.page, im.sums(p.at)); err != nil {
			im.giveUpHot(err)
			return -1
		}
	}
	return run
}

// hotPart is a run of pages of the hot file that lies together in a pack, too.
type hotPart struct {
	page uint32 // of the hot file
	at   location
}

// appendParts appends the parts of n pages of the hot file from page on, which should be those of the image from image on. Those that
// are zero or whose pack is missing are left out: there is nothing to compare them with.
func (im *Image) appendParts(parts []hotPart, page uint32, image uint64, n int) []hotPart {
	for n > 0 {
		at, err := im.locate(image, n)
		if err != nil {
			return parts
		}
		if !at.zero && im.packs[at.pack] != nil && !im.packs[at.pack].partial() {
			parts = append(parts, hotPart{page, at})
		}
		page, image, n = page+uint32(at.n), image+uint64(at.n), n-at.n
	}
	return parts
}

// cached reports whether pages are in memory in their pack.
func (im *Image) cached(at location) bool {
	return !im.store.opts.packsCold && im.packs[at.pack].mapped.Cached(at.page, at.n) == at.n
}
