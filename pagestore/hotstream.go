package pagestore

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"thaw/pagestore/internal/aside"
	"thaw/pagestore/internal/frame"
	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/pageset"
)

const framePages = frame.PackPages

// hotPatience is how long a Load waits for a page that is to come with the hot pages before it is asked for by itself. Not measured: some
// round trips of a network.
const hotPatience = 50 * time.Millisecond

// RemoteHot is the hot pages of a stub, which come as one framed object (docs/format/frame.md), 64 pages in a frame. It is safe for concurrent
// use.
type RemoteHot struct {
	Snapshot Name
	// Manifest is the digest of the snapshot's manifest, which is the id of the object.
	Manifest Digest
	Pages    uint32
	Root     Digest

	image  *Image
	table  *hot.Table
	stream *hotStream

	settled func() // see WhenSettled

	mu    sync.Mutex
	nodes []byte // nil until they are known; protected by mu
}

// Frames returns how many frames the object has.
func (h *RemoteHot) Frames() int { return (int(h.Pages) + frame.HotPages - 1) / frame.HotPages }

// Nodes returns the nodes of the frames; nil if they are not known. They must not be changed.
func (h *RemoteHot) Nodes() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.nodes
}

// SetNodes makes the nodes known, which it keeps. The error is [ErrWrongBytes] if they do not have the Root.
func (h *RemoteHot) SetNodes(nodes []byte) error {
	if got := frame.Root(nodes); got != h.Root || len(nodes) != h.Frames()*frame.NodeSize {
		return fmt.Errorf("nodes of the hot pages of %s: %w: root is %s, want %s", h.Snapshot, ErrWrongBytes, got, h.Root)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes = nodes
	return nil
}

// WhenSettled has fn called when all pages have come and are in their packs, from where others can have them; not if that fails. It is for
// the origin, before it returns. fn must not wait for the store.
func (h *RemoteHot) WhenSettled(fn func()) { h.settled = fn }

// Missing reports whether pages of a frame are missing.
func (h *RemoteHot) Missing(number int) bool {
	if h.stream.has(uint32(number)) {
		return false
	}
	parts, err := h.parts(number)
	if err != nil {
		return true
	}
	for _, part := range parts {
		p := h.image.packs[part.at.pack]
		if end := part.at.page + uint32(part.at.n); p != nil && p.partial() && p.remote.part.Missing(part.at.page, end) < end {
			return true
		}
	}
	return false
}

// Admit takes the pages of a frame, which are copied. They are checked as those of [RemotePack.Admit]; their images have them from then on, and their packs
// soon.
func (h *RemoteHot) Admit(number int, content []byte) error {
	if err := h.admit(number, content); err != nil {
		return fmt.Errorf("admit frame %d of the hot pages of %s: %w", number, h.Snapshot, err)
	}
	h.stream.note(number)
	return nil
}

func (h *RemoteHot) admit(number int, content []byte) error {
	nodes := h.Nodes()
	if nodes == nil || number < 0 || number >= h.Frames() {
		return errNoNode
	}
	digests, err := checkFrame(content, min(frame.HotPages, int(h.Pages)-number*frame.HotPages), nodes, number)
	if err != nil {
		return err
	}
	if a := h.stream.here.Load(); a != nil && a.put(number, content, digests) == nil {
		return nil
	} // else the disk is full, or will say what is wrong with it
	return h.place(number, content, digests)
}

// parts returns where the pages of a frame belong, in its order.
func (h *RemoteHot) parts(number int) (parts []hotPart, err error) {
	page := uint32(number * frame.HotPages)
	end := min(page+frame.HotPages, h.Pages)
	run := sort.Search(h.table.Runs(), func(i int) bool { _, first := h.table.Run(i); return first > page }) - 1
	for ; page < end; run++ {
		r, first := h.table.Run(run)
		for image := r.Image + uint64(page-first); page < min(first+r.Pages, end); {
			at, err := h.image.locate(image, int(min(first+r.Pages, end)-page))
			if err != nil {
				return nil, err
			}
			if at.zero {
				return nil, corruptf("hot page %d is image page %d, which is zero", page, image)
			}
			parts = append(parts, hotPart{page, at})
			page, image = page+uint32(at.n), image+uint64(at.n)
		}
	}
	return parts, nil
}

// streamKey tells the hot pages of one stub from those of another, also of one of the same name and manifest that has come after it.
type streamKey struct {
	name   Name
	digest Digest // of the manifest
	hot    RemoteHotRoot
}

// hotStream is the hot pages of a stub that are coming in, once for all images of a Store. It is done when they are here, when the origin has
// failed, or when nobody is interested any more, and has ended when what came is in its packs.
type hotStream struct {
	key    streamKey
	table  *hot.Table
	images int // that are interested; protected by Store.mu
	users  int // of here: the images, and who brings and settles; protected by Store.mu
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when nothing comes any more
	err    error         // then: why not all is here
	ended  chan struct{} // closed when what came is in its packs, or cannot be put there

	came pageset.Set              // frames that are here
	here atomic.Pointer[arrivals] // nil: nothing is to come, or it goes to the packs at once

	mu      sync.Mutex
	changed chan struct{} // closed with the next frame; protected by mu
	late    bool          // a page was waited for in vain, and nothing has come since; protected by mu
}

func newStream(key streamKey, t *hot.Table) *hotStream {
	return &hotStream{
		key: key, table: t, users: 1, came: pageset.New(hotFrames(t.Pages())),
		done: make(chan struct{}), ended: make(chan struct{}), changed: make(chan struct{}),
	}
}

// openRemoteHot reads which pages the hot object of a stub has. That there is none of use is no error.
func (im *Image) openRemoteHot(s *Snapshot) {
	if im.remote == nil || im.remote.Hot == nil {
		return
	}
	t, err := s.hotTable()
	if err != nil {
		im.store.opts.Logger.Warn("hot pages of a stub come one by one", "snapshot", im.name.String(), "err", err)
		return
	}
	im.hotTable = t
}

// joinHot has the hot pages of a stub brought, if nobody does that yet, and returns the stream that brings them; nil if there is none.
func (im *Image) joinHot() *hotStream {
	if im.hotTable == nil || im.store.opts.Origin == nil || !im.gate.enter() {
		return nil
	}
	defer im.gate.leave()
	key, s := streamKey{im.name, im.digest, *im.remote.Hot}, im.store
	s.mu.Lock()
	had, st, first := im.stream.Load(), s.mu.streams[key], false
	if had != nil && (had == st || had.succeeded()) {
		s.mu.Unlock()
		return had
	}
	var ctx context.Context
	if st == nil {
		first = true
		st = newStream(key, im.hotTable)
		ctx, st.cancel = context.WithCancelCause(s.ctx)
		s.mu.streams[key] = st
	}
	st.images++
	st.users++
	im.stream.Store(st)
	s.mu.Unlock()
	if had != nil {
		s.leaveStream(had)
	}
	if first && !s.background(func(storeCtx context.Context) { st.run(ctx, storeCtx, s) }) {
		s.doneStream(st, ErrClosed)
		s.endStream(st)
	}
	return st
}

// leaveHot ends the image's interest.
func (im *Image) leaveHot() {
	if st := im.stream.Load(); st != nil {
		im.store.leaveStream(st)
	}
}

func (s *Store) leaveStream(st *hotStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.images--; st.images == 0 && !st.succeeded() {
		st.cancel(ErrClosed)
		s.forgetStreamLocked(st)
	}
	s.leaveArrivalsLocked(st)
}

func (s *Store) forgetStreamLocked(st *hotStream) {
	if s.mu.streams[st.key] == st {
		delete(s.mu.streams, st.key)
	}
}

func (s *Store) leaveArrivalsLocked(st *hotStream) {
	if st.users--; st.users > 0 {
		return
	}
	if a := st.here.Load(); a != nil {
		_ = a.close() // a file without a name
	}
}

// doneStream says that nothing comes any more. Who is interested after an error asks anew.
func (s *Store) doneStream(st *hotStream, err error) {
	st.err = err
	if err != nil {
		s.mu.Lock()
		s.forgetStreamLocked(st)
		s.mu.Unlock()
	}
	close(st.done)
}

// endStream wakes those who wait for packs.
func (s *Store) endStream(st *hotStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetStreamLocked(st)
	s.leaveArrivalsLocked(st)
	close(st.ended)
}

// run brings the pages until ctx ends, and settles those that came until the store is closed. It has a lease of its own: the image that was the first to ask may be closed before
// others are.
func (st *hotStream) run(ctx, storeCtx context.Context, s *Store) {
	defer s.endStream(st)
	h, snap, err := st.open(s)
	if err == nil {
		defer snap.Close()
		err = st.bring(ctx, s, h)
	}
	log := s.opts.Logger.With("snapshot", st.key.name.String())
	if err != nil && ctx.Err() == nil {
		log.Warn("hot pages did not come in one piece: they come one by one", "err", err)
	}
	s.doneStream(st, err)
	if h == nil {
		return
	}
	if a := st.here.Load(); a != nil {
		aside.GiveWay() // a process may have begun to run
		if settleErr := h.settle(storeCtx, a); settleErr != nil {
			if storeCtx.Err() == nil {
				log.Warn("hot pages have come, but will have to come again for the next restore", "err", settleErr)
			}
			return
		}
	}
	if err == nil && h.settled != nil {
		h.settled()
	}
}

// open leases the snapshot.
func (st *hotStream) open(s *Store) (_ *RemoteHot, _ *Snapshot, err error) {
	snap, err := s.Snapshot(st.key.name)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, snap.Close())
		}
	}()
	if snap.Digest() != st.key.digest || snap.remote == nil || snap.remote.Hot == nil || *snap.remote.Hot != st.key.hot {
		return nil, nil, fmt.Errorf("%w: another one has its name now", ErrNotFound)
	}
	im, err := snap.Image()
	if err != nil {
		return nil, nil, err
	}
	return &RemoteHot{
		Snapshot: st.key.name, Manifest: st.key.digest, Pages: st.table.Pages(), Root: st.key.hot.Root, image: im, table: st.table, stream: st,
	}, snap, nil
}

