package pagestore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/pack"
)

func TestWorkingSetIsKeptUntilItIsReplaced(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", append(seeds(1, 70), 0, 0, 71))
	mustImport(t, s, "b", seeds(1, 70))
	if _, err := mustOpen(t, s, "a").WorkingSet(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("WorkingSet where there is none: %v, want %v", err, fs.ErrNotExist)
	}
	tests := []struct {
		name      string
		set, want WorkingSet
	}{
		{"hint and pages", WorkingSet{Hint: []byte("one"), Order: []PageRun{{60, 3}, {5, 1}}}, WorkingSet{Hint: []byte("one"), Order: []PageRun{{60, 3}, {5, 1}}}},
		{"pages only", WorkingSet{Order: []PageRun{{1, 1}}}, WorkingSet{Order: []PageRun{{1, 1}}}},
		{"a hint only", WorkingSet{Hint: []byte{0}}, WorkingSet{Hint: []byte{0}}},
		{"zeros are left out", WorkingSet{Order: []PageRun{{68, 5}}}, WorkingSet{Order: []PageRun{{68, 2}, {72, 1}}}},
		{"zeros alone are nothing", WorkingSet{Order: []PageRun{{70, 2}}}, WorkingSet{}},
		{"runs that follow each other are one", WorkingSet{Order: []PageRun{{5, 2}, {7, 0}, {7, 60}}}, WorkingSet{Order: []PageRun{{5, 62}}}},
		{"the first of two counts", WorkingSet{Order: []PageRun{{9, 1}, {8, 4}, {8, 4}}}, WorkingSet{Order: []PageRun{{9, 1}, {8, 1}, {10, 2}}}},
		{"nothing", WorkingSet{}, WorkingSet{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := setWorkingSet(t.Context(), s, "a", tt.set); err != nil {
				t.Fatal(err)
			}
			got, err := workingSetOf(s, "a")
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if got, err := workingSetOf(s, "b"); err != nil || got.Hint != nil || got.Order != nil {
				t.Errorf("the other snapshot has %+v, %v", got, err)
			}
			if err := errors.Join(checkImage(s, "a", append(seeds(1, 70), 0, 0, 71)), checkVerify(t, s)); err != nil {
				t.Error(err)
			}
			checkNoLeftovers(t, s)
		})
	}
}

func TestHintIsReplacedAlone(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 70))
	snap := mustOpen(t, s, "a")
	none, err := snap.HintVersion()
	if err != nil || none != (HintVersion{}) {
		t.Errorf("version where there is no hint: %+v, %v", none, err)
	}
	if err := snap.SetWorkingSet(t.Context(), WorkingSet{Hint: []byte("one"), Order: []PageRun{{3, 5}}}); err != nil {
		t.Fatal(err)
	}
	seen := map[HintVersion]bool{none: true}
	for _, hint := range []string{"two", "six", ""} { // of the same size
		version, err := snap.HintVersion()
		if again, _ := snap.HintVersion(); err != nil || seen[version] || again != version {
			t.Errorf("version before %q: %+v, %v", hint, version, err)
		}
		seen[version] = true
		if err := snap.SetHint(t.Context(), []byte(hint)); err != nil {
			t.Fatal(err)
		}
		got, err := workingSetOf(s, "a")
		if diff := cmp.Diff([]PageRun{{3, 5}}, got.Order); err != nil || diff != "" || string(got.Hint) != hint {
			t.Errorf("%v, hint %q, copy (-want +got):\n%s", err, got.Hint, diff)
		}
	}
	checkNoLeftovers(t, s)
	if err := snap.SetHint(t.Context(), make([]byte, maxHintLen+1)); !errors.Is(err, ErrInput) {
		t.Errorf("hint that is too large: %v", err)
	}
	if err := s.Remove(t.Context(), snap.Name()); err != nil {
		t.Fatal(err)
	}
	if err := snap.SetHint(t.Context(), []byte("x")); !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrBeingRemoved) {
		t.Errorf("hint of a snapshot that was removed: %v", err)
	}
}

