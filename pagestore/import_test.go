package pagestore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestImportRoundTrip(t *testing.T) {
	tests := []struct {
		name string
		m    memory
	}{
		{"no memory at all", memory{}},
		{"one page", memory{1}},
		{"only zeros", memory{0, 0, 0}},
		{"zeros around content", memory{0, 1, 2, 0}},
		{"zeros inside content", memory{1, 0, 2, 0, 0, 3}},
		{"a page that repeats", memory{1, 1, 2, 1}},
		{"more than a chunk", seeds(1, chunkPages+3)},
		{"an exact number of chunks", seeds(1, 2*chunkPages)},
		{"repeats across packs and chunks", append(seeds(1, 300), seeds(1, 300)...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			report := mustImport(t, s, "a", tt.m)
			if err := checkImage(s, "a", tt.m); err != nil {
				t.Error(err)
			}
			if err := checkVerify(t, s); err != nil {
				t.Error(err)
			}
			distinct, zero := make(map[uint64]bool), uint64(0)
			for _, seed := range tt.m {
				if seed == 0 {
					zero++
				} else {
					distinct[seed] = true
				}
			}
			pages, fresh := uint64(len(tt.m)), uint64(len(distinct))
			want := Report{
				Name:           mustName("a"),
				Pages:          pages,
				ZeroPages:      zero,
				NewPages:       fresh,
				DuplicatePages: pages - zero - fresh,
				Bytes:          pages * PageSize,
				NewBytes:       fresh * PageSize,
				NewPacks:       int(fresh+63) / 64,
			}
			ignore := cmpopts.IgnoreFields(Report{}, "Digest", "Duration", "PageDuration", "SyncDuration")
			if diff := cmp.Diff(want, report, ignore); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if snap := mustOpen(t, s, "a"); snap.Digest() != report.Digest {
				t.Errorf("digest is %s, the report says %s", snap.Digest(), report.Digest)
			}
		})
	}
}

