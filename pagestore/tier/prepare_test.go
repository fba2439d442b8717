package tier

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// offerFor returns the offer of a snapshot that a shelf has; nil if it has none.
func (s *Shelf) offerFor(snapshot string) *offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offers[nameOf(snapshot)]
}

// readAll reads all that a snapshot is, but for its packs, as a peer does.
func readAll(t *testing.T, s *Shelf, snapshot string) {
	t.Helper()
	f, err := Resolve(t.Context(), []Place{{Reader: s}}, nameOf(snapshot), nil)
	if err != nil {
		t.Error(err)
		return
	}
	for _, key := range f.Descriptor.keys("ns") {
		if key.Kind == KindPack {
			continue
		}
		if _, err := blobtest.Read(t.Context(), s, key.String(), 0, -1); err != nil {
			t.Error(err)
		}
	}
}

func (n *node) mustPrepare(s *Shelf, snapshot string, used time.Time) {
	n.t.Helper()
	if err := s.Prepare(n.t.Context(), nameOf(snapshot), used); err != nil {
		n.t.Fatal(err)
	}
}

// checkEmpty makes sure that nothing is left of what a shelf has made.
func checkEmpty(t *testing.T, s *Shelf) {
	t.Helper()
	if st := s.Stats(); st.Prepared != 0 || st.Bytes != 0 {
		t.Errorf("there is still something: %+v", st)
	}
}

func TestWhatIsPreparedIsMadeOnceAndServed(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 300))
	n.mustPrepare(n.shelf, "one", noon)
	o := n.shelf.offerFor("one")
	if st := n.shelf.Stats(); o == nil || o.hot == nil || st.Prepared != 1 || st.Bytes != o.meta.size+o.hot.size || st.Limit != 1<<30 {
		t.Fatalf("prepared: %+v", st)
	}
	hot := o.hot
	n.mustPrepare(n.shelf, "one", noon.Add(time.Hour))
	readAll(t, n.shelf, "one")
	if now := n.shelf.offerFor("one"); now != o || now.hot != hot {
		t.Error("it was made again")
	}
	n.setWorkingSet("one", "hint of one", 100)
	n.mustPrepare(n.shelf, "one", noon)
	if now := n.shelf.offerFor("one"); now == o || now.WorkingSet.Pages == o.WorkingSet.Pages || n.shelf.Stats().Prepared != 1 {
		t.Error("with another working set it is what it was")
	}
	n.shelf.Close()
	checkEmpty(t, n.shelf)
}

func TestAPreparedSnapshotNeedsNoWorkingSet(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 30))
	n.setWorkingSet("one", "hint of one", 0)
	n.mustPrepare(n.shelf, "one", noon)
	if st := n.shelf.Stats(); st.Prepared != 1 {
		t.Errorf("prepared: %+v", st)
	}
	readAll(t, n.shelf, "one")
}

func TestManyPrepareAndAskAtOnce(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 300))
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			if i%3 > 0 {
				readAll(t, n.shelf, "one")
			} else if err := n.shelf.Prepare(t.Context(), nameOf("one"), noon); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if o := n.shelf.offerFor("one"); o.users != 0 || !o.whole {
		t.Errorf("%d use it, whole %v", o.users, o.whole)
	}
}

func TestPreparingGivesWayUntilSomebodyAsks(t *testing.T) {
	testenv.NeedRoot(t)
	n := newNode(t)
	n.freeze("one", seeds(1, 300))
	nice := func() int {
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Error(err)
		}
		return 20 - raw
	}
	usual := nice()
	var values []int
	var asking sync.WaitGroup
	n.shelf.stepped = func() {
		if values = append(values, nice()); len(values) == 2 {
			asking.Go(func() { readAll(t, n.shelf, "one") })
			for o := n.shelf.offerFor("one"); !o.urgent.Load(); {
				runtime.Gosched()
			}
		}
	}
	n.mustPrepare(n.shelf, "one", noon)
	asking.Wait()
	if len(values) < 4 || values[0] <= usual || values[1] <= usual || values[2] != usual || values[len(values)-1] != usual {
		t.Errorf("nice values %v, where %d is usual", values, usual)
	}
}

