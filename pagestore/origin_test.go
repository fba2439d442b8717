package pagestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"thaw/pagestore/internal/frame"
)

// storeOrigin is another store, far away: it brings what that one holds.
type storeOrigin struct {
	from *Store

	// before, if not nil, is called with what is about to be fetched; its error is that of the fetch. change, if not nil, gives a frame
	// other content.
	before func(ctx context.Context, p *RemotePack, first, n int, class Class) error
	change func(frame int, content []byte)
	hot    func(ctx context.Context, frame int) error
	// settled, if not nil, is called when the hot pages are in their packs.
	settled func()

	mu      sync.Mutex
	fetched map[string]int // frames, by pack and number; protected by mu
	classes map[Class]int  // calls; protected by mu
	streams int            // protected by mu
}

func newStoreOrigin(from *Store) *storeOrigin {
	return &storeOrigin{from: from, fetched: make(map[string]int), classes: make(map[Class]int)}
}

func (o *storeOrigin) Fetch(ctx context.Context, p *RemotePack, first, n int, class Class) error {
	o.mu.Lock()
	o.classes[class]++
	o.mu.Unlock()
	if o.before != nil {
		if err := o.before(ctx, p, first, n, class); err != nil {
			return err
		}
	}
	h, err := o.from.HeldPack(p.Namespace, p.ID)
	if err != nil {
		return err
	}
	defer h.Close()
	nodes, err := h.Nodes()
	if err != nil {
		return err
	}
	if err := p.SetNodes(nodes); err != nil {
		return err
	}
	buf := make([]byte, framePages*PageSize)
	for i := first; i < first+n; i++ {
		size, err := h.ReadFrame(buf, i)
		if err != nil {
			return err
		}
		if o.change != nil {
			o.change(i, buf[:size])
		}
		o.mu.Lock()
		o.fetched[fmt.Sprint(p.ID, i)]++
		o.mu.Unlock()
		if err := p.Admit(i, buf[:size]); err != nil {
			return err
		}
	}
	return nil
}

func (o *storeOrigin) FetchHot(ctx context.Context, h *RemoteHot) error {
	o.mu.Lock()
	o.streams++
	o.mu.Unlock()
	if o.settled != nil {
		h.WhenSettled(o.settled)
	}
	snap, err := o.from.Snapshot(h.Snapshot)
	if err != nil {
		return err
	}
	defer snap.Close()
	content, err := hotPages(snap)
	if err != nil {
		return err
	}
	if err := h.SetNodes(frame.Nodes(frame.Hot, frame.Digests(nil, content))); err != nil {
		return err
	}
	for i := range h.Frames() {
		if o.hot != nil {
			if err := o.hot(ctx, i); err != nil {
				return err
			}
		}
		n := min(len(content), frame.HotPages*PageSize)
		if err := h.Admit(i, content[:n]); err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

func (o *storeOrigin) frames() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, times := range o.fetched {
		n += times
	}
	return n
}

// hotPages returns the pages of a snapshot's hot order.
func hotPages(snap *Snapshot) (content []byte, err error) {
	runs, _, err := snap.HotOrder()
	if err != nil {
		return nil, err
	}
	im, err := snap.Image()
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		for page, left := r.Image, r.Pages; left > 0; {
			data, n, err := im.Load(page, int(left))
			if err != nil {
				return nil, err
			}
			content = append(content, data...)
			page, left = page+uint64(n), left-uint64(n)
		}
	}
	return content, nil
}