// TestImportIsTheSameWhateverTheWorkers imports pages that repeat, over many chunks and packs.
func TestImportIsTheSameWhateverTheWorkers(t *testing.T) {
	m := append(seeds(1, 5*chunkPages), seeds(chunkPages/2, 2*chunkPages)...)
	m = append(append(m, seeds(7, 500)...), seeds(10_000, 3*chunkPages+1)...)
	var want Digest
	for workers := 1; workers <= 8; workers++ {
		s := newStore(t)
		mustImport(t, s, "known", seeds(3*chunkPages, 100))
		report, err := s.Import(t.Context(), mustName("a"), m.input(), &ImportOptions{Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		if workers == 1 {
			want = report.Digest
		} else if report.Digest != want {
			t.Errorf("with %d workers the manifest is %s, with one %s", workers, report.Digest, want)
		}
		if err := errors.Join(checkImage(s, "a", m), checkVerify(t, s)); err != nil {
			t.Error(err)
		}
	}
}

// readerFunc is an input file.
type readerFunc func(p []byte, off int64) (int, error)

func (f readerFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

func TestPagesAreReadWhileTheSkeletonIsWritten(t *testing.T) {
	s, m := newStore(t), seeds(1, 2*chunkPages)
	in := m.input()
	data, read := in.Files[0], make(chan struct{})
	var once sync.Once
	in.Files[0] = readerFunc(func(p []byte, off int64) (int, error) {
		once.Do(func() { close(read) })
		return data.ReadAt(p, off)
	})
	in.Skeleton = func(string) error {
		<-read
		return nil
	}
	if _, err := s.Import(t.Context(), mustName("a"), in, nil); err != nil {
		t.Fatal(err)
	}
	if err := checkImage(s, "a", m); err != nil {
		t.Error(err)
	}
}

func TestImportKeepsSpacesSkeletonAndHost(t *testing.T) {
	s := newStore(t)
	in := Input{
		Spaces: []Space{
			{
				ID:      7,
				Regions: []Region{{Start: 0x5000, End: 0x9000, Flags: RegionSplittable}, {Start: 0x9000, End: 0xa000, Flags: RegionWipeOnFork}},
				Runs:    []Run{{Addr: 0x6000, Pages: 2, File: 1}, {Addr: 0x9000, Pages: 1, File: 0, Offset: 2 * PageSize}},
			},
			{ID: 9, Zombie: true},
			{
				ID:      3,
				Regions: []Region{{Start: 0x1000, End: 0x3000}},
				Runs:    []Run{{Addr: 0x1000, Pages: 2, File: 0}},
			},
		},
		Files:  []io.ReaderAt{bytes.NewReader(memory{1, 2, 3}.bytes()), bytes.NewReader(memory{4, 5}.bytes())},
		Host:   json.RawMessage(`{"kernel":"6.18","<cpu>":["a&b"]}`),
		Parent: mustName("base"),
		Skeleton: func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
				return err
			}
			return errors.Join(
				os.WriteFile(filepath.Join(dir, "core-1.img"), []byte("core"), 0o644),
				os.WriteFile(filepath.Join(dir, "sub", "x"), nil, 0o644),
			)
		},
	}
	if _, err := s.Import(t.Context(), mustName("ns/a"), in, &ImportOptions{Workers: 3}); err != nil {
		t.Fatal(err)
	}
	// The image is in the order of space and address, not of files.
	if err := checkImage(s, "ns/a", memory{1, 2, 4, 5, 3}); err != nil {
		t.Error(err)
	}
	type space struct {
		ID      uint32
		Zombie  bool
		Regions []Region
		Runs    []ImageRun
	}
	var got []space
	snap := mustOpen(t, s, "ns/a")
	for _, v := range snap.Spaces() {
		sp := space{ID: v.ID(), Zombie: v.Zombie()}
		for r, err := range v.Regions() {
			if err != nil {
				t.Fatal(err)
			}
			sp.Regions = append(sp.Regions, r)
		}
		for r, err := range v.Runs() {
			if err != nil {
				t.Fatal(err)
			}
			sp.Runs = append(sp.Runs, r)
		}
		if v.NumRegions() != len(sp.Regions) || v.NumRuns() != len(sp.Runs) {
			t.Errorf("space %d says %d regions and %d runs", v.ID(), v.NumRegions(), v.NumRuns())
		}
		got = append(got, sp)
	}
	want := []space{
		{ID: 3, Regions: []Region{{Start: 0x1000, End: 0x3000}}, Runs: []ImageRun{{Addr: 0x1000, Pages: 2, Image: 0}}},
		{
			ID:      7,
			Regions: []Region{{Start: 0x5000, End: 0x9000, Flags: RegionSplittable}, {Start: 0x9000, End: 0xa000, Flags: RegionWipeOnFork}},
			Runs:    []ImageRun{{Addr: 0x6000, Pages: 2, Image: 2}, {Addr: 0x9000, Pages: 1, Image: 4}},
		},
		{ID: 9, Zombie: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spaces (-want +got):\n%s", diff)
	}
	info := snap.Info()
	if info.Parent != mustName("base") || info.Spaces != 3 || info.SkeletonBytes() != 4 || len(info.Skeleton) != 2 {
		t.Errorf("info is %+v", info)
	}
	var host map[string]any
	if err := json.Unmarshal(snap.Host(), &host); err != nil || host["kernel"] != "6.18" || host["<cpu>"] == nil {
		t.Errorf("host is %s, %v", snap.Host(), err)
	}
	if text, err := os.ReadFile(filepath.Join(snap.SkeletonDir(), "core-1.img")); err != nil || string(text) != "core" {
		t.Errorf("skeleton file is %q, %v", text, err)
	}
}

func TestSecondSnapshotAddsOnlyPagesThatDiffer(t *testing.T) {
	s := newStore(t)
	first := append(seeds(1, 500), 0, 0)
	mustImport(t, s, "first", first)
	second := append(memory{}, first...)
	for i := 100; i < 110; i++ {
		second[i] = 10_000 + uint64(i)
	}
	in := second.input()
	in.Parent = mustName("first")
	report, err := s.Import(t.Context(), mustName("second"), in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.NewPages != 10 || report.DuplicatePages != 490 || report.ZeroPages != 2 {
		t.Errorf("second import: %d new, %d duplicate, %d zero pages", report.NewPages, report.DuplicatePages, report.ZeroPages)
	}
	if err := errors.Join(checkImage(s, "first", first), checkImage(s, "second", second)); err != nil {
		t.Error(err)
	}
	got, err := mustOpen(t, s, "second").Sharing()
	if err != nil {
		t.Fatal(err)
	}
	want := Sharing{Pages: 502, ZeroPages: 2, StoredPages: 500, SharedPages: 490, UniquePages: 10, ParentPages: 490}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sharing (-want +got):\n%s", diff)
	}
}

func TestNamespacesShareNothing(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "one/a", seeds(1, 10))
	if report := mustImport(t, s, "two/a", seeds(1, 10)); report.NewPages != 10 {
		t.Errorf("%d pages are new in the second namespace, want 10", report.NewPages)
	}
	if got := mustImport(t, s, "one/b", seeds(1, 10)); got.NewPages != 0 {
		t.Errorf("%d pages are new in the first namespace, want 0", got.NewPages)
	}
	one, two := mustImage(t, s, "one/a"), mustImage(t, s, "two/a")
	if one.packs[0] == two.packs[0] {
		t.Error("two namespaces share an open pack")
	}
}

func TestImportRefusesBadInput(t *testing.T) {
	file := bytes.NewReader(seeds(1, 4).bytes())
	space := func(regions []Region, runs ...Run) Input {
		return Input{Spaces: []Space{{ID: 1, Regions: regions, Runs: runs}}, Files: []io.ReaderAt{file}}
	}
	region := []Region{{Start: 0x1000, End: 0x5000}}
	tests := []struct {
		name string
		in   Input
		want error
	}{
		{"regions that overlap", space([]Region{{Start: 0x1000, End: 0x3000}, {Start: 0x2000, End: 0x4000}}), ErrInput},
		{"regions out of order", space([]Region{{Start: 0x3000, End: 0x4000}, {Start: 0x1000, End: 0x2000}}), ErrInput},
		{"an empty region", space([]Region{{Start: 0x1000, End: 0x1000}}), ErrInput},
		{"a region off the page border", space([]Region{{Start: 0x1001, End: 0x2000}}), ErrInput},
		{"a region with unknown flags", space([]Region{{Start: 0x1000, End: 0x2000, Flags: 4}}), ErrInput},
		{"runs that overlap", space(region, Run{Addr: 0x1000, Pages: 2}, Run{Addr: 0x2000, Pages: 1}), ErrInput},
		{"an empty run", space(region, Run{Addr: 0x1000}), ErrInput},
		{"a run off the page border", space(region, Run{Addr: 0x1800, Pages: 1}), ErrInput},
		{"a run outside of every region", space(region, Run{Addr: 0x5000, Pages: 1}), ErrInput},
		{"a run before every region", space(region, Run{Addr: 0x0, Pages: 1}), ErrInput},
		{"a run across the end of its region", space(region, Run{Addr: 0x4000, Pages: 2}), ErrInput},
		{
			"a run across two regions",
			space([]Region{{Start: 0x1000, End: 0x2000}, {Start: 0x2000, End: 0x3000}}, Run{Addr: 0x1000, Pages: 2}),
			ErrInput,
		},
		{"a run whose size overflows", space(region, Run{Addr: 0x1000, Pages: math.MaxUint64 / 2}), ErrInput},
		{"a run of a file that is not there", space(region, Run{Addr: 0x1000, Pages: 1, File: 1}), ErrInput},
		{"a run of a negative file", space(region, Run{Addr: 0x1000, Pages: 1, File: -1}), ErrInput},
		{"a negative offset", space(region, Run{Addr: 0x1000, Pages: 1, Offset: -PageSize}), ErrInput},
		{"an offset inside a page", space(region, Run{Addr: 0x1000, Pages: 1, Offset: 12}), ErrInput},
		{"an offset that overflows", space(region, Run{Addr: 0x1000, Pages: 1, Offset: math.MaxInt64 &^ 4095}), ErrInput},
		{"a run past the end of its file", space(region, Run{Addr: 0x1000, Pages: 2, Offset: 3 * PageSize}), ErrShortInput},
		{"two spaces with one id", Input{Spaces: []Space{{ID: 1}, {ID: 1}}}, ErrInput},
		{"host metadata that is not JSON", Input{Host: json.RawMessage("{")}, ErrInput},
		{"host metadata without end", Input{Host: json.RawMessage(`"` + string(bytes.Repeat([]byte("x"), maxHostLen)) + `"`)}, ErrInput},
		{"a parent that is no name", Input{Parent: Name{"a b", "c"}}, ErrInput},
	}
	s := newStore(t)
	mustImport(t, s, "before", seeds(1, 2))
	before := tree(t, s.Dir())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Import(t.Context(), mustName("a"), tt.in, nil)
			if !errors.Is(err, tt.want) {
				t.Errorf("error is %v, want %v", err, tt.want)
			}
			if diff := cmp.Diff(before, tree(t, s.Dir())); diff != "" {
				t.Errorf("the store has changed (-before +after):\n%s", diff)
			}
		})
	}
}

