package pagestore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"thaw/pagestore/internal/pack"
)

// hotImage makes a snapshot "a" of the memory m in a store whose packs count as not in memory, gives it the order, and opens its image.
// damage, if not nil, comes before that. The log is that of the store.
func hotImage(t *testing.T, m memory, order []PageRun, damage func(t *testing.T, path string)) (im *Image, log *bytes.Buffer) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	made, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	log = new(bytes.Buffer)
	s := openStore(t, dir, &Options{packPages: 64, packsCold: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	mustImport(t, s, "a", m)
	if err := setWorkingSet(t.Context(), s, "a", WorkingSet{Order: order}); err != nil {
		t.Fatal(err)
	}
	if damage != nil {
		damage(t, hotPath(s, "a"))
	}
	return mustImage(t, s, "a"), log
}

func hotPath(s *Store, name string) string {
	n := mustName(name)
	return filepath.Join(s.namespace(n.Namespace).snapshot(n.Snapshot), hotFile)
}

// copied reports whether data lies in the image's packed copy.
func copied(im *Image, data []byte) bool {
	if im.hot.file == nil || len(data) == 0 {
		return false
	}
	all := im.hot.file.Bytes(0, int(im.hot.file.Pages()))
	for off := 0; off < len(all); off += PageSize {
		if &all[off] == &data[0] {
			return true
		}
	}
	return false
}

func TestPagesComeFromTheCopyInItsRuns(t *testing.T) {
	m := append(append(seeds(1, 70), 0, 0), 11, 12)
	// Pages 60 to 67 are in two packs; 72 and 73 are stored as 10 and 11.
	im, _ := hotImage(t, m, []PageRun{{60, 8}, {30, 1}, {32, 1}, {72, 2}}, nil)
	if pages, err := im.Hot(); pages != 12 || err != nil {
		t.Errorf("Hot: %d, %v", pages, err)
	}
	tests := []struct {
		name         string
		page         uint64
		limit, want  int
		copied, zero bool
	}{
		{"a run ends at the limit", 60, 2, 2, true, false},
		{"a run ends with its pack while it is loaded", 60, 100, 4, true, false},
		{"and goes on in the next pack", 64, 100, 4, true, false},
		{"a run ends with what is next to it in the copy", 30, 10, 1, true, false},
		{"pages that repeat others have a copy, too", 73, 10, 1, true, false},
		{"pages without a copy come from their pack", 31, 1, 1, false, false},
		{"and go on over those with one", 20, 20, 20, false, false},
		{"zeros", 70, 10, 2, false, true},
		{"a limit of zero counts as one", 60, 0, 1, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, n, err := im.Load(tt.page, tt.limit)
			if err != nil || n != tt.want || (data == nil) != tt.zero || copied(im, data) != tt.copied {
				t.Fatalf("Load: %d pages, %v, of the copy: %v; want %d, %v", n, err, copied(im, data), tt.want, tt.copied)
			}
			if err := samePages(data, m[tt.page:tt.page+uint64(n)]); err != nil {
				t.Error(err)
			}
			if again, n := im.Ready(tt.page, tt.limit); n < tt.want || copied(im, again) != tt.copied {
				t.Errorf("Ready after it: %d pages, of the copy: %v", n, copied(im, again))
			}
		})
	}
	// What is known in both packs is one run of the copy.
	if data, n := im.Ready(60, 100); n != 8 || !copied(im, data) {
		t.Errorf("Ready(60) has %d pages", n)
	}
}