// adoption returns what a snapshot of a store is made of, for another store.
func adoption(t *testing.T, from *Store, name string) Adoption {
	t.Helper()
	snap := mustOpen(t, from, name)
	files, err := snap.Files()
	if err != nil {
		t.Fatal(err)
	}
	a := Adoption{
		Name: mustName(name), Info: files.Info, Manifest: files.Manifest, Hint: files.Hint, HotOrder: files.HotOrder,
		Skeleton: func(dir string) error { return os.CopyFS(dir, os.DirFS(snap.SkeletonDir())) },
		Remote:   Remote{Descriptor: []byte("from afar")},
	}
	packs, err := snap.Packs()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		h, err := from.HeldPack(snap.Name().Namespace, p.ID)
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := h.Nodes()
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
		p.Root = frame.Root(nodes)
		a.Remote.Packs = append(a.Remote.Packs, p)
	}
	if len(files.HotOrder) > 0 {
		content, err := hotPages(snap)
		if err != nil {
			t.Fatal(err)
		}
		a.Remote.Hot = &RemoteHotRoot{
			Pages: uint32(len(content) / PageSize), Root: frame.Root(frame.Nodes(frame.Hot, frame.Digests(nil, content))),
		}
	}
	return a
}

// mustAdopt makes the snapshot of one store a stub in another.
func mustAdopt(t *testing.T, s, from *Store, name string) {
	t.Helper()
	if err := s.Adopt(t.Context(), adoption(t, from, name)); err != nil {
		t.Fatal(err)
	}
}

// newStub returns a store with the snapshot "a" as a stub, and its origin, where that is whole.
func newStub(t *testing.T, m memory, opts Options) (*Store, *storeOrigin) {
	t.Helper()
	far := newStore(t)
	mustImport(t, far, "a", m)
	o := newStoreOrigin(far)
	s := emptyStore(t, t.TempDir(), o, opts)
	mustAdopt(t, s, far, "a")
	return s, o
}

func emptyStore(t *testing.T, dir string, o Origin, opts Options) *Store {
	t.Helper()
	dir = filepath.Join(dir, "store")
	made, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	opts.Origin = o
	if opts.packPages == 0 {
		opts.packPages = 64
	}
	return openStore(t, dir, &opts)
}

// stubMemory is several small packs, with zeros and repeats between.
func stubMemory() memory {
	m := append(seeds(1, 150), make(memory, 40)...)
	m = append(m, seeds(500, 100)...)
	return append(m, seeds(20, 30)...)
}

