package tier

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// offer is a snapshot of the store as others see it: its descriptor and meta object, made when its name was asked for, and its hot object, made when that is.
type offer struct {
	name    pagestore.Name
	version offerVersion

	ready chan struct{} // closed when it was made
	err   error         // after ready: why it could not be
	*described
	pointer []byte

	users int   // who read it; protected by Shelf.mu
	used  int64 // when it was asked for last, by Shelf.clock; protected by Shelf.mu
	bytes int64 // of its spools, as counted in Shelf.made; protected by Shelf.mu
	gone  bool  // it is not in Shelf.offers any more; protected by Shelf.mu

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
			s.makeOffer(ctx, o, snap)
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
	o = s.offers[name]
	if o != nil && o.version != v {
		s.dropLocked(o)
		o = nil
	}
	if o == nil {
		o, mine = &offer{name: name, version: v, ready: make(chan struct{})}, true
		s.offers[name] = o
	}
	s.useLocked(o)
	return o, mine, nil
}

func (s *Shelf) useLocked(o *offer) {
	s.clock++
	o.used = s.clock
	o.users++
}

// makeOffer fills an offer in.
func (s *Shelf) makeOffer(ctx context.Context, o *offer, snap *pagestore.Snapshot) {
	if o.described, o.err = describe(ctx, snap, s.store, s.opts.TempDir, true); o.err == nil {
		if o.pointer, o.err = encodePointer(o.text); o.err != nil {
			o.err = errors.Join(o.err, o.Close())
			o.described = nil
		}
	}
	if o.err != nil {
		s.mu.Lock()
		s.dropLocked(o)
		s.mu.Unlock()
	} else {
		s.grow(o, o.meta.size)
	}
	close(o.ready)
}

// grow counts what was made for an offer, and drops others if it is too much.
func (s *Shelf) grow(o *offer, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.bytes += n
	s.made += n
	for s.made > s.opts.MadeBytes {
		var oldest *offer
		for _, other := range s.offers {
			if other.users == 0 && other.bytes > 0 && (oldest == nil || other.used < oldest.used) {
				oldest = other
			}
		}
		if oldest == nil {
			return
		}
		s.dropLocked(oldest)
	}
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
			s.useLocked(o)
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
	hot, err := newSpool(s.opts.TempDir)
	if err != nil {
		return nil, err
	}
	if err := o.frameHot(ctx, snap, hot); err != nil {
		return nil, errors.Join(err, hot.Close())
	}
	o.hot = hot
	s.grow(o, hot.size)
	return hot, nil
}
