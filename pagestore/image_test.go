package pagestore

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"

	"thaw/pagestore/internal/pack"
)

func TestReadyAndLoadFollowStorage(t *testing.T) {
	s := newStore(t)
	// Packs have 64 pages: pages 0-63 are in one pack, 64-69 in another, then zeros, then repeats of pages 10 and 11.
	m := append(append(seeds(1, 70), 0, 0, 0), 11, 12)
	mustImport(t, s, "a", m)
	im := mustImage(t, s, "a")

	tests := []struct {
		name        string
		page        uint64
		limit, want int
		zero        bool
	}{
		{"a run ends at the limit", 0, 10, 10, false},
		{"a run ends with its pack", 60, 100, 4, false},
		{"the next run is in the next pack", 64, 100, 6, false},
		{"zeros end where content begins", 70, 100, 3, true},
		{"zeros end at the limit", 71, 1, 1, true},
		{"repeated pages are where they were stored first", 73, 100, 2, false},
		{"a limit of zero counts as one", 5, 0, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, n, err := im.Load(tt.page, tt.limit)
			if err != nil || n != tt.want || (data == nil) != tt.zero || !tt.zero && len(data) != n*PageSize {
				t.Fatalf("Load: %d bytes, %d pages, %v; want %d pages, zero: %v", len(data), n, err, tt.want, tt.zero)
			}
			if again, n := im.Ready(tt.page, tt.limit); n != tt.want || !bytes.Equal(again, data) {
				t.Errorf("Ready after it: %d bytes, %d pages", len(again), n)
			}
		})
	}
}

func TestReadyKnowsOnlyVerifiedPages(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", append(seeds(1, 64), 0))
	im := mustImage(t, s, "a")
	if _, n := im.Ready(0, 64); n != 0 {
		t.Errorf("%d pages are ready before any was loaded", n)
	}
	if data, n := im.Ready(64, 5); n != 1 || data != nil {
		t.Errorf("a page of zeros: %d bytes, %d pages ready", len(data), n)
	}
	for _, page := range []uint64{0, 1, 2, 5, 63} {
		if _, n, err := im.Load(page, 1); n != 1 || err != nil {
			t.Fatalf("Load(%d): %d, %v", page, n, err)
		}
	}
	for page, want := range map[uint64]int{0: 3, 1: 2, 2: 1, 3: 0, 4: 0, 5: 1, 6: 0, 63: 1} {
		if _, n := im.Ready(page, 64); n != want {
			t.Errorf("Ready(%d) has %d pages, want %d", page, n, want)
		}
	}
	if _, n := im.Ready(0, 2); n != 2 {
		t.Errorf("Ready goes beyond its limit: %d pages", n)
	}
}

func TestPagesOutsideTheImage(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 3))
	im := mustImage(t, s, "a")
	for _, page := range []uint64{3, 1 << 40, 1<<64 - 1} {
		if _, n := im.Ready(page, 1); n != 0 {
			t.Errorf("Ready(%d) has %d pages", page, n)
		}
		if _, n, err := im.Load(page, 1); n != 0 || !errors.Is(err, ErrRange) {
			t.Errorf("Load(%d): %d pages, %v", page, n, err)
		}
		im.Prefetch(page, 10)
	}
	im.Prefetch(0, 1<<64-1)
}

func TestASecondRestoreNeedNotVerifyAgain(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	mustImport(t, s, "b", seeds(1, 10))
	one, two := mustImage(t, s, "a"), mustImage(t, s, "b")
	if _, n, err := one.Load(0, 10); n != 10 || err != nil {
		t.Fatalf("Load: %d, %v", n, err)
	}
	if _, n := two.Ready(0, 10); n != 10 {
		t.Errorf("%d pages are ready in the other snapshot, want 10", n)
	}
}

func TestOpeningAgainVerifiesAgain(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 3))
	snap := mustOpen(t, s, "a")
	im, err := snap.Image()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := im.Load(0, 3); err != nil {
		t.Fatal(err)
	}
	snap.Close()
	if len(s.mu.packs) != 0 {
		t.Errorf("%d packs are open after the last snapshot was closed", len(s.mu.packs))
	}
	if _, n := mustImage(t, s, "a").Ready(0, 3); n != 0 {
		t.Errorf("%d pages are ready in a pack that was opened anew", n)
	}
}