func TestRunsWithoutWhatHasACopy(t *testing.T) {
	runs := []PageRun{{0, 100}, {30, 5}, {150, 20}}
	im, _ := hotImage(t, seeds(1, 200), []PageRun{{20, 20}, {90, 70}}, nil)
	if diff := cmp.Diff([]PageRun{{0, 20}, {40, 50}, {160, 10}}, im.Unpacked(runs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	without, _ := hotImage(t, seeds(1, 200), []PageRun{{20, 20}}, func(t *testing.T, path string) { remove(t, path) })
	if diff := cmp.Diff(runs, without.Unpacked(runs)); diff != "" {
		t.Errorf("without a copy (-want +got):\n%s", diff)
	}
}

func TestCopyIsLeftAloneWhereThePacksAreInMemory(t *testing.T) {
	m := seeds(1, 70)
	im, _ := hotImage(t, m, []PageRun{{0, 70}}, nil)
	im.store.opts.packsCold = false
	if im.packs[0].mapped.Cached(0, 64) != 64 {
		t.Skip("the kernel does not say what is in memory (before Linux 6.5), or has dropped what was just written")
	}
	if data, n, err := im.Load(3, 5); n != 5 || err != nil || copied(im, data) {
		t.Errorf("Load: %d, %v, of the copy: %v", n, err, copied(im, data))
	}
	im.readHot(func() bool { return false })
	if data, n := im.Ready(3, 5); n != 5 || copied(im, data) {
		t.Errorf("Ready: %d, of the copy: %v", n, copied(im, data))
	}
	if _, n := im.Ready(20, 5); n != 0 {
		t.Errorf("%d pages are ready that nobody has read", n)
	}
}

func TestPrefetchOfTheCopyMakesItReady(t *testing.T) {
	const pages = 1000
	m := append(seeds(1, pages), 0)
	var order []PageRun
	for page := uint64(0); page < pages; page += 50 {
		order = append(order, PageRun{pages - 50 - page, 20})
	}
	order = append(order, PageRun{0, pages + 1})
	im, _ := hotImage(t, m, order, nil)
	im.PrefetchHot()
	im.store.hotPrefetcher.finish()
	for page := uint64(0); page < pages; {
		data, n := im.Ready(page, 64)
		if n == 0 || !copied(im, data) {
			t.Fatalf("%d pages are ready from page %d on, of the copy: %v", n, page, copied(im, data))
		}
		if err := samePages(data, m[page:page+uint64(n)]); err != nil {
			t.Fatal(err)
		}
		page += uint64(n)
	}
}

// finish waits for what was asked, and takes no more.
func (p *prefetcher) finish() {
	p.mu.Lock()
	close(p.queue)
	p.mu.Unlock()
	p.done.Wait()
	p.mu.Lock()
	p.queue = nil
	p.mu.Unlock()
}

// TestDamagedCopyIsNotServed damages a copy in all ways while nobody has it open; the pages come from the packs.
func TestDamagedCopyIsNotServed(t *testing.T) {
	m := append(seeds(1, 100), 0)
	order := []PageRun{{90, 10}, {0, 50}}
	flip := func(off int64) func(*testing.T, string) {
		return func(t *testing.T, path string) { flipBit(t, path, off) }
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, path string)
		want   error // of Hot, once the pages were loaded
		served bool  // some of it is served before that is noticed
	}{
		{"flipped bit in the header", flip(30), ErrCorrupt, false},
		{"flipped bit in the table", flip(75), ErrCorrupt, false},
		{"flipped bit behind the table", flip(4095), ErrCorrupt, false},
		{"flipped bit in a page", flip(PageSize * 16), ErrCorrupt, true},
		{"of a later version", func(t *testing.T, path string) { edit(t, path, 60, func(b []byte) { b[8] = 2 }) }, ErrVersion, false},
		{"cut off", func(t *testing.T, path string) { truncate(t, path, 20*PageSize) }, ErrCorrupt, false},
		{"empty", func(t *testing.T, path string) { truncate(t, path, 0) }, ErrCorrupt, false},
		{"longer", func(t *testing.T, path string) { truncate(t, path, 70*PageSize) }, ErrCorrupt, false},
		{"a folder in its place", func(t *testing.T, path string) { remove(t, path); mkdir(t, path) }, ErrCorrupt, false},
		{"that of another snapshot", func(t *testing.T, path string) { edit(t, path, 60, func(b []byte) { b[30]++ }) }, ErrCorrupt, false},
		{"of a larger image", func(t *testing.T, path string) { edit(t, path, 60, func(b []byte) { b[72] = 92 }) }, ErrCorrupt, false},
		{"pages that are others", func(t *testing.T, path string) { edit(t, path, 60, func(b []byte) { b[72] = 89 }) }, ErrCorrupt, true},
		{"pages that are zero", func(t *testing.T, path string) { edit(t, path, 60, func(b []byte) { b[72] = 91 }) }, ErrCorrupt, true},
		{"no damage", func(t *testing.T, path string) {}, nil, true},
		{"none", func(t *testing.T, path string) { remove(t, path) }, nil, false},
	}
	for _, tt := range tests {
		for _, prefetch := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, prefetch %v", tt.name, prefetch), func(t *testing.T) {
				im, log := hotImage(t, m, order, tt.damage)
				if prefetch {
					im.readHot(func() bool { return false })
				}
				served := false
				for range 2 {
					for _, page := range []uint64{0, 20, 90, 5, 100, 99, 40, 50, 91} {
						ready, n := im.Ready(page, 3)
						if err := samePages(ready, m[page:page+uint64(n)]); err != nil {
							t.Errorf("Ready(%d): %v", page, err)
						}
						data, n, err := im.Load(page, 3)
						if err != nil {
							t.Fatalf("Load(%d): %v", page, err)
						}
						if err := samePages(data, m[page:page+uint64(n)]); err != nil {
							t.Errorf("Load(%d): %v", page, err)
						}
						served = served || copied(im, data)
					}
				}
				if _, err := im.Hot(); !errors.Is(err, tt.want) {
					t.Errorf("Hot: %v, want %v", err, tt.want)
				}
				if served && !tt.served {
					t.Error("some pages came from the copy")
				} else if !served && tt.served && !prefetch {
					t.Error("no pages came from the copy")
				}
				if n := strings.Count(log.String(), "packed copy"); n != min(1, n) || (n == 1) != (tt.want != nil) {
					t.Errorf("it was reported %d times: %s", n, log)
				}
			})
		}
	}
}

