package manifest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"

	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

const golden = "testdata/two-spaces.manifest"

// builder makes the manifest of the golden file.
func builder() *manifest.Builder {
	b := &manifest.Builder{Packs: []manifest.Pack{{ID: pack.ID{0xaa}, Pages: 10}, {ID: pack.ID{0xbb}, Pages: 65536}}}
	b.AddSpace(1, false,
		[]manifest.Region{{Start: 0x1000, End: 0x8000, Flags: manifest.RegionSplittable}, {Start: 0x8000, End: 0x9000}},
		[]manifest.Run{{Addr: 0x2000, Pages: 3, Image: 0}, {Addr: 0x5000, Pages: 3, Image: 3}, {Addr: 0x8000, Pages: 1, Image: 6}})
	b.AddSpace(7, true, nil, nil)
	for _, p := range []uint32{0, 1, 2} { // image pages 0 to 2: one extent
		b.AddPage(0, p)
	}
	b.AddZero()         // image page 3
	b.AddPage(0, 3)     // not the same extent: there is a page of zeros between
	b.AddPage(1, 65535) // another pack
	b.AddPage(0, 4)     // back again
	return b
}

func encode(t testing.TB, b *manifest.Builder) []byte {
	t.Helper()
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoldenManifest(t *testing.T) {
	got := encode(t, builder())
	if *rewrite {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the format has changed: the manifest is not what the golden file has")
	}
}

func TestTablesReadBack(t *testing.T) {
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	type tables struct {
		ImagePages uint64
		Packs      []manifest.Pack
		Spaces     []manifest.Space
		Regions    []manifest.Region
		Runs       []manifest.Run
		Extents    []manifest.Extent
	}
	got := tables{ImagePages: m.ImagePages()}
	for i := range m.Packs() {
		got.Packs = append(got.Packs, m.Pack(i))
	}
	for i := range m.Spaces() {
		s := m.Space(i)
		got.Spaces = append(got.Spaces, s)
		for j := range s.Regions.Count {
			got.Regions = append(got.Regions, m.Region(s.Regions.First+j))
		}
		for j := range s.Runs.Count {
			got.Runs = append(got.Runs, m.Run(s.Runs.First+j))
		}
	}
	for i := range m.Extents() {
		got.Extents = append(got.Extents, m.Extent(i))
	}
	want := tables{
		ImagePages: 7,
		Packs:      []manifest.Pack{{ID: pack.ID{0xaa}, Pages: 10}, {ID: pack.ID{0xbb}, Pages: 65536}},
		Spaces: []manifest.Space{
			{ID: 1, Regions: manifest.Span{Count: 2}, Runs: manifest.Span{Count: 3}},
			{ID: 7, Zombie: true, Regions: manifest.Span{First: 2}, Runs: manifest.Span{First: 3}},
		},
		Regions: []manifest.Region{{Start: 0x1000, End: 0x8000, Flags: 1}, {Start: 0x8000, End: 0x9000}},
		Runs:    []manifest.Run{{Addr: 0x2000, Pages: 3}, {Addr: 0x5000, Pages: 3, Image: 3}, {Addr: 0x8000, Pages: 1, Image: 6}},
		Extents: []manifest.Extent{
			{Image: 0, Pages: 3, Pack: 0, Page: 0},
			{Image: 4, Pages: 1, Pack: 0, Page: 3},
			{Image: 5, Pages: 1, Pack: 1, Page: 65535},
			{Image: 6, Pages: 1, Pack: 0, Page: 4},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	for page, want := range map[uint64]int{0: 0, 2: 0, 3: 1, 4: 1, 5: 2, 6: 3, 7: 4, 1 << 63: 4} {
		if got := m.Find(page); got != want {
			t.Errorf("Find(%d) is %d, want %d", page, got, want)
		}
	}
}

func TestEveryFlippedByteIsNoticed(t *testing.T) {
	data := encode(t, builder())
	for i := range data {
		data[i] ^= 0x10
		if _, err := manifest.Parse(data); !errors.Is(err, manifest.ErrCorrupt) && !errors.Is(err, manifest.ErrVersion) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		data[i] ^= 0x10
	}
	for n := range len(data) {
		if _, err := manifest.Parse(data[:n]); !errors.Is(err, manifest.ErrCorrupt) {
			t.Errorf("cut off at %d: %v", n, err)
		}
	}
	if _, err := manifest.Parse(append(data, 0)); !errors.Is(err, manifest.ErrCorrupt) {
		t.Errorf("a byte longer: %v", err)
	}
}

// Offsets of the golden manifest's tables; see docs/format/manifest.md.
const (
	header  = 88
	packs   = header
	spaces  = packs + 2*40
	regions = spaces + 2*40
	runs    = regions + 2*24
	extents = runs + 3*24
)

// TestParseRefuses changes a field and makes the checksums right again.
func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name string
		off  int
		size int
		to   uint64
		want string
	}{
		{"another version", 8, 4, 2, "version 2"},
		{"another page size", 12, 4, 8192, "pages of 8192 bytes"},
		{"another file size", 16, 8, 10000, "want 10000"},
		{"an image without end", 24, 8, 1 << 47, "image has"},
		{"an image shorter than a run", 24, 8, 6, "run 2 has image pages"},
		{"more packs than the file holds", 32, 8, 1 << 60, "does not fit"},
		{"fewer packs than the file holds", 32, 8, 1, ""},
		{"more extents than the file holds", 64, 8, 5, "does not fit"},
		{"fewer extents than the file holds", 64, 8, 3, "after the last table"},
		{"a pack without pages", packs + 32, 4, 0, "pack 0 has 0 pages"},
		{"a pack with too many pages", packs + 32, 4, 65537, "pack 0 has 65537 pages"},
		{"a reserved field of a pack", packs + 36, 4, 1, "reserved"},
		{"spaces out of order", spaces, 4, 8, "id 7 after id 8"},
		{"two spaces with one id", spaces, 4, 7, "id 7 after id 7"},
		{"an unknown flag of a space", spaces + 4, 4, 2, "unknown flags"},
		{"regions that belong to no space", spaces + 16, 8, 1, ""},
		{"more regions than there are", spaces + 16, 8, 1 << 62, "regions"},
		{"regions that start elsewhere", spaces + 8, 8, 1, "regions"},
		{"more runs than there are", spaces + 32, 8, 1 << 62, "runs"},
		{"runs that start elsewhere", spaces + 24, 8, 1, "runs"},
		{"a region off the page border", regions, 8, 0x1001, "region 0"},
		{"an empty region", regions + 8, 8, 0x1000, "region 0"},
		{"regions that overlap", regions + 8, 8, 0x9000, "region 1"},
		{"an unknown flag of a region", regions + 16, 8, 4, "unknown flags"},
		{"a run off the page border", runs, 8, 0x2800, "run 0"},
		{"an empty run", runs + 8, 8, 0, "run 0"},
		{"runs that overlap", runs + 8, 8, 4, "run 1"},
		{"a run whose size overflows", runs + 8, 8, 1 << 63, "run 0"},
		{"a run across two regions", runs + 24 + 8, 8, 4, "lies in no region"},
		{"a run before all regions", runs, 8, 0, "lies in no region"},
		{"a run behind all regions", runs + 48, 8, 0x9000, "lies in no region"},
		{"a run outside of the image", runs + 16, 8, 5, "run 0 has image pages"},
		{"an extent without pages", extents + 8, 4, 0, "extent 0"},
		{"extents that overlap", extents + 8, 4, 5, "extent 1"},
		{"an extent outside of the image", extents + 3*24 + 8, 4, 2, "extent 3"},
		{"an extent far outside of the image", extents + 3*24, 8, 1 << 63, "extent 3"},
		{"an extent of a pack that is not there", extents + 12, 4, 2, "names pack 2 of 2"},
		{"an extent outside of its pack", extents + 16, 4, 8, "of a pack of 10"},
		{"an extent far outside of its pack", extents + 16, 4, 1<<32 - 1, "of a pack of 10"},
		{"a reserved field of an extent", extents + 20, 4, 1, "reserved"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := encode(t, builder())
			if tt.size == 4 {
				binary.LittleEndian.PutUint32(data[tt.off:], uint32(tt.to))
			} else {
				binary.LittleEndian.PutUint64(data[tt.off:], tt.to)
			}
			reseal(data)
			_, err := manifest.Parse(data)
			if !errors.Is(err, manifest.ErrCorrupt) && !errors.Is(err, manifest.ErrVersion) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
}

// reseal makes the checksums of a changed manifest right.
func reseal(data []byte) {
	if len(data) < header {
		return
	}
	binary.LittleEndian.PutUint64(data[72:], xxhash.Sum64(data[header:]))
	binary.LittleEndian.PutUint64(data[80:], xxhash.Sum64(data[:80]))
}

func TestEncodeRefusesWhatParseWould(t *testing.T) {
	b := builder()
	b.AddSpace(3, false, nil, nil) // after 7
	if _, err := b.Encode(); !errors.Is(err, manifest.ErrCorrupt) {
		t.Errorf("error is %v, want %v", err, manifest.ErrCorrupt)
	}
}

func TestFindDoesNotAllocate(t *testing.T) {
	m, err := manifest.Parse(encode(t, builder()))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { m.Find(5) }); n != 0 {
		t.Errorf("Find allocates %v times", n)
	}
}

// FuzzParse gives the parser bytes with right checksums: those that it must tell apart by reading.
func FuzzParse(f *testing.F) {
	f.Add(encode(f, builder()))
	f.Add(encode(f, &manifest.Builder{}))
	f.Add([]byte("THAWMANI"))
	f.Fuzz(func(t *testing.T, data []byte) {
		reseal(data)
		m, err := manifest.Parse(data)
		if (err == nil) != (m != nil) {
			t.Fatalf("manifest %v and error %v", m, err)
		}
		if err != nil {
			return
		}
		// Whatever is accepted can be read to the end, and says where every page is.
		for i := range m.Packs() {
			m.Pack(i)
		}
		for i := range m.Spaces() {
			s := m.Space(i)
			for j := range s.Regions.Count {
				m.Region(s.Regions.First + j)
			}
			for j := range s.Runs.Count {
				if r := m.Run(s.Runs.First + j); r.Image+r.Pages > m.ImagePages() {
					t.Fatalf("run %v of an image of %d pages", r, m.ImagePages())
				}
			}
		}
		for i := range m.Extents() {
			e := m.Extent(i)
			if got := m.Find(e.Image); got != i {
				t.Fatalf("Find(%d) is %d, want %d", e.Image, got, i)
			}
			if e.Page+e.Pages > m.Pack(int(e.Pack)).Pages {
				t.Fatalf("extent %v of a pack of %d", e, m.Pack(int(e.Pack)).Pages)
			}
		}
	})
}