func TestFlippedBitStopsAtItsPage(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	ids, paths := packPaths(t, s, "a")
	flipBit(t, paths[0], pack.Offset(4)+1234)
	im := mustImage(t, s, "a")

	if _, n, err := im.Load(0, 10); n != 4 || err != nil {
		t.Errorf("Load(0): %d pages, %v; want the 4 pages before the bad one", n, err)
	}
	_, n, err := im.Load(4, 6)
	if n != 0 {
		t.Errorf("Load(4) has %d pages", n)
	}
	wantPageError(t, err, ids[0], 4, ErrCorrupt)
	var pe *PageError
	if errors.As(err, &pe) && (pe.Snapshot != mustName("a") || pe.Image != 4) {
		t.Errorf("error names image page %d of %s", pe.Image, pe.Snapshot)
	}
	if _, n, err := im.Load(5, 10); n != 5 || err != nil {
		t.Errorf("Load(5): %d pages, %v", n, err)
	}
	if _, n := im.Ready(4, 1); n != 0 {
		t.Error("the bad page is ready")
	}
	if _, n := im.Ready(0, 10); n != 4 {
		t.Errorf("Ready(0) has %d pages, want 4", n)
	}
}

func TestDamagedPacksFailOnlyTheirPages(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, path string)
		want   error
	}{
		{"missing", func(t *testing.T, path string) { remove(t, path) }, ErrMissingPack},
		{"flipped bit in the table of sums", func(t *testing.T, path string) { flipBit(t, path, pack.FileSize(64)-80) }, ErrCorrupt},
		{"flipped bit in the trailer", func(t *testing.T, path string) { flipBit(t, path, pack.FileSize(64)-30) }, ErrCorrupt},
		{"cut off", func(t *testing.T, path string) { truncate(t, path, pack.Offset(10)) }, ErrCorrupt},
		{"empty", func(t *testing.T, path string) { truncate(t, path, 0) }, ErrCorrupt},
		{"of a later version", func(t *testing.T, path string) { flipBit(t, path, pack.FileSize(64)-72+9) }, ErrVersion},
		{"a folder in its place", func(t *testing.T, path string) { remove(t, path); mkdir(t, path) }, ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			mustImport(t, s, "a", seeds(1, 128))
			ids, paths := packPaths(t, s, "a")
			tt.damage(t, paths[0])
			im := mustImage(t, s, "a")
			_, n, err := im.Load(7, 1)
			if n != 0 {
				t.Errorf("Load has %d pages", n)
			}
			wantPageError(t, err, ids[0], 7, tt.want)
			if _, n := im.Ready(7, 1); n != 0 {
				t.Errorf("Ready has %d pages", n)
			}
			im.Prefetch(0, 128)
			if data, n, err := im.Load(64, 64); n != 64 || err != nil || !bytes.Equal(data, seeds(65, 64).bytes()) {
				t.Errorf("the other pack: %d pages, %v", n, err)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func TestPackOfAnotherNameIsRefused(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 3))
	mustImport(t, s, "b", seeds(11, 3))
	aIDs, aPaths := packPaths(t, s, "a")
	_, bPaths := packPaths(t, s, "b")
	if err := os.Rename(bPaths[0], aPaths[0]); err != nil {
		t.Fatal(err)
	}
	_, _, err := mustImage(t, s, "a").Load(1, 1)
	wantPageError(t, err, aIDs[0], 1, ErrCorrupt)
}

func TestPackCutOffWhileItIsMapped(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 64))
	ids, paths := packPaths(t, s, "a")
	im := mustImage(t, s, "a")
	truncate(t, paths[0], pack.Offset(10))
	// The kernel answers reads beyond the end with SIGBUS, and the table of sums is beyond the end.
	_, n, err := im.Load(3, 1)
	if n != 0 {
		t.Errorf("Load has %d pages", n)
	}
	wantPageError(t, err, ids[0], 3, syscall.EIO)
}

