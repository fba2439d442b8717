package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/pagestore"
	"thaw/restore"
	"thaw/restore/criu"
)

// planFor plans the mapping of pages of the snapshot "web" and returns what will be mapped.
func planFor(t *testing.T, store *pagestore.Store, binds []control.Bind, ranges ...criu.PageRange) ([]restore.Extent, *criu.FilePlan) {
	t.Helper()
	o, err := openSnapshot(store, "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.close() })
	p := filePlanner{image: o.image, binds: binds, files: make(map[string]int)}
	l := o.layouts[imagePID]
	extents, err := p.add(imagePID, &l, ranges)
	if err != nil {
		t.Fatal(err)
	}
	return extents, &p.plan
}

// at returns n pages of the snapshot's memory, skip pages behind its beginning.
func at(skip, n uint64) criu.PageRange {
	return criu.PageRange{Addr: base + skip*restore.PageSize, Pages: n}
}

func everything() []control.Bind { return []control.Bind{{Source: "/", Target: "/"}} }

func TestIntactMemoryIsMapped(t *testing.T) {
	const n = 400
	store := newStore(t, n)
	got, plan := planFor(t, store, everything(), at(10, 100), at(200, 150), at(n-2, 2))
	want := []restore.Extent{{Addr: base + 10*restore.PageSize, Pages: 100, Image: 10}, {Addr: base + 200*restore.PageSize, Pages: 150, Image: 200}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("extents (-want +got):\n%s", diff)
	}
	path, err := filepath.EvalSymlinks(onePack(t, store))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]criu.MappedFile{{Path: path, Size: info.Size()}}, plan.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, m := range plan.Tasks[imagePID] {
		page := make([]byte, restore.PageSize)
		f, err := os.Open(plan.Files[m.File].Path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(page, m.Offset); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if string(page) != string(wantPage(t, (m.Addr-base)/restore.PageSize)) {
			t.Errorf("what is mapped at %#x is not what was frozen there", m.Addr)
		}
	}
}

func wantPage(t *testing.T, page uint64) []byte { return want(t, page, 1) }

func TestADamagedRunIsNotMapped(t *testing.T) {
	store := newStore(t, 400)
	flip(t, onePack(t, store), 50)
	got, _ := planFor(t, store, everything(), at(0, 100), at(200, 100))
	if len(got) != 1 || got[0].Addr != base+200*restore.PageSize {
		t.Errorf("mapped are %+v, want the run without the damaged page only", got)
	}
}

func TestWhatIsNotInMemoryIsNotWaitedFor(t *testing.T) {
	store := newStore(t, 400)
	f, err := os.Open(onePack(t, store))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if got, _ := planFor(t, store, everything(), at(0, 400)); got != nil {
		t.Errorf("mapped are %+v, of which nothing is in memory or known to be intact", got)
	}
	// Once it has been read and checked it is.
	o, err := openSnapshot(store, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if !check(o.image, restore.Extent{Pages: 400}) {
		t.Fatal("the memory is not intact")
	}
	if got, _ := planFor(t, store, everything(), at(0, 400)); len(got) != 1 || got[0].Pages != 400 {
		t.Errorf("mapped are %+v, want all", got)
	}
}

func TestPacksThatProcessesDoNotSeeAreNotMapped(t *testing.T) {
	store := newStore(t, 400)
	for name, binds := range map[string][]control.Bind{
		"nothing":         nil,
		"another folder":  {{Source: t.TempDir(), Target: "/mnt"}},
		"a folder beside": {{Source: filepath.Join(filepath.Dir(filepath.Dir(onePack(t, store))), "snapshots"), Target: "/mnt"}},
		"one that is hidden": {
			{Source: filepath.Dir(onePack(t, store)), Target: "/mnt/packs"}, {Source: t.TempDir(), Target: "/mnt/packs"},
		},
	} {
		if got, _ := planFor(t, store, binds, at(0, 400)); got != nil {
			t.Errorf("they see %s, and mapped are %+v", name, got)
		}
	}
}

func TestPathsAreFoundThroughTheInnermostBind(t *testing.T) {
	outer := t.TempDir()
	inner := filepath.Join(outer, "packs")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(inner, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(inner, "x.pack")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	binds := []control.Bind{{Source: outer, Target: "/outer"}, {Source: link, Target: "/inner"}}
	if bind, seen := seenAt(file, binds); bind != &binds[1] || seen != "/inner/x.pack" {
		t.Errorf("%s is seen through %v as %q", file, bind, seen)
	}
	if path, ok := foundAt("/inner/a/b.so", []control.Bind{{Source: "/rootfs", Target: "/"}, {Source: "/host", Target: "/inner"}}); !ok || path != "/host/a/b.so" {
		t.Errorf("found at %q, %v", path, ok)
	}
	if path, ok := foundAt("/usr/b.so", []control.Bind{{Source: "/rootfs", Target: "/"}, {Source: "/host", Target: "/inner"}}); !ok || path != "/rootfs/usr/b.so" {
		t.Errorf("found at %q, %v", path, ok)
	}
	if path, ok := foundAt("/usr/b.so", []control.Bind{{Source: "/host", Target: "/inner"}}); ok {
		t.Errorf("found at %q", path)
	}
}

func TestASnapshotWithoutAListIsCopied(t *testing.T) {
	const n = 200
	d := start(t, newStore(t, n), nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web", Binds: everything()})
	if s.Progress.PagesMapped != 0 || s.Progress.PagesTotal != n {
		t.Errorf("progress is %+v", s.Progress)
	}
	if err := d.Delete(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryThatIsWrittenToIsNotMapped(t *testing.T) {
	run := fileRun{Extent: restore.Extent{Addr: base, Pages: 1000, Image: 100}, file: 3, offset: 5 << 20}
	part := func(skip, n uint64) fileRun {
		return fileRun{restore.Extent{Addr: base + skip*restore.PageSize, Pages: n, Image: 100 + skip}, 3, 5<<20 + int64(skip)*restore.PageSize}
	}
	for _, tc := range []struct {
		name    string
		written pageSet
		want    []fileRun
	}{
		{"nothing is known of writes", nil, []fileRun{run}},
		{"too few", pageSet{}.addRun(320, writtenLeast-1), []fileRun{run}},
		// Blocks begin at multiples of 64 in the image: this is [320, 384).
		{"one block", pageSet{}.addRun(330, writtenLeast), []fileRun{part(0, 220), part(284, 716)}},
		{"at both ends", pageSet{}.addRun(100, 20).addRun(1090, 10), []fileRun{part(28, 988-28)}},
		// Between [192, 256) and [320, 384) lie just as many pages as are worth a mapping, between that and [384, 512) none.
		{"with a part between", pageSet{}.addRun(192, 64).addRun(320, 64).addRun(400, 100), []fileRun{part(0, 92), part(156, 64), part(412, 588)}},
		{"all of it", pageSet{}.addRun(0, 2000), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := (&needs{written: tc.written}).appendRead(nil, run)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(fileRun{})); diff != "" {
				t.Errorf("mapped (-want +got):\n%s", diff)
			}
		})
	}
	if got := (*needs)(nil).appendRead(nil, run); len(got) != 1 {
		t.Errorf("without a working set %d parts are mapped", len(got))
	}
}