// failingFile is a file whose reads fail from an offset on.
type failingFile struct {
	io.ReaderAt
	from int64
	err  error
}

func (f failingFile) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.from {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(b, off)
}

func TestImportThatFailsLeavesTheStoreAsItWas(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		name   string
		change func(in *Input, opts *ImportOptions, cancel func())
		want   error
	}{
		{
			name: "a file that cannot be read in the middle",
			change: func(in *Input, _ *ImportOptions, _ func()) {
				in.Files[0] = failingFile{in.Files[0], 900 * PageSize, broken}
			},
			want: broken,
		},
		{
			name: "a file that is cut off in the middle",
			change: func(in *Input, _ *ImportOptions, _ func()) {
				in.Files[0] = io.NewSectionReader(in.Files[0], 0, 901*PageSize+5)
			},
			want: ErrShortInput,
		},
		{
			name:   "a skeleton that cannot be written",
			change: func(in *Input, _ *ImportOptions, _ func()) { in.Skeleton = func(string) error { return broken } },
			want:   broken,
		},
		{
			name:   "cancelled while pages are read",
			change: func(_ *Input, o *ImportOptions, cancel func()) { o.Progress = func(Progress) { cancel() } },
			want:   context.Canceled,
		},
		{
			name: "cancelled while the disk syncs",
			change: func(_ *Input, o *ImportOptions, cancel func()) {
				o.Progress = func(p Progress) {
					if p.Stage == StageSync {
						cancel()
					}
				}
			},
			want: context.Canceled,
		},
	}
	s := newStore(t)
	mustImport(t, s, "before", seeds(1, 2))
	before := tree(t, s.Dir())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			in, opts := seeds(1, 1000).input(), &ImportOptions{Workers: 2}
			tt.change(&in, opts, cancel)
			if _, err := s.Import(ctx, mustName("a"), in, opts); !errors.Is(err, tt.want) {
				t.Errorf("error is %v, want %v", err, tt.want)
			}
			if diff := cmp.Diff(before, tree(t, s.Dir())); diff != "" {
				t.Errorf("the store has changed (-before +after):\n%s", diff)
			}
		})
	}
	mustImport(t, s, "a", seeds(1, 1000))
	if err := checkImage(s, "a", seeds(1, 1000)); err != nil {
		t.Error(err)
	}
}