// edit changes the head of a hot file of that many pages and makes its checksums right again.
func edit(t *testing.T, path string, pages int, change func(b []byte)) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	change(data)
	binary.LittleEndian.PutUint64(data[56:], xxhash.Sum64(data[72:len(data)-pages*PageSize]))
	binary.LittleEndian.PutUint64(data[64:], xxhash.Sum64(data[:64]))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCopyCutOffWhileItIsMapped(t *testing.T) {
	m := seeds(1, 100)
	im, log := hotImage(t, m, []PageRun{{50, 50}, {0, 50}}, nil)
	if data, n, err := im.Load(50, 2); n != 2 || err != nil || !copied(im, data) {
		t.Fatalf("Load: %d, %v", n, err)
	}
	truncate(t, hotPath(im.store, "a"), 0)
	// The kernel answers reads beyond the end with SIGBUS; the first one that is seen ends the use of the copy.
	data, n, err := im.Load(70, 3)
	if n == 0 || err != nil || copied(im, data) {
		t.Fatalf("Load: %d, %v, of the copy: %v", n, err, copied(im, data))
	}
	if err := samePages(data, m[70:70+n]); err != nil {
		t.Error(err)
	}
	if _, n := im.Ready(50, 2); n != 0 {
		t.Error("what was known of the copy is served still")
	}
	if pages, err := im.Hot(); pages != 0 || !errors.Is(err, syscall.EIO) {
		t.Errorf("Hot: %d, %v", pages, err)
	}
	if n := strings.Count(log.String(), "packed copy"); n != 1 {
		t.Errorf("it was reported %d times: %s", n, log)
	}
	im.PrefetchHot()
}

func TestPackThatIsMissingIsMissingInTheCopyToo(t *testing.T) {
	m := seeds(1, 100)
	var id PackID
	im, _ := hotImage(t, m, []PageRun{{0, 100}}, func(t *testing.T, path string) {
		packs := filepath.Join(filepath.Dir(path), "..", "..", "packs")
		ids, err := namespace{dir: filepath.Dir(packs)}.listPacks()
		if err != nil || len(ids) != 2 {
			t.Fatal(ids, err)
		}
		for _, p := range ids {
			if p.size == pack.FileSize(36) {
				id = p.id
				remove(t, filepath.Join(packs, p.id.String()+packExt))
			}
		}
	})
	im.readHot(func() bool { return false })
	_, n, err := im.Load(70, 1)
	if n != 0 {
		t.Errorf("Load has %d pages", n)
	}
	wantPageError(t, err, id, 6, ErrMissingPack)
	if data, n := im.Ready(10, 100); n != 54 || !copied(im, data) {
		t.Errorf("the other pack: %d pages", n)
	}
	if _, err := im.Hot(); err != nil {
		t.Errorf("Hot: %v", err)
	}
}

