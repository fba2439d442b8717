package pagestore

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"

	"thaw/internal/durable"
	"thaw/pagestore/internal/pack"
)

// packKey tells apart packs of two namespaces: equal content must not be shared between them, not even in memory, where
// timing would show it.
type packKey struct {
	namespace string
	id        PackID
	voucher   voucher // zero: the pack is complete
}

// openPack is a pack that is mapped once for all snapshots of a Store that use it, so that a page is hashed once
// and not once for each restore.
type openPack struct {
	key    packKey
	path   string // of its file
	mapped *pack.Mapped
	remote *RemotePack // nil: the pack is complete; else mapped is part of it
	refs   int         // protected by Store.mu; 0: in Store.mu.idle
}

// acquirePack opens a pack or shares an open one. Pages 0 stands for any number. If partial is not nil, the pack
// may be one of which pages are missing, with that root. Errors wrap
// ErrMissingPack, ErrCorrupt or ErrVersion.
func (s *Store) acquirePack(ns namespace, id PackID, pages uint32, partial *partialPack) (*openPack, error) {
	key := packKey{namespace: ns.name, id: id}
	if p := s.sharePack(key); p != nil {
		return p, nil
	}
	p := &openPack{key: key, path: ns.pack(id), refs: 1}
	mapped, err := pack.Open(ns.pack(id), id)
	if errors.Is(err, fs.ErrNotExist) && partial != nil {
		p.key.voucher = partial.name.voucher
		if p := s.sharePack(p.key); p != nil {
			return p, nil
		}
		var part *pack.Partial
		mapped, part, err = s.openPartial(ns, partial.name, pages, partial.root)
		if durable.NoSpace(err) {
			s.makeRoom(0)
			mapped, part, err = s.openPartial(ns, partial.name, pages, partial.root)
		}
		if part != nil {
			p.remote = &RemotePack{
				Namespace: ns.name, ID: id, Pages: pages, Root: partial.root, store: s, ns: ns, name: partial.name, part: part, open: p,
				awaited: make([]atomic.Int32, part.Frames()),
			}
			mapped = part.Mapped
		} else {
			p.key = key // it has become a complete one
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrMissingPack, err)
	} else if err != nil {
		return nil, fmt.Errorf("open pack: %w", classify(err))
	}
	if pages != 0 && mapped.Pages() != pages {
		err := corruptf("pack has %d pages, want %d", mapped.Pages(), pages)
		return nil, errors.Join(err, mapped.Close())
	}
	p.mapped = mapped
	if p = s.addPack(p); p.remote != nil {
		s.finishSoon(p.remote) // if somebody died before doing so
	}
	return p, nil
}

// partialPack is what a pack is of which pages may be missing.
type partialPack struct {
	name partialID
	root Digest
}

// partialPack returns what a pack of a stub is; nil if it has no such pack.
func (r *Remote) partialPack(id PackID) *partialPack {
	name, root, ok := r.partial(id)
	if !ok {
		return nil
	}
	return &partialPack{name, root.Root}
}

// close unmaps the pack.
func (p *openPack) close() {
	if p.remote != nil {
		p.remote.part.Close()
		p.remote.store.inMemory.Add(-p.remote.inMemory.Load())
		return
	}
	p.mapped.Close() // munmap of a whole mapping does not fail
}

// partial reports whether pages of the pack may be missing.
func (p *openPack) partial() bool { return p.remote != nil && !p.remote.complete.Load() }

// sharePack returns the open pack with a reference for the caller, nil if it is not open.
func (s *Store) sharePack(key packKey) *openPack {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sharePackLocked(key)
}

func (s *Store) sharePackLocked(key packKey) *openPack {
	p := s.mu.packs[key]
	if p == nil {
		return nil
	}
	if p.evicted() {
		s.forgetPackLocked(p)
		return nil
	}
	if p.refs == 0 {
		i := slices.Index(s.mu.idle, p)
		s.mu.idle = slices.Delete(s.mu.idle, i, i+1)
	}
	p.refs++
	return p
}

// evicted reports whether the pack's file has been deleted since it was opened: by Evict or GC, which do not look at who has a
// HeldPack. Who has it goes on with it, but nobody else is to: what is written there is in no quota, and gone when it is closed. One
// that was deleted because what came was wrong is still shared, so that it does not come again.
func (p *openPack) evicted() bool {
	return p.mapped.Deleted() && (p.remote == nil || p.remote.err() == nil)
}

// forgetPackLocked makes p, which may be in use, no longer the open pack of its key.
func (s *Store) forgetPackLocked(p *openPack) {
	if s.mu.packs[p.key] == p {
		delete(s.mu.packs, p.key)
	}
}

// addPack makes p, with its one reference, the open pack of its key, unless somebody was faster: then it returns
// theirs.
func (s *Store) addPack(p *openPack) *openPack {
	s.mu.Lock()
	other := s.sharePackLocked(p.key)
	if other == nil {
		s.mu.packs[p.key] = p
	}
	s.mu.Unlock()
	if other == nil {
		return p
	}
	p.close()
	return other
}

// releasePack gives back a reference. With the last one the pack becomes idle; see Options.KeepPacks.
func (s *Store) releasePack(p *openPack) {
	s.mu.Lock()
	p.refs--
	switch {
	case p.refs > 0:
	case s.mu.packs[p.key] != p || p.partial() || p.remote != nil && p.remote.part.InMemory():
		// Not kept: who evicts it must find that nobody writes to it.
		s.forgetPackLocked(p)
		defer p.close()
	default:
		p.mapped.Rest()
		s.mu.idle = append(s.mu.idle, p)
	}
	keep := s.opts.KeepPacks
	if s.mu.closed {
		keep = 0
	}
	s.mu.Unlock()
	s.closeIdle(keep)
}

// closeIdle closes idle packs until at most keep are left, those first that were deleted, then the longest idle.
func (s *Store) closeIdle(keep int) {
	var drop []*openPack
	s.mu.Lock()
	s.mu.idle = slices.DeleteFunc(s.mu.idle, func(p *openPack) bool {
		if !p.mapped.Deleted() {
			return false
		}
		drop = append(drop, p)
		return true
	})
	if n := len(s.mu.idle) - keep; n > 0 {
		drop = append(drop, s.mu.idle[:n]...)
		s.mu.idle = slices.Delete(s.mu.idle, 0, n)
	}
	for _, p := range drop {
		s.forgetPackLocked(p)
	}
	s.mu.Unlock()
	for _, p := range drop {
		p.close()
	}
}

// retainPack adds a reference to a pack to which the caller has one.
func (s *Store) retainPack(p *openPack) {
	s.mu.Lock()
	p.refs++
	s.mu.Unlock()
}