func TestImportRefusesANameThatIsTaken(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 2))
	if _, err := s.Import(t.Context(), mustName("a"), seeds(5, 2).input(), nil); !errors.Is(err, ErrExists) {
		t.Errorf("error is %v, want %v", err, ErrExists)
	}
	if err := checkImage(s, "a", seeds(1, 2)); err != nil {
		t.Error(err)
	}
}

func TestProgressCountsEveryPage(t *testing.T) {
	s := newStore(t)
	last := make(map[Stage]Progress)
	m := append(seeds(1, 1000), make(memory, 50)...)
	_, err := s.Import(t.Context(), mustName("a"), m.input(), &ImportOptions{Progress: func(p Progress) {
		if p.DoneBytes < last[p.Stage].DoneBytes || p.DoneBytes > p.TotalBytes {
			t.Errorf("progress goes from %+v to %+v", last[p.Stage], p)
		}
		last[p.Stage] = p
	}})
	if err != nil {
		t.Fatal(err)
	}
	if p := last[StageImport]; p.DoneBytes != 1050*PageSize || p.TotalBytes != 1050*PageSize || p.NewBytes != 1000*PageSize {
		t.Errorf("pages ended with %+v", p)
	}
	if p := last[StageSync]; p.DoneBytes != 1000*PageSize || p.TotalBytes != 1000*PageSize {
		t.Errorf("sync ended with %+v", p)
	}
}