func TestDropLeavesTheSnapshotAsItWas(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 70))
	before := tree(t, s.Dir())
	snap := mustOpen(t, s, "a")
	if err := snap.SetWorkingSet(t.Context(), WorkingSet{Hint: []byte("x"), Order: []PageRun{{0, 70}}}); err != nil {
		t.Fatal(err)
	}
	entries, err := s.List()
	if err != nil || len(entries) != 1 || entries[0].HintBytes != 1 || entries[0].HotBytes != 71*PageSize || entries[0].Learned.IsZero() {
		t.Errorf("List: %+v, %v", entries, err)
	}
	if hint, packed := snap.WorkingSetBytes(); hint != 1 || packed != 71*PageSize {
		t.Errorf("sizes are %d and %d bytes", hint, packed)
	}
	for range 2 {
		if err := snap.DropWorkingSet(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, tree(t, s.Dir())); diff != "" {
			t.Errorf("what is left (-want +got):\n%s", diff)
		}
	}
}

func TestOrderOutsideOfTheImageChangesNothing(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	if err := setWorkingSet(t.Context(), s, "a", oldSetOf(10)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, s.Dir())
	for _, bad := range []PageRun{{10, 1}, {0, 11}, {9, 2}, {1 << 63, 1 << 63}, {1<<64 - 1, 1}, {1, 1<<64 - 1}} {
		w := WorkingSet{Hint: []byte("y"), Order: []PageRun{{0, 1}, bad}}
		if err := setWorkingSet(t.Context(), s, "a", w); !errors.Is(err, ErrRange) {
			t.Errorf("%v: %v, want %v", bad, err, ErrRange)
		}
	}
	if diff := cmp.Diff(before, tree(t, s.Dir())); diff != "" {
		t.Errorf("the store has changed (-before +after):\n%s", diff)
	}
}

// oldSetOf is a working set of an image of that many pages.
func oldSetOf(pages uint64) WorkingSet {
	return WorkingSet{Hint: []byte("old"), Order: []PageRun{{0, pages}}}
}

func TestLimitsOfAWorkingSet(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	if err := setWorkingSet(t.Context(), s, "a", WorkingSet{Hint: make([]byte, maxHintLen+1)}); !errors.Is(err, ErrInput) {
		t.Errorf("a hint that is too long: %v, want %v", err, ErrInput)
	}
	p := hotPlan{seen: make(map[uint64]*[8]uint64)}
	if err := p.add(0, hot.MaxPages); err != nil || p.pages != hot.MaxPages || len(p.runs) != 1 {
		t.Errorf("as many pages as may be: %d in %d runs, %v", p.pages, len(p.runs), err)
	}
	if err := p.add(10, 100); err != nil {
		t.Errorf("pages that are there already: %v", err)
	}
	if err := p.add(hot.MaxPages, 1); !errors.Is(err, ErrInput) {
		t.Errorf("one more: %v, want %v", err, ErrInput)
	}
	// A hint that is too long on the disk is not read whole.
	path := filepath.Join(s.namespace("default").snapshot("a"), hintFile)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	truncate(t, path, maxHintLen+1)
	if _, err := mustOpen(t, s, "a").WorkingSet(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a long file: %v, want %v", err, ErrCorrupt)
	}
	report, err := s.Verify(t.Context(), nil)
	if err != nil || report.OK() || len(report.BadWorkingSets) != 1 {
		t.Errorf("Verify: %+v, %v", report, err)
	}
	remove(t, path)
}