func mustLocal(t *testing.T, s *Store, name string) Local {
	t.Helper()
	l, err := mustOpen(t, s, name).Local()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAStubServesWhatTheOriginalHas(t *testing.T) {
	s, o := newStub(t, stubMemory(), Options{})
	if l := mustLocal(t, s, "a"); l.LocalPages != 0 || l.StoredPages != 250 {
		t.Errorf("before: %d of %d pages are here", l.LocalPages, l.StoredPages)
	}
	if err := checkImage(s, "a", stubMemory()); err != nil {
		t.Fatal(err)
	}
	s.running.Wait()
	l := mustLocal(t, s, "a")
	if l.LocalPages != 250 {
		t.Errorf("after: %d of %d pages are here", l.LocalPages, l.StoredPages)
	}
	for _, p := range l.Packs {
		if !p.Complete {
			t.Errorf("pack %s is not complete", p.ID)
		}
	}
	for key, n := range o.fetched {
		if n != 1 {
			t.Errorf("frame %s was fetched %d times", key, n)
		}
	}
	// What is here is here for ever: without the origin, with another Store.
	other := openStore(t, s.Dir(), nil)
	if err := errors.Join(checkImage(other, "a", stubMemory()), checkVerify(t, other)); err != nil {
		t.Error(err)
	}
	if ids, err := s.namespace("default").listPartial(); err != nil || len(ids) > 0 {
		t.Errorf("partial packs are left: %v, %v", ids, err)
	}
}

func TestMissingPagesAreNotReadyAndNotToBeMapped(t *testing.T) {
	s, _ := newStub(t, seeds(1, 64), Options{})
	im := mustImage(t, s, "a")
	for page := range uint64(64) {
		if _, n := im.Ready(page, 64); n != 0 {
			t.Fatalf("page %d is ready before anybody brought it", page)
		}
		if n := im.StoredIntact(page, 64); n != 0 {
			t.Fatalf("page %d is intact before anybody brought it", page)
		}
	}
	stored, zeros, err := im.Stored(3, 10)
	if err != nil || zeros != 0 || stored.File != "" || stored.Pages != 10 || im.StoredCached(3, 10) != 0 {
		t.Errorf("Stored says %+v, %d zeros, %v", stored, zeros, err)
	}
	// A fault brings the frame that it needs, and no more.
	data, n, err := im.Load(40, 1)
	if err != nil || n != 1 || string(data) != string(pageOf(41)) {
		t.Fatalf("Load: %d pages, %v", n, err)
	}
	if _, n := im.Ready(32, 64); n != 32 {
		t.Errorf("%d pages of the frame are ready, want 32", n)
	}
	if _, n := im.Ready(0, 64); n != 0 {
		t.Errorf("%d pages of another frame are ready", n)
	}
	if stored, _, err := im.Stored(40, 4); err != nil || stored.File != "" || stored.Pages != 4 {
		t.Errorf("Stored of pages that are here, in a pack that is not: %+v, %v", stored, err)
	}
	if l := mustLocal(t, s, "a"); l.LocalPages != 32 || l.Packs[0].Complete {
		t.Errorf("local: %+v", l)
	}
}

func TestAFaultWaitsForItsFrameAloneAndAStreamForAll(t *testing.T) {
	s, o := newStub(t, seeds(1, 64), Options{})
	im := mustImage(t, s, "a")
	if _, n, err := im.Load(20, 44); err != nil || n != 12 {
		t.Errorf("a fault's Load: %d pages, %v; want those to the end of the frame", n, err)
	}
	if o.frames() != 1 || o.classes[Demand] != 1 {
		t.Errorf("%d frames were fetched, in classes %v", o.frames(), o.classes)
	}
	s, o = newStub(t, seeds(1, 64), Options{})
	im = mustImage(t, s, "a")
	if _, n, err := im.Load(0, 65); err != nil || n != 64 {
		t.Errorf("a stream's Load: %d pages, %v", n, err)
	}
	if o.frames() != 2 || o.classes[Ahead] != 1 {
		t.Errorf("%d frames were fetched, in classes %v", o.frames(), o.classes)
	}
}

func TestWithoutAnOriginPagesAreNotLocal(t *testing.T) {
	far := newStore(t)
	mustImport(t, far, "a", seeds(1, 64))
	s := emptyStore(t, t.TempDir(), nil, Options{})
	mustAdopt(t, s, far, "a")
	im := mustImage(t, s, "a")
	_, n, err := im.Load(5, 1)
	if page := new(PageError); n != 0 || !errors.Is(err, ErrNotLocal) || !errors.As(err, &page) || page.Image != 5 {
		t.Errorf("Load: %d pages, %v", n, err)
	}
	if err := im.Mirror(t.Context()); !errors.Is(err, ErrNotLocal) {
		t.Errorf("Mirror: %v", err)
	}
	if err := checkVerify(t, s); err != nil {
		t.Errorf("a stub without pages is sound: %v", err)
	}
}

func TestWrongBytesAreNotLetIn(t *testing.T) {
	s, o := newStub(t, seeds(1, 64), Options{})
	o.change = func(frame int, content []byte) { content[len(content)-1] ^= 1 }
	im := mustImage(t, s, "a")
	for range 2 {
		if _, n, err := im.Load(1, 1); n != 0 || !errors.Is(err, ErrWrongBytes) {
			t.Fatalf("Load: %d pages, %v", n, err)
		}
	}
	if l := mustLocal(t, s, "a"); l.LocalPages != 0 {
		t.Errorf("%d pages were let in", l.LocalPages)
	}
	o.change = nil
	if err := checkImage(s, "a", seeds(1, 64)); err != nil {
		t.Error(err)
	}
}

// TestAWrongRootEndsWithThePack adopts a snapshot whose root is that of other pages: all that comes agrees with it, until the pack is whole.
func TestAWrongRootEndsWithThePack(t *testing.T) {
	far := newStore(t)
	mustImport(t, far, "a", seeds(1, 64))
	forged := make([]byte, 0, 64*PageSize)
	for i := range 64 {
		forged = append(forged, pageOf(uint64(1000+i))...)
	}
	nodes := frame.Nodes(frame.Pack, frame.Digests(nil, forged))
	a := adoption(t, far, "a")
	a.Remote.Packs[0].Root = frame.Root(nodes)
	o := &forger{nodes: nodes, pages: forged}
	s := emptyStore(t, t.TempDir(), o, Options{})
	if err := s.Adopt(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	im := mustImage(t, s, "a")
	if err := im.Bring(t.Context(), 0, 64, Mirror); err != nil {
		t.Fatal(err)
	}
	s.running.Wait()
	if _, n := im.Ready(0, 1); n != 0 {
		t.Error("pages of a pack that is not what it is called are ready")
	}
	if _, n, err := im.Load(0, 1); n != 0 || !errors.Is(err, ErrWrongBytes) {
		t.Errorf("Load: %d pages, %v", n, err)
	}
	if packs := packList(t, s); len(packs) > 0 {
		t.Errorf("packs: %v", packs)
	}
	if ids, err := s.namespace("default").listPartial(); err != nil || len(ids) > 0 {
		t.Errorf("partial packs are left: %v, %v", ids, err)
	}
}

// forger brings pages of its own.
type forger struct{ nodes, pages []byte }

func (f *forger) Fetch(_ context.Context, p *RemotePack, first, n int, _ Class) error {
	if err := p.SetNodes(f.nodes); err != nil {
		return err
	}
	for i := first; i < first+n; i++ {
		if err := p.Admit(i, f.pages[i*framePages*PageSize:][:framePages*PageSize]); err != nil {
			return err
		}
	}
	return nil
}

func (f *forger) FetchHot(context.Context, *RemoteHot) error { return errors.New("nothing hot here") }

func TestNodesOfAnotherRootAreRefused(t *testing.T) {
	s, o := newStub(t, seeds(1, 64), Options{})
	o.before = func(_ context.Context, p *RemotePack, _, _ int, _ Class) error {
		return p.SetNodes(make([]byte, 64))
	}
	if _, _, err := mustImage(t, s, "a").Load(0, 1); !errors.Is(err, ErrWrongBytes) {
		t.Errorf("Load: %v", err)
	}
}

func TestAWaitForTheOriginEndsWithSnapshotAndStore(t *testing.T) {
	for _, what := range []string{"snapshot", "store"} {
		t.Run(what, func(t *testing.T) {
			s, o := newStub(t, seeds(1, 64), Options{})
			asked := make(chan struct{})
			o.before = func(ctx context.Context, _ *RemotePack, _, _ int, _ Class) error {
				close(asked)
				<-ctx.Done()
				return ctx.Err()
			}
			snap := mustOpen(t, s, "a")
			im, err := snap.Image()
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 1)
			go func() {
				_, _, err := im.Load(0, 1)
				failed <- err
			}()
			<-asked
			if what == "snapshot" {
				err = snap.Close()
			} else {
				err = s.Close()
			}
			if err != nil {
				t.Error(err)
			}
			if err := <-failed; !errors.Is(err, ErrClosed) {
				t.Errorf("Load: %v, want %v", err, ErrClosed)
			}
		})
	}
}

// TestManyReadersAndTwoStoresAtTheSameTime has goroutines read an image in all ways, through two Stores on one folder.
func TestManyReadersAndTwoStoresAtTheSameTime(t *testing.T) {
	m := stubMemory()
	s, o := newStub(t, m, Options{})
	other := openStore(t, s.Dir(), &Options{Origin: o})
	var wg sync.WaitGroup
	for i := range 8 {
		store := []*Store{s, other}[i%2]
		wg.Go(func() {
			im, close := openImage(t, store)
			defer close()
			im.Prefetch(uint64(i*30), 60)
			for k := range len(m) {
				page := (k*37 + i*61) % len(m)
				data, n, err := im.Load(uint64(page), 1+k%70)
				if err == nil {
					err = samePages(orZeros(data, n), m[page:page+n])
				}
				if err != nil {
					t.Errorf("page %d: %v", page, err)
					return
				}
			}
		})
	}
	wg.Wait()
	s.running.Wait()
	other.running.Wait()
	if l := mustLocal(t, s, "a"); l.LocalPages != l.StoredPages {
		t.Errorf("%d of %d pages are here", l.LocalPages, l.StoredPages)
	}
	if err := errors.Join(checkImage(openStore(t, s.Dir(), nil), "a", m), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
}

func orZeros(data []byte, n int) []byte {
	if data == nil {
		return make([]byte, n*PageSize)
	}
	return data
}

func openImage(t *testing.T, s *Store) (*Image, func()) {
	snap, err := s.Snapshot(mustName("a"))
	if err != nil {
		t.Error(err)
		return nil, func() {}
	}
	im, err := snap.Image()
	if err != nil {
		t.Error(err)
	}
	return im, func() { snap.Close() }
}

func TestHotPagesComeInOneStreamAndAreWaitedFor(t *testing.T) {
	far := newStore(t)
	m := seeds(1, 200)
	mustImport(t, far, "a", m)
	order := []PageRun{{150, 50}, {10, 60}, {0, 3}}
	if err := setWorkingSet(t.Context(), far, "a", WorkingSet{Hint: []byte("hint"), Order: order}); err != nil {
		t.Fatal(err)
	}
	o := newStoreOrigin(far)
	arrive := make(chan struct{})
	o.hot = func(ctx context.Context, frame int) error {
		if frame == 0 {
			return nil
		}
		select {
		case <-arrive:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s := emptyStore(t, t.TempDir(), o, Options{hotPatience: time.Hour})
	mustAdopt(t, s, far, "a")
	if hint, err := mustOpen(t, s, "a").WorkingSet(); err != nil || string(hint) != "hint" {
		t.Errorf("hint is %q, %v", hint, err)
	}
	im, second := mustImage(t, s, "a"), mustImage(t, s, "a")
	im.PrefetchHot()
	second.PrefetchHot()
	// Page 160 comes with the stream, whenever that is.
	if data, _, err := im.Load(160, 1); err != nil || string(data) != string(pageOf(161)) {
		t.Errorf("a page of the stream: %v", err)
	}
	// Page 120 does not, and page 69 does not for long enough.
	s.opts.hotPatience = time.Millisecond
	for _, page := range []uint64{120, 69} {
		if data, _, err := im.Load(page, 1); err != nil || string(data) != string(pageOf(page+1)) {
			t.Errorf("page %d: %v", page, err)
		}
	}
	if o.classes[Demand] != 2 {
		t.Errorf("calls by class: %v; want 2 for pages that are waited for", o.classes)
	}
	close(arrive)
	if err := im.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o.streams != 1 {
		t.Errorf("%d streams for two images of one snapshot", o.streams)
	}
	for _, r := range order {
		for page := r.Image; page < r.Image+r.Pages; page++ {
			if _, n := im.Ready(page, 1); n != 1 {
				t.Fatalf("hot page %d is not ready", page)
			}
		}
	}
	// Nothing is asked for that is here.
	if err := second.Warm(t.Context()); err != nil || o.streams != 1 {
		t.Errorf("%d streams, %v", o.streams, err)
	}
	if err := errors.Join(checkImage(s, "a", m), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
}

func TestAHotStreamThatFailsCostsNothing(t *testing.T) {
	far := newStore(t)
	mustImport(t, far, "a", seeds(1, 100))
	if err := setWorkingSet(t.Context(), far, "a", WorkingSet{Order: []PageRun{{0, 80}}}); err != nil {
		t.Fatal(err)
	}
	o := newStoreOrigin(far)
	broken := errors.New("broken")
	o.hot = func(context.Context, int) error { return broken }
	s := emptyStore(t, t.TempDir(), o, Options{})
	mustAdopt(t, s, far, "a")
	im := mustImage(t, s, "a")
	if err := im.Warm(t.Context()); !errors.Is(err, broken) {
		t.Errorf("Warm: %v", err)
	}
	if err := checkImage(s, "a", seeds(1, 100)); err != nil {
		t.Error(err)
	}
	o.hot = nil
	if err := im.Warm(t.Context()); err != nil || o.streams != 1 {
		t.Errorf("Warm with all pages here: %d streams, %v", o.streams, err)
	}
}

func TestMirrorMakesOrdinaryPacks(t *testing.T) {
	s, o := newStub(t, stubMemory(), Options{})
	im := mustImage(t, s, "a")
	if err := im.Mirror(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.running.Wait()
	if o.classes[Mirror] == 0 || len(o.classes) != 1 {
		t.Errorf("calls by class: %v", o.classes)
	}
	stored, _, err := im.Stored(0, 64)
	if err != nil || stored.File == "" {
		t.Errorf("Stored: %+v, %v", stored, err)
	}
	if _, err := os.Stat(stored.File); err != nil {
		t.Error(err)
	}
	// The pack serves new snapshots, too.
	if report := mustImport(t, s, "b", stubMemory()); report.NewPages != 0 {
		t.Errorf("import of the same: %d new pages", report.NewPages)
	}
}

func TestAStubCanBeGivenAWorkingSet(t *testing.T) {
	s, _ := newStub(t, stubMemory(), Options{})
	if err := setWorkingSet(t.Context(), s, "a", WorkingSet{Order: []PageRun{{100, 120}}}); err != nil {
		t.Fatal(err)
	}
	im := mustImage(t, s, "a")
	im.PrefetchHot()
	s.hotPrefetcher.finish()
	if err := errors.Join(checkImage(s, "a", stubMemory()), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
	if _, err := im.Hot(); err != nil {
		t.Errorf("the copy is not used: %v", err)
	}
}

func TestAdoptRefusesWhatDoesNotFitTogether(t *testing.T) {
	far := newStore(t)
	in := seeds(1, 100).input()
	in.Skeleton = func(dir string) error { return os.WriteFile(filepath.Join(dir, "core"), []byte("core"), 0o600) }
	if _, err := far.Import(t.Context(), mustName("a"), in, nil); err != nil {
		t.Fatal(err)
	}
	if err := setWorkingSet(t.Context(), far, "a", WorkingSet{Order: []PageRun{{0, 10}}}); err != nil {
		t.Fatal(err)
	}
	s := emptyStore(t, t.TempDir(), nil, Options{})
	for _, c := range []struct {
		what   string
		change func(a *Adoption)
		want   error
	}{
		{"another manifest", func(a *Adoption) { a.Manifest = append([]byte{}, a.Manifest[:len(a.Manifest)-1]...) }, ErrCorrupt},
		{"no info", func(a *Adoption) { a.Info = nil }, ErrCorrupt},
		{"a pack without a root", func(a *Adoption) { a.Remote.Packs = a.Remote.Packs[1:] }, ErrCorrupt},
		{"a pack of another size", func(a *Adoption) { a.Remote.Packs[0].Pages++ }, ErrCorrupt},
		{"no skeleton", func(a *Adoption) { a.Skeleton = nil }, ErrCorrupt},
		{"a skeleton file more", func(a *Adoption) {
			fill := a.Skeleton
			a.Skeleton = func(dir string) error {
				return errors.Join(fill(dir), os.WriteFile(filepath.Join(dir, "more"), nil, 0o600))
			}
		}, ErrCorrupt},
		{"another skeleton file", func(a *Adoption) {
			a.Skeleton = func(dir string) error { return os.WriteFile(filepath.Join(dir, "core"), []byte("c0re"), 0o600) }
		}, ErrCorrupt},
		{"hot pages without their order", func(a *Adoption) { a.HotOrder = nil }, ErrInput},
		{"another number of hot pages", func(a *Adoption) { a.Remote.Hot.Pages++ }, ErrCorrupt},
		{"an order of another snapshot", func(a *Adoption) { a.HotOrder[30] ^= 1 }, ErrCorrupt},
		{"a bad name", func(a *Adoption) { a.Name.Snapshot = "../a" }, ErrName},
	} {
		a := adoption(t, far, "a")
		c.change(&a)
		if err := s.Adopt(t.Context(), a); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if entries, err := s.List(); err != nil || len(entries) > 0 {
			t.Fatalf("%s: %v, %v", c.what, entries, err)
		}
		if names, err := s.Namespaces(); err == nil && len(names) > 0 {
			checkNoLeftovers(t, s)
		}
	}
	a := adoption(t, far, "a")
	a.Name = mustName("other/b")
	if err := s.Adopt(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if entries, err := s.List(); err != nil || len(entries) != 1 || !entries[0].Stub || entries[0].Name != a.Name {
		t.Errorf("list: %+v, %v", entries, err)
	}
	if err := s.Adopt(t.Context(), a); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v", err)
	}
	if r := mustOpen(t, s, "other/b").Remote(); r == nil || string(r.Descriptor) != "from afar" {
		t.Errorf("remote: %+v", r)
	}
}

// TestWhatDoesNotComeWithTheHotPagesIsAskedForAtOnce has hot pages that do not arrive: what lies beside them is brought all the same, in one go where no frame
// lies between, and what lies between hot pages is never asked for.
func TestWhatDoesNotComeWithTheHotPagesIsAskedForAtOnce(t *testing.T) {
	far := openStore(t, newStore(t).Dir(), &Options{packPages: 512}) // one pack
	m := seeds(1, 400)
	mustImport(t, far, "a", m)
	// In the frames 5 and 7.
	if err := setWorkingSet(t.Context(), far, "a", WorkingSet{Order: []PageRun{{160, 10}, {230, 5}}}); err != nil {
		t.Fatal(err)
	}
	o := newStoreOrigin(far)
	arrive := make(chan struct{})
	o.hot = func(ctx context.Context, _ int) error {
		select {
		case <-arrive:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s := emptyStore(t, t.TempDir(), o, Options{hotPatience: time.Hour})
	mustAdopt(t, s, far, "a")
	im := mustImage(t, s, "a")
	im.PrefetchHot()
	here := make(chan int, 100)
	o.before = func(_ context.Context, _ *RemotePack, first, n int, class Class) error {
		if class != Ahead {
			t.Errorf("frames %d+%d come in class %v", first, n, class)
		}
		for i := range n {
			here <- first + i
		}
		return nil
	}
	// The hot ones, and frames 0, 1 and 9.
	im.PrefetchRuns([]PageRun{{0, 10}, {40, 10}, {160, 10}, {230, 5}, {300, 10}})
	var came []int
	for range 3 {
		came = append(came, <-here)
	}
	slices.Sort(came)
	if !slices.Equal(came, []int{0, 1, 9}) {
		t.Errorf("frames %v come before the hot pages, want 0, 1 and 9", came)
	}
	if calls := o.calls(Ahead); calls != 2 {
		t.Errorf("%d calls for two frames that follow each other and one that lies apart", calls)
	}
	close(arrive)
	if err := im.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.remotePrefetcher.finish()
	if calls := o.calls(Ahead); calls != 2 {
		t.Errorf("%d calls, of which the hot pages needed none", calls)
	}
}

func (o *storeOrigin) calls(class Class) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.classes[class]
}
