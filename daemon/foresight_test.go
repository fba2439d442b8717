package daemon

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/pagestore"
	"thaw/restore"
	"thaw/restore/criu"
	"thaw/restore/workingset"
)

// setOf returns a working set of the snapshot "web" that has learned that pages are needed, before the processes run or behind.
func setOf(t *testing.T, store *pagestore.Store, before, behind []uint64) *workingset.Set {
	t.Helper()
	snap := webOf(t, store)
	image, err := snap.Image()
	if err != nil {
		t.Fatal(err)
	}
	set := workingset.NewSet(snap.Digest(), image.Pages())
	r := &workingset.Recording{Digest: set.Digest, ImagePages: set.ImagePages}
	for _, p := range before {
		r.Image = append(r.Image, workingset.Touch{Page: p, Time: -1})
	}
	for _, p := range behind {
		r.Image = append(r.Image, workingset.Touch{Page: p, Time: time.Millisecond, Phase: workingset.PhaseRequest})
	}
	if err := set.Add(r); err != nil {
		t.Fatal(err)
	}
	return set
}

// webOf leases the snapshot "web" until the test ends.
func webOf(t *testing.T, store *pagestore.Store) *pagestore.Snapshot {
	t.Helper()
	snap, err := store.Snapshot(pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: "web"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { snap.Close() })
	return snap
}

func keepSet(t *testing.T, store *pagestore.Store, set *workingset.Set) {
	t.Helper()
	data, err := set.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := webOf(t, store).SetHint(t.Context(), data); err != nil {
		t.Fatal(err)
	}
}

