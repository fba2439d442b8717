package tier

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// offer is a snapshot of the store as others see it: its descriptor and meta object, and its hot object. They are prepared, or made when they are
// asked for: all but the hot object with the name, and that by itself.
type offer struct {
	name    pagestore.Name
	version offerVersion

	ready chan struct{} // closed when it was made
	err   error         // after ready: why it could not be
	*described
	pointer []byte

	users int       // who read it, or make it; protected by Shelf.mu
	since time.Time // when the snapshot was used here, as whoever prepared it says; zero if nobody did; protected by Shelf.mu
	asked time.Time // when it, or an earlier version, was asked for last; zero if nobody has; protected by Shelf.mu
	bytes int64     // of its spools, as counted in Shelf.made; protected by Shelf.mu
	whole bool      // nothing is left to be made; protected by Shelf.mu
	gone  bool      // it is not in Shelf.offers any more; protected by Shelf.mu

	urgent atomic.Bool // somebody asks for what is being prepared

	hotMu sync.Mutex // held while the hot object is made
	hot   *spool     // protected by hotMu
}

// offerVersion tells when a snapshot has changed: what it is, and what is known of its working set.
type offerVersion struct {
	digest pagestore.Digest
	hint   pagestore.HintVersion
	packed int64
}

func versionOf(snap *pagestore.Snapshot) (v offerVersion, err error) {
	v.digest = snap.Digest()
	_, v.packed = snap.WorkingSetBytes()
	v.hint, err = snap.HintVersion()
	return v, err
}

// offerThing returns a blob that belongs to a snapshot. All but names are only known from offers that were made: who asks has asked for the name before.
func (s *Shelf) offerThing(ctx context.Context, key Key) (*thing, error) {
	var o *offer
	var err error
	if key.Kind == KindName {
		o, err = s.offerOf(ctx, pagestore.Name{Namespace: key.Namespace, Snapshot: key.Name})
	} else {
		o, err = s.findOffer(key)
	}
	if err != nil {
		return nil, err
	}
	t := &thing{close: func() { s.leaveOffer(o) }}
	switch key.Kind {
	case KindName:
		t.bytes(o.pointer)
	case KindDescriptor:
		t.bytes(o.text)
	case KindMeta:
		t.spool(o.meta)
	default:
		hot, err := s.hotOf(ctx, o)
		if err != nil {
			t.close()
			return nil, err
		}
		t.spool(hot)
	}
	return t, nil
}

func (t *thing) bytes(b []byte) {
	t.size = int64(len(b))
	t.open = func(_ context.Context, off, n int64) (io.Reader, error) { return bytes.NewReader(b[off : off+n]), nil }
}

func (t *thing) spool(f *spool) {
	t.size = f.size
	t.open = func(_ context.Context, off, n int64) (io.Reader, error) { return f.reader(off, n), nil }
}

// offerOf returns the offer of a snapshot as it is now, with a use of it for the caller.
func (s *Shelf) offerOf(ctx context.Context, name pagestore.Name) (*offer, error) {
	snap, err := s.store.Snapshot(name)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	v, err := versionOf(snap)
	if err != nil {
		return nil, err
	}
	for {
		o, mine, err := s.claimOffer(name, v)
		if err != nil {
			return nil, err
		}
		if mine {
			s.makeOffer(ctx, o, snap, nil)
		}
		select {
		case <-o.ready:
		case <-ctx.Done():
			s.leaveOffer(o)
			return nil, context.Cause(ctx)
		}
		if o.err == nil {
			return o, nil
		}
		err = o.err
		s.leaveOffer(o)
		if mine || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		} // else whoever made it has gone: it is for us to
	}
}

// claimOffer returns the offer of that version, with a use of it; mine says that it is for the caller to make.
func (s *Shelf) claimOffer(name pagestore.Name, v offerVersion) (o *offer, mine bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, pagestore.ErrClosed
	}
	o, mine = s.claimLocked(name, v)
	s.askLocked(o)
	return o, mine, nil
}