func TestStoredIsAboutThePacks(t *testing.T) {
	m := append(seeds(1, 64), 0)
	im, _ := hotImage(t, m, []PageRun{{0, 20}}, nil)
	if _, n, err := im.Load(0, 10); n != 10 || err != nil {
		t.Fatal(n, err)
	}
	if _, n := im.Ready(0, 10); n != 10 {
		t.Errorf("%d pages are ready", n)
	}
	if n := im.StoredIntact(0, 10); n != 0 {
		t.Errorf("%d pages are intact in a pack that nobody has looked at", n)
	}
	at, _, err := im.Stored(0, 30)
	if err != nil || !strings.HasSuffix(at.File, packExt) || at.Pages != 30 || at.Offset != pack.Offset(0) {
		t.Errorf("Stored: %+v, %v", at, err)
	}
	if n, err := im.CheckStored(5, 10); n != 10 || err != nil {
		t.Errorf("CheckStored: %d, %v", n, err)
	}
	if n := im.StoredIntact(5, 100); n != 10 {
		t.Errorf("%d pages are intact, want 10", n)
	}
	if n := im.StoredIntact(64, 5); n != 1 {
		t.Errorf("%d zeros", n)
	}
	if n, err := im.CheckStored(65, 1); n != 0 || !errors.Is(err, ErrRange) {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	ids, paths := packPaths(t, im.store, "a")
	flipBit(t, paths[0], pack.Offset(3)+1)
	n, err := im.CheckStored(3, 1)
	if n != 0 {
		t.Errorf("%d pages", n)
	}
	wantPageError(t, err, ids[0], 3, ErrCorrupt)
	if data, n, err := im.Load(3, 1); n != 1 || err != nil || !copied(im, data) {
		t.Errorf("its copy: %d, %v", n, err)
	}
	flipBit(t, paths[0], pack.Offset(3)+1)
}

func TestOpenImageKeepsTheCopyThatItHas(t *testing.T) {
	m := seeds(1, 100)
	im, _ := hotImage(t, m, []PageRun{{0, 20}}, nil)
	for _, w := range []WorkingSet{{Order: []PageRun{{50, 20}}}, {}} {
		if err := setWorkingSet(t.Context(), im.store, "a", w); err != nil {
			t.Fatal(err)
		}
		data, n, err := im.Load(0, 100)
		if n != 20 || err != nil || !copied(im, data) {
			t.Errorf("Load: %d, %v", n, err)
		}
		if err := samePages(data, m[:n]); err != nil {
			t.Error(err)
		}
	}
}

// TestRandomDamageOfTheCopy serves an image with a copy that is damaged at random, and compares every page with the memory.
func TestRandomDamageOfTheCopy(t *testing.T) {
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("run again with -run %s -seed %d", t.Name(), seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	model := &model{t: t, rng: rng}
	for round := range 60 {
		m := append(model.memory(), 1, 0, 2)
		im, _ := hotImage(t, m, randomOrder(rng, len(m)), func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				return // only zeros were chosen
			}
			switch rng.IntN(4) {
			case 0:
			case 1:
				truncate(t, path, rng.Int64N(info.Size()+PageSize))
			case 2:
				flipBit(t, path, rng.Int64N(min(info.Size(), 400)))
			case 3:
				for range 1 + rng.IntN(3) {
					flipBit(t, path, rng.Int64N(info.Size()))
				}
			}
		})
		im.store.opts.packsCold = round%4 != 0
		for range 100 {
			if rng.IntN(20) == 0 {
				im.PrefetchHot()
			}
			page, limit := rng.IntN(len(m)), 1+rng.IntN(100)
			data, n := im.Ready(uint64(page), limit)
			if err := samePages(data, m[page:page+n]); n > limit || err != nil {
				t.Fatalf("round %d: Ready(%d, %d): %d pages, %v", round, page, limit, n, err)
			}
			data, n, err := im.Load(uint64(page), limit)
			if n < 1 || n > limit || err != nil {
				t.Fatalf("round %d: Load(%d, %d): %d pages, %v", round, page, limit, n, err)
			}
			if err := samePages(data, m[page:page+n]); err != nil {
				t.Fatalf("round %d: Load(%d, %d): %v", round, page, limit, err)
			}
		}
	}
}