func (st *hotStream) bring(ctx context.Context, s *Store, h *RemoteHot) error {
	missing := false
	for i := range h.Frames() {
		if h.Missing(i) {
			missing = true
		} else {
			st.note(i)
		}
	}
	if !missing {
		return nil
	}
	a, err := newArrivals(h.image.ns.partial(), h.Pages)
	if err != nil {
		s.opts.Logger.Debug("hot pages go to their packs as they come", "snapshot", h.Snapshot.String(), "err", err)
	} else {
		st.here.Store(a)
	}
	return s.opts.Origin.FetchHot(ctx, h)
}

// note says that a frame is here.
func (st *hotStream) note(number int) {
	st.came.Add(uint32(number))
	st.mu.Lock()
	defer st.mu.Unlock()
	st.late = false
	close(st.changed)
	st.changed = make(chan struct{})
}

// has reports whether a frame is here.
func (st *hotStream) has(number uint32) bool { return st.came.Has(number) }

// succeeded reports whether the stream has ended, and all is here.
func (st *hotStream) succeeded() bool {
	select {
	case <-st.done:
		return st.err == nil
	default:
		return false
	}
}

// awaitHot waits for a page of the image that is to come with the hot pages, for a while. It reports whether it was worth the wait.
func (im *Image) awaitHot(ctx context.Context, page uint64) bool {
	st := im.stream.Load()
	if st == nil {
		return false
	}
	at, n := st.table.Find(page)
	if n == 0 {
		return false
	}
	patience := time.NewTimer(im.store.opts.hotPatience)
	defer patience.Stop()
	for {
		st.mu.Lock()
		changed, late := st.changed, st.late
		st.mu.Unlock()
		arrived := st.has(at / frame.HotPages)
		if arrived || late {
			return arrived
		}
		select {
		case <-changed:
		case <-st.done:
			return st.err == nil
		case <-patience.C:
			st.mu.Lock()
			st.late = true
			st.mu.Unlock()
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// awaitPacks waits until hot pages that have come are in their packs. Those that are still to come it does not wait for.
func (im *Image) awaitPacks(ctx context.Context) {
	st := im.stream.Load()
	if st == nil {
		return
	}
	select {
	case <-st.done:
	default:
		return
	}
	select {
	case <-st.ended:
	case <-ctx.Done():
	}
}

// Warm waits until the hot pages of a stub are here, in their packs: those that a restore wants first. Where there are none, or all are here, it does
// nothing. Errors are those of the origin, [ErrClosed], and those of ctx.
func (im *Image) Warm(ctx context.Context) error {
	st := im.joinHot()
	if st == nil {
		if im.hotTable != nil && im.store.opts.Origin == nil {
			return fmt.Errorf("warm %s: %w", im.name, ErrNotLocal)
		}
		return nil
	}
	select {
	case <-st.ended:
		if st.err != nil {
			return fmt.Errorf("warm %s: %w", im.name, classify(st.err))
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("warm %s: %w", im.name, context.Cause(ctx))
	case <-im.ctx.Done():
		return fmt.Errorf("warm %s: %w", im.name, ErrClosed)
	}
}