func TestChangesWhileASnapshotIsPrepared(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(n *node, s *Shelf, cancel func())
		want   error
	}{
		{"another working set: that is prepared", func(n *node, _ *Shelf, _ func()) { n.setWorkingSet("one", "hint of one", 50) }, nil},
		{"the snapshot is removed: nothing stays", func(n *node, _ *Shelf, _ func()) {
			if err := n.store.Remove(n.t.Context(), nameOf("one")); err != nil {
				n.t.Error(err)
			}
		}, pagestore.ErrNotFound},
		{"the context ends: nothing stays", func(_ *node, _ *Shelf, cancel func()) { cancel() }, context.Canceled},
		{"the shelf is closed: nothing stays", func(_ *node, s *Shelf, _ func()) { s.Close() }, pagestore.ErrClosed},
	} {
		// The first steps are in the descriptor, later ones in the hot object.
		for at := range 5 {
			t.Run(tt.name, func(t *testing.T) {
				n := newNode(t)
				n.freeze("one", seeds(1, 300))
				shelf := NewShelf(n.store, &ShelfOptions{TempDir: t.TempDir()})
				defer shelf.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				steps := 0
				shelf.stepped = func() {
					if steps++; steps == at+1 {
						tt.change(n, shelf, cancel)
					}
				}
				err := shelf.Prepare(ctx, nameOf("one"), noon)
				if !errors.Is(err, tt.want) {
					t.Errorf("%v, want %v", err, tt.want)
				}
				if steps <= at {
					t.Fatalf("there are %d steps", steps)
				}
				if err == nil {
					v, err := shelf.versionNow(nameOf("one"))
					if o := shelf.offerFor("one"); err != nil || o.version != v || !o.whole || o.WorkingSet.Pages != 16 {
						t.Errorf("it is prepared as it was: %v", err)
					}
					readAll(t, shelf, "one")
				} else if st := shelf.Stats(); st.Prepared != 0 {
					t.Errorf("there is still something: %+v", st)
				}
			})
		}
	}
}

func TestWhoAsksForWhatIsGivenUpMakesIt(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 300))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asking sync.WaitGroup
	n.shelf.stepped = func() {
		if ctx.Err() != nil {
			return
		}
		asking.Go(func() { readAll(t, n.shelf, "one") })
		for o := n.shelf.offerFor("one"); !o.urgent.Load(); {
			runtime.Gosched()
		}
		cancel()
	}
	if err := n.shelf.Prepare(ctx, nameOf("one"), noon); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	asking.Wait()
}

// crowded returns a node with snapshots of the same size, and a shelf that has room for what two are made from, which is that of nearly four when
// it is made.
func crowded(t *testing.T, names ...string) (*node, *Shelf) {
	t.Helper()
	n := newNode(t)
	var size int64
	for i, name := range names {
		n.freeze(name, seeds(uint64(1000*i+1), 150))
		snap, err := n.store.Snapshot(nameOf(name))
		if err != nil {
			t.Fatal(err)
		}
		size = max(size, sizeBound(snap))
		snap.Close()
	}
	shelf := NewShelf(n.store, &ShelfOptions{MadeBytes: 2 * size, TempDir: t.TempDir()})
	t.Cleanup(shelf.Close)
	return n, shelf
}

// has makes sure that of the snapshots exactly these are prepared.
func has(t *testing.T, s *Shelf, names ...string) {
	t.Helper()
	for _, name := range names {
		if o := s.offerFor(name); o == nil || !o.whole {
			t.Errorf("%s is not prepared", name)
		}
	}
	if st := s.Stats(); st.Prepared != len(names) || st.Bytes > st.Limit {
		t.Errorf("%+v, want %d", st, len(names))
	}
}

func hours(n int) time.Time { return noon.Add(time.Duration(n) * time.Hour) }

func TestWhatWasUsedEarlierGoesForWhatIsPreparedAndNothingElse(t *testing.T) {
	n, shelf := crowded(t, "one", "two", "three", "four")
	shelf.now = func() time.Time { return hours(5) }
	n.mustPrepare(shelf, "two", hours(2))
	n.mustPrepare(shelf, "one", hours(1))
	n.mustPrepare(shelf, "three", hours(3))
	has(t, shelf, "two", "three")
	if err := shelf.Prepare(t.Context(), nameOf("one"), hours(1)); !errors.Is(err, ErrRoom) || errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want %v", err, ErrRoom)
	}
	has(t, shelf, "two", "three")
	// What somebody has asked for stays for an hour.
	readAll(t, shelf, "two")
	n.mustPrepare(shelf, "four", hours(4))
	has(t, shelf, "two", "four")
	shelf.now = func() time.Time { return hours(6) }
	readAll(t, shelf, "four")
	if err := shelf.Prepare(t.Context(), nameOf("three"), hours(7)); !errors.Is(err, ErrRoom) {
		t.Errorf("%v, want %v", err, ErrRoom)
	}
	has(t, shelf, "two", "four")
	shelf.now = func() time.Time { return hours(7) }
	n.mustPrepare(shelf, "three", hours(7))
	has(t, shelf, "three", "four")
}