func TestHotPathWithACopyDoesNotAllocate(t *testing.T) {
	im, _ := hotImage(t, append(seeds(1, 128), 0), []PageRun{{0, 64}, {100, 1}}, nil)
	page := uint64(0)
	check := func(name string, fn func()) {
		t.Helper()
		if n := testing.AllocsPerRun(60, fn); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	check("the first Load of a page with a copy", func() {
		if data, n, err := im.Load(page, 1); n != 1 || err != nil || !copied(im, data) {
			t.Fatal(n, err)
		}
		page++
	})
	check("Load of a page that is known", func() { im.Load(5, 16) })
	check("Ready", func() { im.Ready(5, 16) })
	check("Ready of a page without a copy", func() { im.Ready(110, 16) })
	im.store.opts.packsCold = false
	check("Load of a page that may be in memory in its pack", func() { im.Load(100, 1) })
}

func TestCloseWhileTheCopyIsRead(t *testing.T) {
	m := seeds(1, 3000)
	im, _ := hotImage(t, m, []PageRun{{1000, 2000}, {0, 1000}}, nil)
	store := im.store
	for range 5 {
		snap, err := store.Snapshot(mustName("a"))
		if err != nil {
			t.Fatal(err)
		}
		im, err := snap.Image()
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				im.PrefetchHot()
				for page := uint64(i); ; page = (page + 7) % 3000 {
					im.Ready(page, 8)
					if _, _, err := im.Load(page, 8); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		wg.Go(func() {
			if err := snap.SetWorkingSet(t.Context(), WorkingSet{Order: []PageRun{{0, 3000}}}); err != nil && !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
		if err := snap.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		im.PrefetchHot()
		if _, err := snap.WorkingSet(); !errors.Is(err, ErrClosed) {
			t.Errorf("WorkingSet after Close: %v", err)
		}
	}
	store.Close()
	im.PrefetchHot()
	checkNoLeftovers(t, store)
}

func TestVerifyComparesTheCopy(t *testing.T) {
	s := newStore(t)
	m := append(seeds(1, 100), 0)
	for _, name := range []string{"a", "b", "c", "d", "other/e", "sound"} {
		mustImport(t, s, name, m)
		if err := setWorkingSet(t.Context(), s, name, WorkingSet{Hint: []byte("x"), Order: []PageRun{{40, 60}, {3, 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	var last Progress
	report, err := s.Verify(t.Context(), func(p Progress) { last = p })
	if err != nil || !report.OK() || report.HotPages != 6*61 || report.Pages != 200 {
		t.Errorf("Verify of a sound store: %+v, %v", report, err)
	}
	if last.DoneBytes != last.TotalBytes || last.DoneBytes < (200+6*61)*PageSize {
		t.Errorf("progress ended with %+v", last)
	}
	flipBit(t, hotPath(s, "a"), 20*PageSize) // page 19, image page 59
	flipBit(t, hotPath(s, "a"), 61*PageSize)
	flipBit(t, hotPath(s, "b"), 100)
	truncate(t, hotPath(s, "c"), 10*PageSize)
	edit(t, hotPath(s, "d"), 61, func(b []byte) { b[72] = 41 }) // the last of the run is zero, the others are moved
	edit(t, hotPath(s, "other/e"), 61, func(b []byte) { b[72+16] = 4 })
	report, err = s.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.OK() || len(report.BadSnapshots) != 0 || len(report.BadPacks) != 0 || report.BadPageCount != 0 {
		t.Errorf("report is %+v", report)
	}
	want := map[string]string{
		"a":       "pages that are bad: 2, the first is page 19, which is to be image page 59",
		"b":       "table",
		"c":       "bytes",
		"d":       "pages that are bad: 60",
		"other/e": "pages that are bad: 1, the first is page 60, which is to be image page 4",
	}
	for _, bad := range report.BadWorkingSets {
		name := bad.Name.String()
		if !errors.Is(bad.Err, ErrCorrupt) || want[name] == "" || !strings.Contains(bad.Err.Error(), want[name]) {
			t.Errorf("%s: %v, want %q", name, bad.Err, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	// Each is repaired by what replaces it, or by nothing.
	for i, name := range []string{"a", "b", "c", "d", "other/e"} {
		set := WorkingSet{}
		if i%2 == 0 {
			set.Order = []PageRun{{0, 101}}
		}
		if err := setWorkingSet(t.Context(), s, name, set); err != nil {
			t.Error(err)
		}
	}
	if err := checkVerify(t, s); err != nil {
		t.Error(err)
	}
}

// TestKilledWriterOfAWorkingSetLeavesTheOldOneOrTheNew kills a real process at each of its steps, or soon after.
func TestKilledWriterOfAWorkingSetLeavesTheOldOneOrTheNew(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, childPages))
	for steps, done := 1, false; !done; steps++ {
		if err := setWorkingSet(t.Context(), s, "a", oldSetOf(100)); err != nil {
			t.Fatal(err)
		}
		child, out := startChild(t, "working set", s.Dir())
		for i := 0; i < steps && !done && out.Scan(); i++ {
			done = out.Text() == "done"
		}
		child.Process.Kill()
		child.Wait()
		got, err := workingSetOf(s, "a")
		if err != nil {
			t.Fatal(err)
		}
		if done && string(got.Hint) != "new" || len(got.Order) != 1 {
			t.Fatalf("after %d steps the hint is %q, and the copy has %d runs", steps, got.Hint, len(got.Order))
		}
		if n := got.Order[0].Pages; n != 100 && n != childPages || string(got.Hint) != "old" && string(got.Hint) != "new" {
			t.Errorf("after %d steps the hint is %q, and the copy has %d pages", steps, got.Hint, n)
		}
		if err := checkVerify(t, s); err != nil {
			t.Error(err)
		}
		mustImport(t, s, fmt.Sprint("sweeps", steps), seeds(1, 3))
		checkNoLeftovers(t, s)
		if steps > 100 {
			t.Fatal("the child has not ended")
		}
	}
}

// BenchmarkReadyOfACopy is BenchmarkReady with a twentieth of the pages in a packed copy, in runs of two and in no order: pages that
// have a copy and pages that have none.
func BenchmarkReadyOfACopy(b *testing.B) {
	for _, hit := range []bool{true, false} {
		b.Run(map[bool]string{true: "copied", false: "not copied"}[hit], func(b *testing.B) {
			s := benchStore(b)
			var order []PageRun
			for page := uint64(0); page < benchPages; page += 40 {
				order = append(order, PageRun{page, 2})
			}
			rand.New(rand.NewPCG(1, 0)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			if err := setWorkingSet(b.Context(), s, "a", WorkingSet{Order: order}); err != nil {
				b.Fatal(err)
			}
			s.opts.packsCold = true
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
			page, off := uint64(0), uint64(0)
			if !hit {
				off = 20
			}
			for b.Loop() {
				page = (page + 7919) % (benchPages / 40)
				if _, n := im.Ready(page*40+off, 16); n == 0 {
					b.Fatal(page)
				}
			}
		})
	}
}

// BenchmarkColdOrder loads a quarter of an image of 256 MiB, in runs of two pages and in no order, one after the other, with nothing of
// it in memory: from the packs, from the packed copy, and from the copy while it is read ahead.
func BenchmarkColdOrder(b *testing.B) {
	s := benchStore(b)
	var order []PageRun
	for page := uint64(0); page < benchPages; page += 8 {
		order = append(order, PageRun{page, 2})
	}
	rand.New(rand.NewPCG(1, 0)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	if err := setWorkingSet(b.Context(), s, "a", WorkingSet{Order: order}); err != nil {
		b.Fatal(err)
	}
	packs, err := s.namespace(DefaultNamespace).listPacks()
	if err != nil {
		b.Fatal(err)
	}
	files := []string{hotPath(s, "a")}
	for _, p := range packs {
		files = append(files, s.namespace(DefaultNamespace).pack(p.id))
	}
	ways := map[string]func(im *Image, page uint64) error{
		"packs": func(im *Image, page uint64) error { _, err := im.CheckStored(page, 2); return err },
		"copy":  func(im *Image, page uint64) error { _, _, err := im.Load(page, 2); return err },
	}
	for _, way := range []string{"packs", "copy", "copy, read ahead"} {
		b.Run(way, func(b *testing.B) {
			load, ahead := ways[strings.TrimSuffix(way, ", read ahead")], strings.HasSuffix(way, "ahead")
			b.SetBytes(int64(len(order)) * 2 * PageSize)
			for b.Loop() {
				b.StopTimer()
				for _, path := range files {
					dropFromMemory(b, path)
				}
				snap, err := s.Snapshot(mustName("a"))
				if err != nil {
					b.Fatal(err)
				}
				im, err := snap.Image()
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if ahead {
					im.PrefetchHot()
				}
				for _, r := range order {
					if err := load(im, r.Image); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				snap.Close()
				b.StartTimer()
			}
		})
	}
}

func dropFromMemory(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSetWorkingSet packs a twentieth of an image of 256 MiB, and syncs it.
func BenchmarkSetWorkingSet(b *testing.B) {
	s := benchStore(b)
	var order []PageRun
	for page := uint64(0); page < benchPages; page += 40 {
		order = append(order, PageRun{benchPages - 2 - page, 2})
	}
	b.SetBytes(int64(len(order)) * 2 * PageSize)
	for b.Loop() {
		if err := setWorkingSet(b.Context(), s, "a", WorkingSet{Order: order}); err != nil {
			b.Fatal(err)
		}
	}
}
