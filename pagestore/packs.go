package pagestore

import (
	"errors"
	"fmt"
	"io/fs"

	"thaw/pagestore/internal/pack"
)

// packKey tells apart packs of two namespaces: equal content must not be shared between them, not even in memory, where
// timing would show it.
type packKey struct {
	namespace string
	id        PackID
}

// openPack is a pack that is mapped once for all snapshots of a Store that use it, so that a page is hashed once
// and not once for each restore.
type openPack struct {
	key    packKey
	mapped *pack.Mapped
	refs   int // protected by Store.mu
}

// acquirePack opens a pack or shares an open one. Errors wrap ErrMissingPack, ErrCorrupt or ErrVersion.
func (s *Store) acquirePack(ns namespace, id PackID, pages uint32) (*openPack, error) {
	key := packKey{namespace: ns.name, id: id}
	if p := s.sharePack(key); p != nil {
		return p, nil
	}
	mapped, err := pack.Open(ns.pack(id), id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrMissingPack, err)
	} else if err != nil {
		return nil, fmt.Errorf("open pack: %w", classify(err))
	}
	if mapped.Pages() != pages {
		err := corruptf("pack has %d pages, want %d", mapped.Pages(), pages)
		return nil, errors.Join(err, mapped.Close())
	}
	return s.addPack(&openPack{key: key, mapped: mapped, refs: 1}), nil
}

// sharePack returns the open pack with a reference for the caller, nil if it is not open.
func (s *Store) sharePack(key packKey) *openPack {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.mu.packs[key]
	if p != nil {
		p.refs++
	}
	return p
}

// addPack makes p, with its one reference, the open pack of its key, unless somebody was faster: then it returns
// theirs.
func (s *Store) addPack(p *openPack) *openPack {
	s.mu.Lock()
	other := s.mu.packs[p.key]
	if other == nil {
		s.mu.packs[p.key] = p
	} else {
		other.refs++
	}
	s.mu.Unlock()
	if other == nil {
		return p
	}
	p.mapped.Close() // munmap of a whole mapping does not fail
	return other
}

// releasePack gives back a reference. The last one unmaps the pack, so that the next open checks its pages anew.
func (s *Store) releasePack(p *openPack) {
	s.mu.Lock()
	p.refs--
	last := p.refs == 0
	if last {
		delete(s.mu.packs, p.key)
	}
	s.mu.Unlock()
	if last {
		p.mapped.Close() // munmap of a whole mapping does not fail
	}
}

// retainPack adds a reference to a pack to which the caller has one.
func (s *Store) retainPack(p *openPack) {
	s.mu.Lock()
	p.refs++
	s.mu.Unlock()
}