func TestWhatIsReadStays(t *testing.T) {
	n, shelf := crowded(t, "one", "two", "three")
	shelf.now = func() time.Time { return noon }
	n.mustPrepare(shelf, "one", hours(1))
	n.mustPrepare(shelf, "two", hours(2))
	o := shelf.offerFor("one")
	r, err := shelf.Open(t.Context(), HotKey("ns", o.Manifest.Digest, o.WorkingSet.Root).String(), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	shelf.now = func() time.Time { return hours(10) }
	n.mustPrepare(shelf, "three", hours(10))
	has(t, shelf, "one", "three")
	if data, err := io.ReadAll(r); err != nil || int64(len(data)) != o.hot.size {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	r.Close()
}

func TestWhoAsksHasWhatNobodyAskedForPushedOutFirst(t *testing.T) {
	n, shelf := crowded(t, "one", "two", "three")
	readAll(t, shelf, "one")
	n.mustPrepare(shelf, "two", time.Now().Add(time.Hour))
	shelf.opts.MadeBytes = shelf.Stats().Bytes * 5 / 4
	readAll(t, shelf, "three")
	has(t, shelf, "one", "three")
	if st := shelf.Stats(); st.Pushed != 1 {
		t.Errorf("%+v", st)
	}
}

func TestWhatIsAskedForMeanwhileKeepsItsRoom(t *testing.T) {
	n, shelf := crowded(t, "one", "two", "three")
	readAll(t, shelf, "one")
	asked := false
	shelf.stepped = func() {
		if !asked {
			asked = true
			readAll(t, shelf, "two")
			readAll(t, shelf, "three")
		}
	}
	n.freeze("four", seeds(5000, 150))
	if err := shelf.Prepare(t.Context(), nameOf("four"), time.Now()); !errors.Is(err, ErrRoom) {
		t.Errorf("%v, want %v", err, ErrRoom)
	}
	has(t, shelf, "one", "two", "three")
}

func TestWhatIsLargerThanAllTheRoomIsLeftOut(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 300))
	shelf := NewShelf(n.store, &ShelfOptions{MadeBytes: 1000})
	defer shelf.Close()
	if err := shelf.Prepare(t.Context(), nameOf("one"), noon); !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrRoom) {
		t.Errorf("%v, want %v", err, ErrTooLarge)
	}
	checkEmpty(t, shelf)
	if err := shelf.Prepare(t.Context(), nameOf("two"), noon); !errors.Is(err, pagestore.ErrNotFound) {
		t.Errorf("%v, want %v", err, pagestore.ErrNotFound)
	}
	shelf.Close()
	shelf.opts.MadeBytes = 1 << 30
	if err := shelf.Prepare(t.Context(), nameOf("one"), noon); !errors.Is(err, pagestore.ErrClosed) {
		t.Errorf("%v, want %v", err, pagestore.ErrClosed)
	}
}

func TestAStubIsPreparedWhenItsHotPagesAreHereAndThatIsNoUseOfIt(t *testing.T) {
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", seeds(1, 300))
	n.sees(peer(maker))
	n.mustPull("one", nil)
	if err := n.shelf.Prepare(t.Context(), nameOf("one"), noon); !errors.Is(err, pagestore.ErrNotLocal) {
		t.Errorf("%v, want %v", err, pagestore.ErrNotLocal)
	}
	checkEmpty(t, n.shelf)
	if err := Warm(t.Context(), n.store, nameOf("one")); err != nil {
		t.Fatal(err)
	}
	used := func() time.Time {
		t.Helper()
		entries, err := n.store.List()
		if err != nil || len(entries) != 1 || !entries[0].Stub {
			t.Fatalf("%+v, %v", entries, err)
		}
		return entries[0].Used
	}
	before := used()
	n.mustPrepare(n.shelf, "one", noon)
	if now := used(); !now.Equal(before) || now.IsZero() {
		t.Errorf("it was used at %v, and at %v", before, now)
	}
	n.sees()
	readAll(t, n.shelf, "one")
}

func TestWhatWasRemovedIsSweptAway(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 100))
	n.freeze("two", seeds(1000, 100))
	n.mustPrepare(n.shelf, "one", noon)
	n.mustPrepare(n.shelf, "two", noon)
	if err := n.store.Remove(t.Context(), nameOf("one")); err != nil {
		t.Fatal(err)
	}
	n.shelf.Sweep()
	has(t, n.shelf, "two")
	if _, err := n.shelf.Size(t.Context(), NameKey(nameOf("one")).String()); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("%v, want %v", err, blob.ErrNotFound)
	}
}
