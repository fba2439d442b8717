package pagestore

import (
	"context"
	"errors"
	"fmt"
)

// loadRemote is load of pages of a pack of which some may be missing: it returns how many are here, and known to be intact.
func (im *Image) loadRemote(p *openPack, page uint64, at location, limit int) (n int, err error) {
	class := Demand
	if limit > demandPages {
		class = Ahead
	}
	for try := 0; ; try++ {
		if err := p.remote.err(); err != nil {
			return 0, im.pageError(page, at, err)
		}
		have, err := im.bring(im.ctx, p, page, at, class)
		if have == 0 {
			return 0, im.pageError(page, at, classify(err))
		}
		if n, err = p.mapped.Verify(at.page, have); n > 0 {
			return n, nil
		}
		if try > 0 || !p.partial() {
			return 0, im.pageError(page, at, classify(err))
		}
		// What lies here is not what was written. There is another one where it came from.
		im.store.opts.Logger.Warn("page that came from afar is brought again", "pack", p.key.id.String(), "page", at.page, "err", err)
		if err := p.remote.part.Forget(at.page); err != nil {
			return 0, im.pageError(page, at, classify(err))
		}
	}
}

// bring sees to it that pages are here: page of the image, which is where at says, and those that follow. It returns how many from the
// first on are, and, if that is none, why. In the class Demand it waits for nothing but the first.
func (im *Image) bring(ctx context.Context, p *openPack, page uint64, at location, class Class) (have int, err error) {
	part, end := p.remote.part, at.page+uint32(at.n)
	for waited, asked := false, false; ; {
		first := part.Missing(at.page, end)
		have = int(first - at.page)
		if first == end || class == Demand && have > 0 {
			return have, nil
		}
		if have > 0 && im.hasArrived(page+uint64(have)) {
			return have, nil // the next ones are at hand elsewhere
		}
		if !waited {
			waited = true
			if im.awaitHot(ctx, page+uint64(have)) {
				im.awaitPacks(ctx)
				continue
			}
		}
		if asked {
			return have, errors.Join(err, errNotAdmitted)
		}
		asked = true
		if err = p.remote.err(); err == nil {
			last := end - 1
			if class == Demand {
				last = first
			}
			err = p.remote.await(ctx, first, last, class)
		}
		if err != nil {
			return int(part.Missing(at.page, end) - at.page), err
		}
	}
}

// errNotAdmitted: the origin does not keep its promise, or something takes away what it brings.
var errNotAdmitted = fmt.Errorf("%w: the origin has brought something else", ErrNotLocal)

// await is fetch for somebody who cannot go on without the pages: they are kept in memory if the disk is full.
func (p *RemotePack) await(ctx context.Context, from, to uint32, class Class) error {
	awaited := p.awaited[from/framePages : to/framePages+1]
	for i := range awaited {
		awaited[i].Add(1)
		defer awaited[i].Add(-1)
	}
	return p.store.fetch(ctx, p, from, to, class)
}

// fetch asks the origin for the missing frames between two pages of a pack.
func (s *Store) fetch(ctx context.Context, p *RemotePack, from, to uint32, class Class) error {
	if s.opts.Origin == nil {
		return ErrNotLocal
	}
	per := uint32(framePages)
	for frame, last := int(from/per), int(to/per); frame <= last; frame++ {
		n := 0
		for frame+n <= last && p.Missing(frame+n) {
			n++
		}
		if n == 0 {
			continue
		}
		if err := s.opts.Origin.Fetch(ctx, p, frame, n, class); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %w", context.Cause(ctx), err)
			}
			return err
		}
		frame += n
	}
	return nil
}

// aheadStep is how many pages are asked from the origin at a time where nobody waits for them: 8 MiB, after which it is looked whether
// anybody still wants them.
const aheadStep = 2048