// claimLocked is claimOffer without the use.
func (s *Shelf) claimLocked(name pagestore.Name, v offerVersion) (o *offer, mine bool) {
	was := s.offers[name]
	if was != nil && was.version == v {
		return was, false
	}
	o = &offer{name: name, version: v, ready: make(chan struct{})}
	if was != nil {
		o.since, o.asked = was.since, was.asked
		s.dropLocked(was)
	}
	s.offers[name] = o
	return o, true
}

// askLocked notes that somebody asks for an offer, and uses it.
func (s *Shelf) askLocked(o *offer) {
	o.asked = s.now()
	o.urgent.Store(true)
	o.users++
}

// makeOffer fills an offer in; step is as in how, and set if it is prepared.
func (s *Shelf) makeOffer(ctx context.Context, o *offer, snap *pagestore.Snapshot, step func()) {
	if o.described, o.err = describe(ctx, snap, s.store, how{s.opts.TempDir, true, step}); o.err == nil {
		if o.pointer, o.err = encodePointer(o.text); o.err != nil {
			o.err = errors.Join(o.err, o.Close())
			o.described = nil
		}
	}
	if o.err == nil {
		o.err = s.grow(o, o.meta.size, o.WorkingSet == nil, step != nil)
	} else {
		s.mu.Lock()
		s.dropLocked(o)
		s.mu.Unlock()
	}
	close(o.ready)
}

// findOffer returns the offer to which a blob belongs, with a use of it.
func (s *Shelf) findOffer(key Key) (*offer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.offers {
		select {
		case <-o.ready:
		default:
			continue
		}
		if o.err == nil && o.name.Namespace == key.Namespace && o.has(key) {
			s.askLocked(o)
			return o, nil
		}
	}
	return nil, blob.ErrNotFound
}

func (d *described) has(key Key) bool {
	switch key.Kind {
	case KindDescriptor:
		return d.digest == key.Digest
	case KindMeta:
		return d.Meta.Digest == key.Digest
	case KindHot:
		return d.WorkingSet != nil && d.Manifest.Digest == key.Digest && d.WorkingSet.Root == key.Root
	}
	return false
}

// leaveOffer ends a use.
func (s *Shelf) leaveOffer(o *offer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.users--; o.users == 0 && o.gone {
		s.closeOfferLocked(o)
	}
}

// dropLocked takes an offer away. Who reads it goes on.
func (s *Shelf) dropLocked(o *offer) {
	if s.offers[o.name] == o {
		delete(s.offers, o.name)
	}
	if o.gone {
		return
	}
	o.gone = true
	if o.users == 0 {
		s.closeOfferLocked(o)
	}
}

func (s *Shelf) closeOfferLocked(o *offer) {
	s.made -= o.bytes
	if o.described != nil {
		o.Close() // a file without a name
	}
	if o.hot != nil { // nobody makes it: that would be a use
		o.hot.Close()
	}
}

// hotOf returns the hot object of an offer, which the caller uses.
func (s *Shelf) hotOf(ctx context.Context, o *offer) (*spool, error) {
	o.hotMu.Lock()
	defer o.hotMu.Unlock()
	if o.hot != nil {
		return o.hot, nil
	}
	snap, err := s.store.Snapshot(o.name)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	if v, err := versionOf(snap); err != nil || v != o.version {
		return nil, errors.Join(err, blob.ErrNotFound)
	}
	err = s.makeHotLocked(ctx, o, snap, nil)
	return o.hot, err
}

// makeHotLocked makes the hot object of an offer, which the caller uses, from its snapshot; step is as in makeOffer. The caller holds hotMu.
func (s *Shelf) makeHotLocked(ctx context.Context, o *offer, snap *pagestore.Snapshot, step func()) error {
	hot, err := newSpool(s.opts.TempDir)
	if err != nil {
		return err
	}
	if err := o.frameHot(ctx, snap, hot, how{step: step}); err != nil {
		return errors.Join(err, hot.Close())
	}
	o.hot = hot
	return s.grow(o, hot.size, true, step != nil)
}
