package tier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/internal/frame"
)

// heldPack is an open pack, for all who read it.
type heldPack struct {
	pack  *pagestore.HeldPack
	users int         // protected by Shelf.mu
	idle  *time.Timer // closes it; protected by Shelf.mu

	mu    sync.Mutex
	index *frame.Index // nil until the nodes are known; protected by mu
	head  []byte       // of index; protected by mu
}

// layout returns where the frames lie in the raw layout, and what comes before them.
func (h *heldPack) layout() (*frame.Index, []byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.index != nil {
		return h.index, h.head, nil
	}
	nodes, err := h.pack.Nodes()
	if err != nil {
		return nil, nil, err
	}
	if nodes == nil {
		return nil, nil, pagestore.ErrNotLocal
	}
	if h.index, err = frame.Raw(frame.Pack, h.pack.ID, h.pack.Pages, nodes); err != nil {
		return nil, nil, err
	}
	h.head = h.index.Head()
	return h.index, h.head, nil
}

func (s *Shelf) packThing(ctx context.Context, key Key) (*thing, error) {
	h, err := s.usePack(key)
	if err != nil {
		return nil, err
	}
	x, head, err := h.layout()
	if errors.Is(err, pagestore.ErrNotLocal) && s.bring(ctx, key) {
		// The nodes come with any frame.
		if err = h.pack.Bring(ctx, 0, 1, pagestore.Ahead); err == nil {
			x, head, err = h.layout()
		}
	}
	if err != nil {
		s.leavePack(key, h)
		return nil, err
	}
	return &thing{
		size:  x.Size(),
		close: func() { s.leavePack(key, h) },
		open: func(ctx context.Context, off, n int64) (io.Reader, error) {
			r := &packReader{held: h.pack, index: x, head: head, off: off, end: off + n}
			if err := r.check(ctx, s.bring(ctx, key)); err != nil {
				return nil, err
			}
			return r, nil
		},
	}, nil
}

// bring reports whether this node brings what it does not hold for who asks.
func (s *Shelf) bring(ctx context.Context, key Key) bool {
	return s.opts.Bring != nil && s.opts.Bring(ctx, key)
}

// usePack opens a pack, or shares an open one.
func (s *Shelf) usePack(key Key) (*heldPack, error) {
	s.mu.Lock()
	h := s.sharePackLocked(key)
	s.mu.Unlock()
	if h != nil {
		return h, nil
	}
	held, err := s.store.HeldPack(key.Namespace, key.Digest)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.sharePackLocked(key); h != nil { // somebody was faster
		return h, held.Close()
	}
	h = &heldPack{pack: held, users: 1}
	s.packs[key] = h
	return h, nil
}

// sharePackLocked returns the open pack with one more user; nil if there is none, or if it was evicted: it is left to its users then.
func (s *Shelf) sharePackLocked(key Key) *heldPack {
	h := s.packs[key]
	switch {
	case h == nil:
		return nil
	case !h.pack.Evicted():
		h.users++
		return h
	case h.users == 0:
		s.closePackLocked(key, h)
	default:
		delete(s.packs, key)
	}
	return nil
}

// leavePack undoes usePack. The last one leaves the pack open for a while.
func (s *Shelf) leavePack(key Key, h *heldPack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.users--; h.users > 0 {
		return
	}
	if s.closed || s.packs[key] != h {
		s.closePackLocked(key, h)
		return
	}
	if h.idle == nil {
		h.idle = time.AfterFunc(packPatience, func() { s.closeIdlePack(key, h) })
	} else {
		h.idle.Reset(packPatience)
	}
}

func (s *Shelf) closeIdlePack(key Key, h *heldPack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.users == 0 && s.packs[key] == h {
		s.closePackLocked(key, h)
	}
}

func (s *Shelf) closePackLocked(key Key, h *heldPack) {
	if h.idle != nil {
		h.idle.Stop()
	}
	if s.packs[key] == h {
		delete(s.packs, key)
	}
	h.pack.Close() // it does not fail
}

// packReader reads bytes [off, end) of the object of a pack.
type packReader struct {
	held     *pagestore.HeldPack
	index    *frame.Index
	head     []byte
	off, end int64
	cut      bool // it was to go on, and the frame at end is not here

	buf   []byte // the frame in it is number
	frame []byte
	at    int64 // where frame begins in the object
}

// frames returns which frames the reader needs: [first, last].
func (r *packReader) frames() (first, last int, any bool) {
	if r.off >= r.end || r.end <= r.index.HeadSize() {
		return 0, 0, false
	}
	return r.number(max(r.off, r.index.HeadSize())), r.number(r.end - 1), true
}

// number returns the frame in which a byte behind the head lies.
func (r *packReader) number(off int64) int {
	return int((off - r.index.HeadSize()) / (frame.PackPages * pagestore.PageSize))
}

// check returns an error unless what the reader begins with is here, and has it end before the first frame that is not. It may bring what is missing: all of it.
func (r *packReader) check(ctx context.Context, bring bool) error {
	first, last, any := r.frames()
	if !any {
		return nil
	}
	for i := first; i <= last; i++ {
		if r.held.Holds(i) {
			continue
		}
		if !bring && r.off >= r.index.Offset(i) {
			return fmt.Errorf("%w: frame %d is not here", blob.ErrNotFound, i)
		}
		if !bring {
			r.end, r.cut = r.index.Offset(i), true
			return nil
		}
		if err := r.held.Bring(ctx, i, last-i+1, pagestore.Ahead); err != nil {
			return fmt.Errorf("bring frame %d for a peer: %w", i, err)
		}
		break
	}
	return nil
}

// Read implements [io.Reader].
func (r *packReader) Read(b []byte) (int, error) {
	switch {
	case r.off < r.end:
	case r.cut:
		return 0, fmt.Errorf("%w: the frame from byte %d on is not here", blob.ErrNotFound, r.end)
	default:
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), r.end-r.off)]
	if r.off < int64(len(r.head)) {
		n := copy(b, r.head[r.off:])
		r.off += int64(n)
		return n, nil
	}
	if r.frame == nil || r.off >= r.at+int64(len(r.frame)) {
		if r.buf == nil {
			r.buf = make([]byte, frame.PackPages*pagestore.PageSize)
		}
		number := r.number(r.off)
		n, err := r.held.ReadFrame(r.buf, number)
		if err != nil {
			return 0, err
		}
		r.frame, r.at = r.buf[:n], r.index.Offset(number)
	}
	n := copy(b, r.frame[r.off-r.at:])
	r.off += int64(n)
	return n, nil
}