func TestPageThatIsBadIsNotCopied(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 100))
	ids, paths := packPaths(t, s, "a")
	if err := setWorkingSet(t.Context(), s, "a", oldSetOf(100)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, s.Dir())
	snap := mustOpen(t, s, "a")
	im, err := snap.Image()
	if err != nil {
		t.Fatal(err)
	}
	// It is read again for the copy, also if it was sound once.
	if _, err := im.CheckStored(0, 64); err != nil {
		t.Fatal(err)
	}
	flipBit(t, paths[0], pack.Offset(42)+7)
	err = snap.SetWorkingSet(t.Context(), WorkingSet{Order: []PageRun{{90, 1}, {40, 10}}})
	wantPageError(t, err, ids[0], 42, ErrCorrupt)
	var pe *PageError
	if errors.As(err, &pe) && (pe.Image != 42 || pe.Snapshot != mustName("a")) {
		t.Errorf("error names image page %d of %s", pe.Image, pe.Snapshot)
	}
	if diff := cmp.Diff(before, tree(t, s.Dir())); diff != "" {
		t.Errorf("the store has changed (-before +after):\n%s", diff)
	}
	flipBit(t, paths[0], pack.Offset(42)+7)
	snap.Close()

	remove(t, paths[1])
	err = setWorkingSet(t.Context(), s, "a", oldSetOf(100))
	wantPageError(t, err, ids[1], 0, ErrMissingPack)
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Fatal(err)
	}
}

