package pagestore

import (
	"context"
	"testing"

	"thaw/pagestore/internal/frame"
)

// liar is an origin that brings pages of its own for one snapshot, all of which agree with what that snapshot says of them, and the true
// ones for others.
type liar struct {
	*storeOrigin
	evil   Name
	root   Digest // of the packs that it has made up; zero: none
	forged []byte // pages
}

func (l *liar) Fetch(ctx context.Context, p *RemotePack, first, n int, class Class) error {
	if p.Root != l.root {
		return l.storeOrigin.Fetch(ctx, p, first, n, class)
	}
	f := &forger{nodes: frame.Nodes(frame.Pack, frame.Digests(nil, l.forged)), pages: l.forged}
	return f.Fetch(ctx, p, first, n, class)
}

func (l *liar) FetchHot(ctx context.Context, h *RemoteHot) error {
	if h.Snapshot != l.evil {
		return l.storeOrigin.FetchHot(ctx, h)
	}
	if err := h.SetNodes(frame.Nodes(frame.Hot, frame.Digests(nil, l.forged))); err != nil {
		return err
	}
	return h.Admit(0, l.forged)
}

func TestASnapshotWithAWrongRootSpoilsNoOther(t *testing.T) {
	far := newStore(t)
	mustImport(t, far, "a", seeds(1, 64))
	l := &liar{storeOrigin: newStoreOrigin(far), evil: mustName("evil"), forged: pagesOf(seeds(1000, 64))}
	l.root = frame.Root(frame.Nodes(frame.Pack, frame.Digests(nil, l.forged)))
	s := emptyStore(t, t.TempDir(), l, Options{})
	evil := adoption(t, far, "a")
	evil.Name, evil.Remote.Packs[0].Root = l.evil, l.root
	if err := s.Adopt(t.Context(), evil); err != nil {
		t.Fatal(err)
	}
	bring(t, s, "evil", 0, 32) // so that the wrong root does not show yet
	held := mustImage(t, s, "evil")
	mustAdopt(t, s, far, "a")
	good := mustImage(t, s, "a") // beside the other
	if _, n := good.Ready(0, 64); n != 0 {
		t.Errorf("%d pages of the other are ready", n)
	}
	if data, n, err := good.Load(0, 1); err != nil || n != 1 || string(data) != string(pageOf(1)) {
		t.Errorf("Load: %d pages, which may be others, %v", n, err)
	}
	if err := held.Bring(t.Context(), 0, 64, Mirror); err != nil { // now it shows
		t.Fatal(err)
	}
	s.running.Wait()
	if err := checkImage(s, "a", seeds(1, 64)); err != nil {
		t.Error(err)
	}
	s.running.Wait()
	if l := mustLocal(t, s, "a"); !l.Packs[0].Complete {
		t.Errorf("local: %+v", l)
	}
	if _, n := held.Ready(0, 64); n != 0 {
		t.Errorf("%d pages are ready that are not those of the pack", n)
	}
	// Who opens the other anew has the pack that its id names.
	if err := checkImage(s, "evil", seeds(1, 64)); err != nil {
		t.Error(err)
	}
}

func TestASnapshotWithWrongHotPagesSpoilsNoOther(t *testing.T) {
	far := newStore(t)
	mustImport(t, far, "a", seeds(1, 64))
	l := &liar{storeOrigin: newStoreOrigin(far), evil: mustName("evil"), forged: pagesOf(seeds(1000, 8))}
	mustPack(t, far, "a", PageRun{Image: 0, Pages: 8})
	s := emptyStore(t, t.TempDir(), l, Options{})
	evil := adoption(t, far, "a")
	evil.Name, evil.Remote.Hot.Root = l.evil, frame.Root(frame.Nodes(frame.Hot, frame.Digests(nil, l.forged)))
	if err := s.Adopt(t.Context(), evil); err != nil {
		t.Fatal(err)
	}
	if err := mustImage(t, s, "evil").Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := mustLocal(t, s, "evil"); l.LocalPages != 8 {
		t.Errorf("%d pages were brought, want 8", l.LocalPages)
	}
	mustAdopt(t, s, far, "a")
	if err := checkImage(s, "a", seeds(1, 64)); err != nil {
		t.Error(err)
	}
	s.running.Wait()
	if l := mustLocal(t, s, "a"); !l.Packs[0].Complete {
		t.Errorf("local: %+v", l)
	}
}

// TestHotPagesThatArePutElsewhereSpoilNoOther has the hot pages of a good snapshot go to other places, of the same pack.
func TestHotPagesThatArePutElsewhereSpoilNoOther(t *testing.T) {
	far := newStore(t)
	mustImport(t, far, "a", seeds(1, 64))
	mustPack(t, far, "a", PageRun{Image: 0, Pages: 8})
	right := adoption(t, far, "a")
	l := &liar{storeOrigin: newStoreOrigin(far), evil: mustName("evil"), forged: pagesOf(seeds(1, 8))}
	mustPack(t, far, "a", PageRun{Image: 20, Pages: 8})
	s := emptyStore(t, t.TempDir(), l, Options{})
	evil := adoption(t, far, "a")
	evil.Name, evil.Remote.Hot = l.evil, right.Remote.Hot
	if err := s.Adopt(t.Context(), evil); err != nil {
		t.Fatal(err)
	}
	if err := mustImage(t, s, "evil").Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(t.Context(), right); err != nil {
		t.Fatal(err)
	}
	if err := checkImage(s, "a", seeds(1, 64)); err != nil {
		t.Error(err)
	}
}

func pagesOf(m memory) (content []byte) {
	for _, seed := range m {
		content = append(content, pageOf(seed)...)
	}
	return content
}

// mustPack gives a snapshot hot pages.
func mustPack(t *testing.T, s *Store, name string, order ...PageRun) {
	t.Helper()
	if err := setWorkingSet(t.Context(), s, name, WorkingSet{Order: order}); err != nil {
		t.Fatal(err)
	}
}