// fetchAhead is Mapped.Prefetch of a pack of which pages may be missing: these are brought. What goes wrong shows when they are used.
func (im *Image) fetchAhead(r prefetchRequest, stop func() bool) {
	if st := im.stream.Load(); st != nil && r.behind {
		select {
		case <-st.ended:
			if st.err == nil && st.here.Load() != nil {
				return // they have just come
			}
		case <-im.ctx.Done():
		}
	}
	part := r.pack.remote.part
	for page, end := r.page, r.page+uint32(r.pages); page < end && im.ctx.Err() == nil && !stop(); {
		step := min(page+aheadStep, end)
		if im.store.ahead.Acquire(im.ctx, int64(step-page)) != nil {
			return
		}
		err := im.fetchWanted(r.pack.remote, page, step)
		im.store.ahead.Release(int64(step - page))
		if err != nil {
			return
		}
		if here := part.Missing(page, step); here > page {
			r.pack.mapped.Prefetch(page, int(here-page), stop) // which reads what came here earlier
		}
		page = step
	}
}

// alike returns how many pages from page on, limit at most, are all on their way with the hot pages of a stub, or all not.
func (im *Image) alike(page, limit uint64) (n uint64, hot bool) {
	st := im.stream.Load()
	if st == nil {
		return limit, false
	}
	if _, n := st.table.Find(page); n > 0 {
		return min(limit, uint64(n)), true
	}
	return min(limit, st.table.Gap(page)), false
}

// fetchWanted asks for the frames in which one of the pages [page, end) is missing; others of a frame do not count.
func (im *Image) fetchWanted(p *RemotePack, page, end uint32) error {
	for page < end {
		first := p.part.Missing(page, end)
		if first == end {
			return nil
		}
		// Up to the first frame that lacks nothing of them.
		last := first
		for last < end {
			border := min((last/framePages+1)*framePages, end)
			if p.part.Missing(last, border) == border {
				break
			}
			last = border
		}
		if err := im.store.fetch(im.ctx, p, first, last-1, Ahead); err != nil {
			return err
		}
		page = last
	}
	return nil
}

// Bring waits until pages from page on are here, n of them, whatever they need to come from afar; those that are need nothing. Errors
// are as of Load, and those of ctx.
func (im *Image) Bring(ctx context.Context, page, n uint64, class Class) error {
	if !im.gate.enter() {
		return ErrClosed
	}
	defer im.gate.leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(im.ctx, func() { cancel(context.Cause(im.ctx)) })()
	im.awaitPacks(ctx)
	for n > 0 {
		at, err := im.locate(page, int(min(n, aheadStep)))
		if err != nil {
			return fmt.Errorf("image page %d of %s: %w", page, im.name, err)
		}
		if !at.zero {
			p := im.packs[at.pack]
			if p == nil {
				return im.pageError(page, at, im.packErrs[at.pack])
			}
			if p.partial() {
				if err := im.store.fetch(ctx, p.remote, at.page, at.page+uint32(at.n)-1, class); err != nil {
					return im.pageError(page, at, classify(err))
				}
			}
		}
		page, n = page+uint64(at.n), n-uint64(at.n)
	}
	return nil
}

// Mirror waits until all packs of the snapshot are here whole, also with those of their pages that the snapshot does not use: so they
// become ordinary packs. Errors are as of Bring.
func (im *Image) Mirror(ctx context.Context) error {
	if !im.gate.enter() {
		return ErrClosed
	}
	defer im.gate.leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(im.ctx, func() { cancel(context.Cause(im.ctx)) })()
	im.awaitPacks(ctx)
	for i, p := range im.packs {
		if p == nil {
			return fmt.Errorf("pack %s: %w", im.ids[i], im.packErrs[i])
		}
		if !p.partial() {
			continue
		}
		if err := im.store.fetch(ctx, p.remote, 0, p.remote.Pages-1, Mirror); err != nil {
			return fmt.Errorf("bring pack %s: %w", im.ids[i], classify(err))
		}
		im.store.finishSoon(p.remote)
	}
	return nil
}

// copyRemote is copyStored from a pack of which pages may be missing.
func (im *Image) copyRemote(to []byte, p *openPack, page uint64, at location) (n int, err error) {
	if at.n, err = im.bring(im.ctx, p, page, at, Ahead); at.n == 0 {
		return 0, im.pageError(page, at, classify(err))
	}
	if n, err = p.remote.part.Copy(to[:at.n*PageSize], at.page); err != nil {
		at.page += uint32(n)
		return 0, im.pageError(page+uint64(n), at, classify(err))
	}
	return n, nil
}
