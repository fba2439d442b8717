package pagestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"thaw/pagestore/internal/frame"
	"thaw/pagestore/internal/hot"
)

// hotStub returns a stub of 300 pages, 200 of which come with the hot pages, from an origin that brings frame 0 of those at once and the
// others when arrive is closed.
func hotStub(t *testing.T, dir string) (s *Store, o *storeOrigin, m memory, arrive chan struct{}) {
	t.Helper()
	far := newStore(t)
	m = seeds(1, 300)
	mustImport(t, far, "a", m)
	if err := setWorkingSet(t.Context(), far, "a", WorkingSet{Order: []PageRun{{250, 50}, {0, 150}}}); err != nil {
		t.Fatal(err)
	}
	o, arrive = newStoreOrigin(far), make(chan struct{})
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
	s = emptyStore(t, dir, o, Options{})
	mustAdopt(t, s, far, "a")
	return s, o, m, arrive
}

// localAt returns how many pages of "a" are here in packs.
func localAt(t *testing.T, s *Store) uint64 { return mustLocal(t, s, "a").LocalPages }

func TestHotPagesAreUsedBeforeTheirPacksHaveThem(t *testing.T) {
	s, o, m, arrive := hotStub(t, t.TempDir())
	im, second := mustImage(t, s, "a"), mustImage(t, s, "a")
	im.PrefetchHot()
	second.PrefetchHot()
	early, n, err := im.Load(260, 20)
	if err != nil || n != 20 {
		t.Fatalf("%d pages, %v", n, err)
	}
	if data, n := second.Ready(260, 20); n != 20 || !bytes.Equal(data, early) {
		t.Errorf("%d pages are ready for the other image", n)
	}
	if got := localAt(t, s); got != 0 {
		t.Errorf("%d pages are in packs, want none yet", got)
	}
	if n := im.StoredIntact(260, 20); n != 0 {
		t.Errorf("%d pages are said to be in their pack", n)
	}
	close(arrive)
	if err := im.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := localAt(t, s); got != 200 {
		t.Errorf("%d pages are in packs, want 200", got)
	}
	if err := samePages(early, m[260:280]); err != nil {
		t.Errorf("what was returned early: %v", err)
	}
	if len(o.classes) != 0 {
		t.Errorf("pages were asked for one by one: %v", o.classes)
	}
	if err := errors.Join(checkImage(s, "a", m), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
}

func TestWhatCameStaysThoughNobodyIsInterestedAnyMore(t *testing.T) {
	s, _, m, _ := hotStub(t, t.TempDir())
	im, done := openImage(t, s)
	im.PrefetchHot()
	if _, _, err := im.Load(255, 1); err != nil {
		t.Fatal(err)
	}
	st := im.stream.Load()
	done()
	<-st.ended
	if got := localAt(t, s); got != frame.HotPages {
		t.Errorf("%d pages are in packs, want the %d that came", got, frame.HotPages)
	}
	if len(s.mu.streams) != 0 {
		t.Error("a stream is left")
	}
	if err := errors.Join(checkImage(s, "a", m), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
}

func TestAStoreIsClosedBeforeHotPagesAreInTheirPacks(t *testing.T) {
	s, o, m, _ := hotStub(t, t.TempDir())
	im, done := openImage(t, s)
	im.PrefetchHot()
	if _, _, err := im.Load(255, 1); err != nil {
		t.Fatal(err)
	}
	done()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.hot = nil
	again := openStore(t, s.Dir(), &Options{Origin: o})
	if err := errors.Join(checkImage(again, "a", m), checkVerify(t, again)); err != nil {
		t.Error(err)
	}
}

func TestHotPagesOnADiskThatHasNoRoomForThemTwice(t *testing.T) {
	// 200 pages twice are 1.6 MB; the skeleton and tables need some, too.
	s, _, m, arrive := hotStub(t, smallDisk(t, "1200k"))
	close(arrive)
	im := mustImage(t, s, "a")
	if err := im.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	for page := range uint64(len(m)) {
		if data, _, err := im.Load(page, 1); err != nil || !bytes.Equal(data, pageOf(m[page])) {
			t.Fatalf("page %d: %v", page, err)
		}
	}
}

func TestHotPagesOfAStubThatTookItsNameAreNotServed(t *testing.T) {
	s, o, m, arrive := hotStub(t, t.TempDir())
	close(arrive)
	im := mustImage(t, s, "a")
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Fatal(err)
	}
	// The same snapshot, with as many hot pages in another order.
	if err := setWorkingSet(t.Context(), o.from, "a", WorkingSet{Order: []PageRun{{100, 200}}}); err != nil {
		t.Fatal(err)
	}
	mustAdopt(t, s, o.from, "a")
	second := mustImage(t, s, "a")
	if err := im.Warm(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("Warm of the old stub: %v, want %v", err, ErrNotFound)
	}
	if err := second.Warm(t.Context()); err != nil {
		t.Errorf("Warm of the new one: %v", err)
	}
	for page := range uint64(len(m)) {
		for which, im := range []*Image{im, second} {
			if data, _, err := im.Load(page, 1); err != nil || !bytes.Equal(data[:PageSize], pageOf(m[page])) {
				t.Errorf("page %d of stub %d is another one: %v", page, which, err)
			}
		}
	}
}

func TestHotPagesWithoutFilesWithoutNames(t *testing.T) {
	if a, err := newArrivals("/proc", 10); err == nil {
		t.Error("/proc has files without names", a.close())
	}
}

// TestArrivalsAreWhatWasPut compares what is ready with a list of pages.
func TestArrivalsAreWhatWasPut(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		runs, order := randomRuns(rng)
		_, table, err := hot.Encode(Digest{}, 1<<20, runs)
		if err != nil {
			t.Fatal(err)
		}
		a, err := newArrivals(t.TempDir(), table.Pages())
		if err != nil {
			t.Skipf("no files without names here: %v", err)
		}
		want := make(map[uint64]byte)
		for _, f := range rng.Perm(int(hotFrames(table.Pages())))[:rng.IntN(int(hotFrames(table.Pages()))+1)] {
			var content []byte
			for i := f * frame.HotPages; i < min(len(order), (f+1)*frame.HotPages); i++ {
				want[order[i]] = byte(rng.Uint32())
				content = append(content, bytes.Repeat([]byte{want[order[i]]}, PageSize)...)
			}
			if err := a.put(f, content, frame.Digests(nil, content)); err != nil {
				t.Fatal(err)
			}
		}
		for range 200 {
			page, limit := order[rng.IntN(len(order))], rng.IntN(100)
			if rng.IntN(10) == 0 {
				page = rng.Uint64N(1 << 20)
			}
			if err := checkReady(a, table, want, page, limit); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if err := a.close(); err != nil {
			t.Fatal(err)
		}
	}
	var none *arrivals
	if _, n := none.ready(nil, 0, 1); n != 0 {
		t.Error("there is something where nothing is")
	}
}

// randomRuns returns runs that do not overlap, and their pages in order.
func randomRuns(rng *rand.Rand) (runs []hot.Run, order []uint64) {
	for _, i := range rng.Perm(40) {
		r := hot.Run{Image: uint64(i) * 1000, Pages: 1 + rng.Uint32N(90)}
		runs = append(runs, r)
		for page := r.Image; page < r.Image+uint64(r.Pages); page++ {
			order = append(order, page)
		}
	}
	return runs, order
}

func checkReady(a *arrivals, table *hot.Table, want map[uint64]byte, page uint64, limit int) error {
	data, n := a.ready(table, page, limit)
	if _, there := want[page]; there != (n > 0) || n > max(limit, 1) || len(data) != n*PageSize {
		return fmt.Errorf("page %d, limit %d: %d pages of %d bytes, there: %v", page, limit, n, len(data), there)
	}
	for i := range n {
		letter, there := want[page+uint64(i)]
		if got := data[i*PageSize:][:PageSize]; !there || !bytes.Equal(got, bytes.Repeat([]byte{letter}, PageSize)) {
			return fmt.Errorf("page %d+%d is %#x, want %#x, %v", page, i, got[0], letter, there)
		}
	}
	return nil
}

func TestWhoAsksIsToldWhenHotPagesAreInTheirPacks(t *testing.T) {
	s, o, _, arrive := hotStub(t, t.TempDir())
	told := make(chan uint64, 1)
	o.settled = func() { told <- localAt(t, s) }
	im := mustImage(t, s, "a")
	close(arrive)
	if err := im.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-told; got != 200 {
		t.Errorf("told with %d pages in packs, want 200", got)
	}
}