func TestPagesOfTheRestorerComeLast(t *testing.T) {
	store := newStore(t, 100)
	set := setOf(t, store, []uint64{11, 50}, []uint64{10, 12, 13, 49})
	got := restorersLast(set, []restore.Run{{Page: 49, Pages: 2}, {Page: 10, Pages: 4}})
	want := []restore.Run{{Page: 49, Pages: 1}, {Page: 10, Pages: 1}, {Page: 12, Pages: 2}, {Page: 50, Pages: 1}, {Page: 11, Pages: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestSmallWorkingSetThatNamesLargeFilesTakesLittleMemory(t *testing.T) {
	set := workingset.NewSet([32]byte{}, 0)
	r := &workingset.Recording{Digest: set.Digest}
	for i := range 64 {
		touches := []workingset.Touch{{Page: 3}, {Page: maxFilePages - 1}, {Page: maxFilePages + 5}}
		r.Files = append(r.Files, workingset.FileTouches{Path: fmt.Sprintf("/lib/%02d", i), Touches: touches})
	}
	if err := set.Add(r); err != nil {
		t.Fatal(err)
	}
	files := newLearned(set, "").needs.files
	if got := files["/lib/00"].all(); !slices.Equal(got, []pageRun{{3, 1}, {maxFilePages - 1, 1}}) {
		t.Errorf("of the first file: %v", got)
	}
	var pages int
	for _, s := range files {
		pages += len(s) * 64
	}
	if pages > maxSetPages {
		t.Errorf("the files of the set take a bit for each of %d pages, more than %d", pages, maxSetPages)
	}
}

func TestWorkingSetIsThereBeforeTheProcessRuns(t *testing.T) {
	const n = 3000
	store := newStore(t, n)
	keepSet(t, store, setOf(t, store, []uint64{7}, []uint64{100, 101, 102, 2000}))
	d := start(t, store, &Options{RecordShare: -1, Hold: patience})
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	r := connect(t, s, n)
	// As the restorer does, the process touches something before it runs, and is held until the others are there.
	if got := r.target.Read(pages(7, 1)).Must(); string(got) != string(want(t, 7, 1)) {
		t.Error("wrong content in the page that the restorer touches")
	}
	r.finish()
	report := d.session(t, s.ID).WorkingSet
	if report == nil {
		t.Fatal("no working set was used")
	}
	report.Held = 0
	if diff := cmp.Diff(&control.WorkingSetReport{Recordings: 1, PagesMust: 5, PagesBeforeRun: 5}, report); diff != "" && report.PagesBeforeRun != 4 {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if got := r.target.Read(pages(0, n)).Must(); string(got) != string(want(t, 0, n)) {
		t.Error("wrong content")
	}
	if st := d.session(t, s.ID).Counters; st.DemandLate != 0 || st.DemandMissed == 0 {
		t.Errorf("%d pages of the set were waited for, and %d others; want others only", st.DemandLate, st.DemandMissed)
	}
}

// session returns what is told of a session.
func (r *running) session(t *testing.T, id string) *control.Session {
	t.Helper()
	s, err := r.Session(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWorkingSetThatCannotBeUsedIsIgnored(t *testing.T) {
	const n = 600
	foreign := func(t *testing.T, store *pagestore.Store) []byte {
		set := setOf(t, store, nil, []uint64{1})
		set.Digest[0]++
		data, err := set.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, tc := range []struct {
		name string
		data func(t *testing.T, store *pagestore.Store) []byte
		use  control.WorkingSetUse
	}{
		{"of another snapshot", foreign, ""},
		{"broken", func(*testing.T, *pagestore.Store) []byte { return []byte("THAWWSET and nothing else") }, ""},
		{"not wanted", func(t *testing.T, store *pagestore.Store) []byte {
			data, err := setOf(t, store, nil, []uint64{1}).Encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}, control.WorkingSetIgnored},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := newStore(t, n)
			if err := webOf(t, store).SetHint(t.Context(), tc.data(t, store)); err != nil {
				t.Fatal(err)
			}
			d := start(t, store, &Options{RecordShare: -1})
			s := d.create(t, control.SessionRequest{Snapshot: "web", WorkingSet: tc.use})
			r := connect(t, s, n)
			r.finish()
			if got := r.target.Read(pages(0, n)).Must(); string(got) != string(want(t, 0, n)) {
				t.Error("wrong content")
			}
			if done := d.ended(t, s.ID); done.State != control.StateComplete || done.WorkingSet != nil || done.Counters.BytesPreloaded != 0 {
				t.Errorf("the session ended as %+v", done)
			}
		})
	}
}

func TestWorkingSetIsReadAnewWhenItHasChanged(t *testing.T) {
	store := newStore(t, 100)
	var sets workingSets
	snap := webOf(t, store)
	if l, err := sets.of(snap); l != nil || err != nil {
		t.Fatalf("without a working set: %v, %v", l, err)
	}
	for _, want := range [][]uint64{{1, 2, 3}, {50}} {
		keepSet(t, store, setOf(t, store, nil, want))
		l, err := sets.of(snap)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := sets.of(snap); again != l || err != nil {
			t.Errorf("what has not changed was read again: %v", err)
		}
		if diff := cmp.Diff(workingset.RunsOf(want), toSet(l.must)); diff != "" {
			t.Errorf("pages (-want +got):\n%s", diff)
		}
	}
}

func TestAShareOfTheSetIsLeftOutAtRandom(t *testing.T) {
	runs := []restore.Run{{Page: 5, Pages: 40000}, {Page: 100000, Pages: 1}, {Page: 45000, Pages: 3}}
	kept, left := split(runs, rand.New(rand.NewPCG(1, 2)))
	if all := toSet(slices.Concat(kept, left)); workingset.Pages(all) != 40004 || workingset.Compare(all, toSet(runs)).Missed != 0 {
		t.Error("pages were lost, or are in both parts")
	}
	if n := pagesOf(left); n < 40000/leftOutShare/2 || n > 40000/leftOutShare*2 {
		t.Errorf("%d pages of 40004 were left out, want about one in %d", n, leftOutShare)
	}
	for _, r := range left {
		if from, to := r.Page, r.Page+r.Pages; from != 5 && from%windowPages != 0 && from != 100000 && from != 45000 ||
			to != 40005 && to%windowPages != 0 && to != 100001 && to != 45003 {
			t.Errorf("%d pages from %d on were left out: their windows come along with each other", r.Pages, r.Page)
		}
	}
}

func TestWhatWasLeftOutTellsOfTheWholeSet(t *testing.T) {
	set := &learned{must: []restore.Run{{Page: 0, Pages: 100}}}
	f := &foresight{learned: set, known: set, leftOut: []restore.Run{{Page: 10, Pages: 10}}}
	// Of the ten that were left out eight are needed, so of a hundred eighty; and twenty others.
	got := f.worth([]workingset.Run{{Page: 12, Pages: 8}, {Page: 500, Pages: 20}})
	if diff := cmp.Diff(&workingset.Comparison{Installed: 10, Used: 8, Unused: 2, Missed: 20, Precision: 0.8, Recall: 0.8}, got); diff != "" {
		t.Errorf("worth (-want +got):\n%s", diff)
	}
	got = (&foresight{known: set}).worth([]workingset.Run{{Page: 90, Pages: 20}}) // recorded without the set
	if diff := cmp.Diff(&workingset.Comparison{Installed: 100, Used: 10, Unused: 90, Missed: 10, Precision: 0.1, Recall: 0.5}, got); diff != "" {
		t.Errorf("worth of the whole set (-want +got):\n%s", diff)
	}
	if (&foresight{}).worth(nil) != nil {
		t.Error("something is told of a set that there is not")
	}
}

func TestTouchesOfMappedMemoryStandForTheirWindows(t *testing.T) {
	rec := &workingset.Recording{
		Image: []workingset.Touch{{Page: 100, Write: true}, {Page: 7}},
		Files: []workingset.FileTouches{{Path: "/lib/x", Touches: []workingset.Touch{{Page: 3, Time: 5}}}},
	}
	// Mapped so that the window of page 100 begins 3 pages before it, and the mapping 2 pages.
	addr := uint64(base/restore.PageSize + 16*3)
	widen(rec, map[int][]restore.Extent{1: {{Addr: (addr + 1) * restore.PageSize, Pages: 500, Image: 98}}})
	var got []uint64
	for _, touch := range rec.Image {
		got = append(got, touch.Page)
		if touch.Write != (touch.Page == 100) {
			t.Errorf("page %d written: %v", touch.Page, touch.Write)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff([]uint64{7, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112}, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	addPresent(rec, map[string]pageSet{"/lib/x": pageSet{}.addRun(2, 2), "/lib/y": pageSet{}.addRun(9, 1)})
	files := []workingset.FileTouches{
		{Path: "/lib/x", Touches: []workingset.Touch{{Page: 3, Time: 5}, {Page: 2, Time: -1}}},
		{Path: "/lib/y", Touches: []workingset.Touch{{Page: 9, Time: -1}}},
	}
	if diff := cmp.Diff(files, rec.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestWindowsAreTouchedOnce(t *testing.T) {
	const window = aroundBytes
	next := windows([]restore.Extent{
		{Addr: 3 * window, Pages: 40}, {Addr: 3*window + 45*restore.PageSize, Pages: 1}, {Addr: 10*window + restore.PageSize, Pages: 1}, {Addr: window, Pages: 16},
	})
	var got []uint64
	for addr, ok := next(); ok; addr, ok = next() {
		got = append(got, addr)
	}
	want := []uint64{3 * window, 4 * window, 5 * window, 10*window + restore.PageSize, window}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestPopulateEntersPagesOfAMappedFile(t *testing.T) {
	const n = 400
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(n * restore.PageSize); err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, n*restore.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	start := uint64(uintptr(unsafe.Pointer(&memory[0])))
	hole := restore.Extent{Addr: 1 << 40, Pages: 1} // nothing is mapped there
	populate(t.Context(), os.Getpid(), []restore.Extent{{Addr: start + 10*restore.PageSize, Pages: 1}, hole, {Addr: start + 100*restore.PageSize, Pages: 200}}, 0)
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer pagemap.Close()
	present := presentPages(t.Context(), pagemap, []criu.FileRange{{PageRange: criu.PageRange{Addr: start, Pages: n}, Path: "f"}})["f"]
	if !present.has(10) || present.count(100, 200) != 200 {
		t.Errorf("present: %v", present.all())
	}
	if got := populate(t.Context(), 1<<22, []restore.Extent{{Addr: start, Pages: 1}}, time.Hour); got != 0 {
		t.Errorf("%d windows of a process that there is not were touched", got)
	}
}