func TestWorkingSetOfASnapshotThatLostItsName(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, s *Store, snap *Snapshot)
		want   error
	}{
		{"removed", func(t *testing.T, s *Store, _ *Snapshot) {}, ErrBeingRemoved},
		{"removed and replaced", func(t *testing.T, s *Store, _ *Snapshot) { mustImport(t, s, "a", seeds(11, 10)) }, ErrNotFound},
		{"removed and replaced by its like", func(t *testing.T, s *Store, _ *Snapshot) { mustImport(t, s, "a", seeds(1, 10)) }, ErrNotFound},
		{"closed", func(t *testing.T, s *Store, snap *Snapshot) { snap.Close() }, ErrClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			mustImport(t, s, "a", seeds(1, 10))
			snap := mustOpen(t, s, "a")
			if err := snap.SetWorkingSet(t.Context(), oldSetOf(10)); err != nil {
				t.Fatal(err)
			}
			if err := s.Remove(t.Context(), mustName("a")); err != nil {
				t.Fatal(err)
			}
			if hint, err := snap.WorkingSet(); err != nil || string(hint) != "old" {
				t.Errorf("hint of a removed snapshot: %q, %v", hint, err)
			}
			if im, err := snap.Image(); err != nil {
				t.Error(err)
			} else if _, n, err := im.Load(0, 10); n != 10 || err != nil {
				t.Errorf("its pages: %d, %v", n, err)
			}
			tt.change(t, s, snap)
			before := tree(t, s.Dir())
			for name, err := range map[string]error{
				"set":  snap.SetWorkingSet(t.Context(), WorkingSet{Hint: []byte("new"), Order: []PageRun{{3, 4}}}),
				"drop": snap.DropWorkingSet(t.Context()),
			} {
				if !errors.Is(err, tt.want) {
					t.Errorf("%s: %v, want %v", name, err, tt.want)
				}
			}
			if diff := cmp.Diff(before, tree(t, s.Dir())); diff != "" {
				t.Errorf("the store has changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestRemoveAndCollectionTakeTheWorkingSetAlong(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	if err := setWorkingSet(t.Context(), s, "a", oldSetOf(10)); err != nil {
		t.Fatal(err)
	}
	if report, err := s.GC(t.Context()); err != nil || report.PacksDeleted != 0 {
		t.Errorf("GC: %+v, %v", report, err)
	}
	if got, err := workingSetOf(s, "a"); err != nil || string(got.Hint) != "old" {
		t.Errorf("after GC: %+v, %v", got, err)
	}
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustImport(t, s, "a", seeds(1, 10)) // the same again has none
	if got, err := workingSetOf(s, "a"); err != nil || got.Hint != nil || got.Order != nil {
		t.Errorf("a new snapshot has %+v, %v", got, err)
	}
	if err := s.Remove(t.Context(), mustName("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkNoLeftovers(t, s)
}

func TestSettersWaitForTheirTurn(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	other := openStore(t, s.Dir(), &Options{NoWait: true})
	snap := mustOpen(t, other, "a")
	unlock, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := snap.SetWorkingSet(t.Context(), oldSetOf(10)); !errors.Is(err, ErrLocked) {
		t.Errorf("while another writes: %v, want %v", err, ErrLocked)
	}
	unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := tree(t, s.Dir())
	for name, w := range map[string]WorkingSet{"set": oldSetOf(10), "drop": {}} {
		if err := snap.SetWorkingSet(ctx, w); !errors.Is(err, context.Canceled) {
			t.Errorf("%s that was cancelled: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, tree(t, s.Dir())); diff != "" {
		t.Errorf("the store has changed (-before +after):\n%s", diff)
	}
	if err := snap.SetWorkingSet(t.Context(), oldSetOf(10)); err != nil {
		t.Error(err)
	}
}

func TestLargeCopyIsThatOfItsPages(t *testing.T) {
	s := newStore(t)
	const pages = 3000 // more than one buffer, and than one step of a prefetch
	m := seeds(1, pages)
	mustImport(t, s, "a", m)
	var w WorkingSet
	for page := uint64(0); page < pages; page += 3 {
		w.Order = append(w.Order, PageRun{pages - 1 - page, 1})
	}
	w.Order = append(w.Order, PageRun{0, pages})
	if err := setWorkingSet(t.Context(), s, "a", w); err != nil {
		t.Fatal(err)
	}
	got, err := workingSetOf(s, "a")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(s.namespace("default").snapshot("a"), hotFile))
	if err != nil {
		t.Fatal(err)
	}
	var order []uint64
	for _, r := range got.Order {
		for i := range r.Pages {
			order = append(order, r.Image+i)
		}
	}
	if len(order) != pages || !slices.Equal(order[:3], []uint64{2999, 2996, 2993}) {
		t.Fatalf("%d pages, from %v on", len(order), order[:3])
	}
	content := data[len(data)-pages*PageSize:]
	for i, page := range order {
		if !slices.Equal(content[i*PageSize:][:PageSize], pageOf(m[page])) {
			t.Fatalf("page %d of the file is not image page %d", i, page)
		}
	}
}

func TestOrderForElsewhere(t *testing.T) {
	far := newStore(t)
	m := append(seeds(1, 100), make(memory, 10)...)
	mustImport(t, far, "a", m)
	order := func(s *Store) []PageRun {
		t.Helper()
		runs, _, err := mustOpen(t, s, "a").HotOrder()
		if err != nil {
			t.Fatal(err)
		}
		return runs
	}
	w := WorkingSet{Order: []PageRun{{50, 5}}, Far: []PageRun{{50, 5}, {0, 40}, {98, 7}, {52, 1}}}
	if err := setWorkingSet(t.Context(), far, "a", w); err != nil {
		t.Fatal(err)
	}
	want := []PageRun{{50, 5}, {0, 40}, {98, 2}} // neither zeros nor a page twice
	if got := order(far); !slices.Equal(got, want) {
		t.Errorf("order is %v, want %v", got, want)
	}
	// A stub has it, and keeps it: its hot object is what it is.
	s := emptyStore(t, t.TempDir(), newStoreOrigin(far), Options{})
	mustAdopt(t, s, far, "a")
	if err := setWorkingSet(t.Context(), s, "a", WorkingSet{Far: []PageRun{{1, 1}}}); err != nil {
		t.Fatal(err)
	}
	if got := order(s); !slices.Equal(got, want) {
		t.Errorf("order of a stub is %v, want %v", got, want)
	}
	if err := mustImage(t, s, "a").Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(checkImage(s, "a", m), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
	// A file that is of no use is done without, and so is none.
	name := filepath.Join(far.namespace("default").snapshot("a"), hotOrderFile)
	flipBit(t, name, 80)
	if got := order(far); !slices.Equal(got, w.Order) {
		t.Errorf("order with a damaged file is %v, want %v", got, w.Order)
	}
	if err := setWorkingSet(t.Context(), far, "a", WorkingSet{Order: w.Order}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	if got := order(far); !slices.Equal(got, w.Order) {
		t.Errorf("order without a file is %v, want %v", got, w.Order)
	}
}
