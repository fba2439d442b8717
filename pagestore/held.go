package pagestore

import (
	"fmt"
	"sync"

	"thaw/pagestore/internal/frame"
)

// HeldPack is a pack as far as it is here, for those who serve it to other machines. It is safe for concurrent use until Close.
type HeldPack struct {
	ID    PackID
	Pages uint32

	store *Store
	pack  *openPack

	once  sync.Once
	nodes []byte // after once
	err   error
}

// HeldPack opens a pack of a namespace, of which pages may be missing; of several that make different claims, the one with most pages. The error wraps [ErrMissingPack] if nothing of it is here.
func (s *Store) HeldPack(namespace string, id PackID) (*HeldPack, error) {
	if err := (Name{Namespace: namespace, Snapshot: "any"}).Validate(); err != nil {
		return nil, err
	}
	ns := s.namespace(namespace)
	var partial *partialPack
	var pages uint32
	name, is, ok, err := ns.fullest(id)
	if err != nil {
		return nil, fmt.Errorf("open pack %s: %w", id, classify(err))
	}
	if ok {
		pages, partial = is.Pages, &partialPack{name, is.Root}
	}
	p, err := s.acquirePack(ns, id, pages, partial)
	if err != nil {
		return nil, err
	}
	return &HeldPack{ID: id, Pages: p.mapped.Pages(), store: s, pack: p}, nil
}

// Close gives the pack back. It may be called once.
func (h *HeldPack) Close() error {
	h.store.releasePack(h.pack)
	return nil
}

// Evicted reports whether the pack's file was deleted since it was opened. What it has stays until Close, but what it brings is gone
// then: who opens the pack anew has what is here now.
func (h *HeldPack) Evicted() bool { return h.pack.evicted() }

// Complete reports whether no page is missing.
func (h *HeldPack) Complete() bool { return !h.pack.partial() }

// Frames returns how many frames the pack has: 32 pages each, but for the last.
func (h *HeldPack) Frames() int { return (int(h.Pages) + framePages - 1) / framePages }

// Nodes returns the nodes of the frames, from which the head of the framed object follows in the raw layout; nil if they are not known
// here. They must not be changed.
func (h *HeldPack) Nodes() ([]byte, error) {
	if h.pack.remote != nil {
		return h.pack.remote.Nodes(), nil
	}
	h.once.Do(func() {
		digests, err := h.pack.mapped.Digests()
		if err != nil {
			h.err = fmt.Errorf("read digests of pack %s: %w", h.ID, classify(err))
			return
		}
		h.nodes = frame.Nodes(frame.Pack, digests)
	})
	return h.nodes, h.err
}

// Holds reports whether all pages of a frame are here.
func (h *HeldPack) Holds(number int) bool {
	return number >= 0 && number < h.Frames() && (!h.pack.partial() || !h.pack.remote.Missing(number))
}

// ReadFrame reads the pages of a frame into b, which has room for 128 KiB, and returns how many bytes they are. The pages are checked
// when they are read for the first time. Errors wrap [ErrNotLocal], [ErrCorrupt] or [ErrRange].
func (h *HeldPack) ReadFrame(b []byte, number int) (n int, err error) {
	if number < 0 || number >= h.Frames() {
		return 0, fmt.Errorf("%w: frame %d of pack %s", ErrRange, number, h.ID)
	}
	if !h.Holds(number) {
		return 0, fmt.Errorf("frame %d of pack %s: %w", number, h.ID, ErrNotLocal)
	}
	page := uint32(number * framePages)
	want := int(min(framePages, h.Pages-page))
	if got, err := h.pack.mapped.Verify(page, want); got < want {
		return 0, fmt.Errorf("page %d of pack %s: %w", int(page)+got, h.ID, classify(err))
	}
	n = want * PageSize
	if err := copyPages(b[:n], h.pack.mapped.Bytes(page, want)); err != nil {
		return 0, fmt.Errorf("read pack %s: %w", h.ID, err)
	}
	return n, nil
}