func TestManifestCutOffWhileItIsMapped(t *testing.T) {
	s := newStore(t)
	m := make(memory, 2000)
	for i := range m {
		m[i] = uint64(i % 2 * i) // many extents, so that the manifest has several pages
	}
	mustImport(t, s, "a", m)
	snap := mustOpen(t, s, "a")
	im, err := snap.Image()
	if err != nil {
		t.Fatal(err)
	}
	truncate(t, snap.file.Name(), 0)
	if _, n := im.Ready(1500, 1); n != 0 {
		t.Errorf("Ready has %d pages", n)
	}
	if _, n, err := im.Load(1500, 1); n != 0 || !errors.Is(err, syscall.EIO) {
		t.Errorf("Load: %d pages, %v", n, err)
	}
	im.Prefetch(0, 2000)
	for _, err := range snap.Spaces()[0].Runs() {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("runs: %v, want %v", err, syscall.EIO)
		}
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	s := newStore(t)
	m := append(seeds(1, 64), 0, 0)
	mustImport(t, s, "a", m)
	im := mustImage(t, s, "a")
	page := uint64(0)
	check := func(name string, fn func()) {
		t.Helper()
		if n := testing.AllocsPerRun(60, fn); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	check("the first Load of a page", func() {
		if _, n, err := im.Load(page, 1); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		page++
	})
	check("Load of a page that is known", func() { im.Load(5, 16) })
	check("Ready", func() { im.Ready(5, 16) })
	check("Ready of zeros", func() { im.Ready(64, 2) })
	check("Load of zeros", func() { im.Load(64, 2) })
}

func TestCloseWaitsForCallsAndEndsTheImage(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 64))
	snap := mustOpen(t, s, "a")
	im, err := snap.Image()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for page := uint64(0); ; page++ {
				im.Ready(page%64, 8)
				im.Prefetch(page%64, 8)
				if _, _, err := im.Load(page%64, 8); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	if err := snap.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := snap.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := snap.Image(); !errors.Is(err, ErrClosed) {
		t.Errorf("Image after Close: %v", err)
	}
	if _, n := im.Ready(0, 1); n != 0 {
		t.Error("a page is ready after Close")
	}
}

// What was prefetched is checked and mapped: Ready has it, which it has not before.
func TestRunsThatArePrefetchedAreReady(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 400))
	im := mustImage(t, s, "a")
	if _, n := im.Ready(0, 1); n != 0 {
		t.Fatal("a page is ready that nobody has asked for")
	}
	im.PrefetchRuns([]PageRun{{300, 20}, {10, 1}, {12, 50}})
	s.neededPrefetcher.finish()
	for page, want := range map[uint64]int{10: 1, 12: 50, 61: 1, 300: 20, 319: 1} {
		if _, n := im.Ready(page, want); n != want {
			t.Errorf("%d of %d pages from %d on are ready", n, want, page)
		}
	}
	if _, n := im.Ready(200, 1); n != 0 {
		t.Error("a page is ready that nobody has asked for")
	}
}

