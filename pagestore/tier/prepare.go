package tier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"thaw/internal/ownthread"
	"thaw/pagestore"
	"thaw/pagestore/internal/aside"
	"thaw/pagestore/internal/frame"
)

// Prepare makes what peers will ask for of a snapshot, but for its packs, unless it is made already: so the first one that asks does not wait for
// it. All hot pages must be here. used is when the snapshot was made, or used last, here.
//
// It works at a low priority, of the CPU and of the disk, until somebody asks for what it makes, and leaves the page cache as it was, as far as the
// kernel lets it. It makes room by dropping what was used earlier than the snapshot, if nobody has asked for that within an hour, and nobody reads
// it. If that is not enough it makes nothing, and the error wraps [ErrRoom]. Other errors are [pagestore.ErrNotFound], [pagestore.ErrNotLocal],
// [pagestore.ErrClosed], those of the store and of the disk, and those of ctx.
func (s *Shelf) Prepare(ctx context.Context, name pagestore.Name, used time.Time) error {
	for {
		changed, err := s.prepare(ctx, name, used)
		if errors.Is(err, pagestore.ErrNotFound) {
			s.forget(name)
		}
		if err != nil && !changed {
			return fmt.Errorf("prepare %s for peers: %w", name, err)
		}
		if !changed {
			return nil
		}
	}
}

// prepare is Prepare of the snapshot as it is now. It reports whether that has changed meanwhile.
func (s *Shelf) prepare(ctx context.Context, name pagestore.Name, used time.Time) (changed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	snap, err := s.store.Snapshot(name)
	if err != nil {
		return false, err
	}
	defer snap.Close()
	snap.Aside()
	v, err := versionOf(snap)
	if err != nil {
		return false, err
	}
	if s.isPrepared(name, v, used) {
		return false, nil
	}
	if err := hotHere(snap); err != nil {
		return false, err
	}
	o, mine, err := s.claimRoom(name, v, used, sizeBound(snap))
	if err != nil {
		return false, err
	}
	defer s.leaveOffer(o)
	err = ownthread.Run(func() error { return s.fill(ctx, o, mine, snap) })
	if err != nil && ctx.Err() != nil {
		return false, err
	}
	now, changeErr := s.versionNow(name)
	if changeErr != nil {
		return false, changeErr
	}
	if err == nil && s.isClosed() {
		err = pagestore.ErrClosed
	}
	return now != v && !errors.Is(err, pagestore.ErrClosed), err
}

func (s *Shelf) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// isPrepared reports whether nothing is left to do for a snapshot, and notes when it was used.
func (s *Shelf) isPrepared(name pagestore.Name, v offerVersion, used time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.offers[name]
	if o == nil || o.version != v || !o.whole {
		return false
	}
	o.since = used
	return true
}

// claimRoom returns the offer of that version, with a use of it, if there is room for so many bytes of it; mine says that it is for the caller to
// make.
func (s *Shelf) claimRoom(name pagestore.Name, v offerVersion, used time.Time, size int64) (o *offer, mine bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, pagestore.ErrClosed
	}
	if size > s.opts.MadeBytes {
		return nil, false, ErrTooLarge
	}
	wanted := &offer{since: used}
	free := s.opts.MadeBytes - s.made
	is := s.offers[name]
	if is != nil {
		wanted.asked = is.asked
		if is.version == v || is.users == 0 {
			free += is.bytes // which are a part of size, or go
		}
	}
	may := func(other *offer) bool { return other != is && s.yieldsLocked(other, wanted) }
	for _, other := range s.offers {
		if may(other) {
			free += other.bytes
		}
	}
	if size > free {
		return nil, false, ErrRoom
	}
	o, mine = s.claimLocked(name, v)
	o.since = used
	if o.users == 0 {
		o.urgent.Store(false) // who has asked has what was asked for
	}
	o.users++
	s.shrinkLocked(s.opts.MadeBytes-size+o.bytes, may)
	return o, mine, nil
}

// fill makes what is missing of an offer, on a thread that ends behind it.
func (s *Shelf) fill(ctx context.Context, o *offer, mine bool, snap *pagestore.Snapshot) error {
	thread := aside.GiveWay()
	step := func() {
		s.stepped()
		if o.urgent.Load() {
			thread.Hurry()
		}
	}
	if mine {
		s.makeOffer(ctx, o, snap, step)
	}
	select {
	case <-o.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if o.err != nil || o.WorkingSet == nil {
		return o.err
	}
	o.hotMu.Lock()
	defer o.hotMu.Unlock()
	if o.hot != nil {
		return nil
	}
	return s.makeHotLocked(ctx, o, snap, step)
}

// versionNow returns the version of the snapshot that has a name now.
func (s *Shelf) versionNow(name pagestore.Name) (v offerVersion, err error) {
	snap, err := s.store.Snapshot(name)
	if err != nil {
		return v, err
	}
	defer snap.Close()
	return versionOf(snap)
}

// hotHere returns an error unless all hot pages of a snapshot are here. What was made here is.
func hotHere(snap *pagestore.Snapshot) error {
	if snap.Remote() == nil {
		return nil
	}
	order, _, err := snap.HotOrder()
	if err != nil {
		return err
	}
	image, err := snap.Image()
	if err != nil {
		return err
	}
	for _, run := range order {
		for page, left := run.Image, run.Pages; left > 0; {
			n := uint64(image.Holds(page, int(min(left, frame.HotPages))))
			if n == 0 {
				return fmt.Errorf("image page %d: %w", page, pagestore.ErrNotLocal)
			}
			page, left = page+n, left-n
		}
	}
	return nil
}

// sizeBound returns what is made of a snapshot at most, about: what it is made from.
func sizeBound(snap *pagestore.Snapshot) int64 {
	hint, hot := snap.WorkingSetBytes()
	if r := snap.Remote(); hot == 0 && r != nil && r.Hot != nil {
		hot = int64(r.Hot.Pages) * pagestore.PageSize
	}
	size := hint + hot + snap.Info().ManifestBytes
	for _, f := range snap.Info().Skeleton {
		size += f.Bytes
	}
	return size
}

// forget drops what was made of a snapshot.
func (s *Shelf) forget(name pagestore.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.offers[name]; o != nil {
		s.dropLocked(o)
	}
}

// Sweep drops what was made of snapshots that are not in the store any more. Who reads it goes on.
func (s *Shelf) Sweep() {
	s.mu.Lock()
	var names []pagestore.Name
	for name := range s.offers {
		names = append(names, name)
	}
	s.mu.Unlock()
	for _, name := range names {
		if _, err := s.versionNow(name); errors.Is(err, pagestore.ErrNotFound) {
			s.forget(name)
		}
	}
}

// ShelfStats says what a [Shelf] has made.
type ShelfStats struct {
	// Prepared is of how many snapshots nothing is left to be made.
	Prepared int
	// Bytes of the disk is what they and others take, Limit ShelfOptions.MadeBytes.
	Bytes, Limit int64
	// Pushed counts the snapshots of which what was made has gone because there was something else to make.
	Pushed uint64
}

// Stats returns what there is now.
func (s *Shelf) Stats() ShelfStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := ShelfStats{Bytes: s.made, Limit: s.opts.MadeBytes, Pushed: s.pushed}
	for _, o := range s.offers {
		if o.whole {
			st.Prepared++
		}
	}
	return st
}