func TestPrefetchAfterCloseOfTheStore(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 64))
	im := mustImage(t, s, "a")
	im.Prefetch(0, 64)
	s.Close()
	im.Prefetch(0, 64)
	im.PrefetchRuns([]PageRun{{0, 64}})
	if _, n, err := im.Load(0, 64); n != 64 || err != nil {
		t.Errorf("an open snapshot after Close of its store: %d pages, %v", n, err)
	}
	if _, err := s.Import(t.Context(), mustName("b"), memory{1}.input(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Import: %v, want %v", err, ErrClosed)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func BenchmarkReady(b *testing.B) {
	s := benchStore(b)
	snap, err := s.Snapshot(mustName("a"))
	if err != nil {
		b.Fatal(err)
	}
	defer snap.Close()
	im, err := snap.Image()
	if err != nil {
		b.Fatal(err)
	}
	for page := uint64(0); page < im.Pages(); page++ {
		if _, _, err := im.Load(page, 1); err != nil {
			b.Fatal(err)
		}
	}
	page := uint64(0)
	for b.Loop() {
		page = (page + 7919) % im.Pages()
		if _, n := im.Ready(page, 16); n == 0 {
			b.Fatal(page)
		}
	}
}

// BenchmarkLoad verifies pages for the first time, 64 KiB in a call.
func BenchmarkLoad(b *testing.B) {
	s := benchStore(b)
	b.SetBytes(16 * PageSize)
	var snap *Snapshot
	var im *Image
	page := uint64(0)
	for b.Loop() {
		if im == nil || page >= im.Pages() {
			if snap != nil {
				snap.Close()
			}
			var err error
			if snap, err = s.Snapshot(mustName("a")); err != nil {
				b.Fatal(err)
			}
			if im, err = snap.Image(); err != nil {
				b.Fatal(err)
			}
			page = 0
		}
		if _, _, err := im.Load(page, 16); err != nil {
			b.Fatal(err)
		}
		page += 16
	}
	snap.Close()
}

func TestStoredSaysWhereInWhichFile(t *testing.T) {
	s := newStore(t)
	m := append(append(seeds(1, 70), 0, 0, 0), 11, 12)
	mustImport(t, s, "a", m)
	im := mustImage(t, s, "a")
	content := m.bytes()
	for page := uint64(0); page < uint64(len(m)); {
		at, zeros, err := im.Stored(page, 1000)
		if err != nil || at.Pages+zeros == 0 {
			t.Fatalf("page %d: %+v, %d, %v", page, at, zeros, err)
		}
		if at.Pages > 0 {
			data, err := os.ReadFile(at.File)
			if err != nil {
				t.Fatal(err)
			}
			n := at.Pages * PageSize
			if int64(len(data)) != at.Size || !bytes.Equal(data[at.Offset:at.Offset+int64(n)], content[page*PageSize:][:n]) {
				t.Errorf("page %d is not where %+v says", page, at)
			}
			if n := im.StoredCached(page, at.Pages); n < 0 || n > at.Pages {
				t.Errorf("%d of %d pages are in memory", n, at.Pages)
			}
		}
		page += uint64(at.Pages + zeros)
	}
	if _, _, err := im.Stored(uint64(len(m)), 1); !errors.Is(err, ErrRange) {
		t.Errorf("behind the end: %v", err)
	}
}

func TestAPackIsReadAsAFile(t *testing.T) {
	s := newStore(t)
	m := seeds(1, 60)
	mustImport(t, s, "a", m)
	ids, paths := packPaths(t, s, "a")
	r, err := s.PackFile(DefaultNamespace, "/seen/from/elsewhere/"+ids[0].String()+".pack")
	if err != nil || r == nil {
		t.Fatalf("%v, %v", r, err)
	}
	defer r.Close()
	got := make([]byte, 7*PageSize)
	if n, err := r.ReadAt(got, pack.Offset(20)); n != len(got) || err != nil || !bytes.Equal(got, m.bytes()[20*PageSize:27*PageSize]) {
		t.Errorf("%d bytes, %v, and not those of the pages", n, err)
	}
	for _, tt := range []struct{ off, n int64 }{{0, PageSize}, {pack.Offset(0) + 8, PageSize}, {pack.Offset(0), 100}, {pack.Offset(59), 2 * PageSize}, {-PageSize, PageSize}} {
		if _, err := r.ReadAt(make([]byte, tt.n), tt.off); !errors.Is(err, ErrRange) {
			t.Errorf("%d bytes at %d: %v, want ErrRange", tt.n, tt.off, err)
		}
	}
	// A page that is damaged is not given away, whoever asks.
	flipBit(t, paths[0], pack.Offset(40)+5)
	if n, err := r.ReadAt(got, pack.Offset(38)); n != 2*PageSize || !errors.Is(err, ErrCorrupt) {
		t.Errorf("%d bytes, %v, want the two pages before the damaged one", n, err)
	}
	flipBit(t, paths[0], pack.Offset(40)+5)

	for _, path := range []string{"/usr/lib/libc.so.6", "/x/" + ids[0].String(), "/x/abc.pack"} {
		if r, err := s.PackFile(DefaultNamespace, path); r != nil || err != nil {
			t.Errorf("%s is taken for a pack: %v", path, err)
		}
	}
	other := ids[0]
	other[0]++
	if _, err := s.PackFile(DefaultNamespace, other.String()+".pack"); !errors.Is(err, ErrMissingPack) {
		t.Errorf("a pack that is not there: %v", err)
	}
	if _, err := s.PackFile("tenant", ids[0].String()+".pack"); !errors.Is(err, ErrMissingPack) {
		t.Errorf("a pack of another namespace: %v", err)
	}
	if _, err := s.PackFile("../default", ids[0].String()+".pack"); !errors.Is(err, ErrName) {
		t.Errorf("a namespace that is a path: %v", err)
	}
}
