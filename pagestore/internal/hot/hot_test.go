package hot_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"

	"thaw/internal/testenv"
	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/pack"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

const golden = "testdata/five-pages.hot"

func TestMain(m *testing.M) { testenv.Main(m) }

// What the golden file is about.
var (
	testSnapshot = pack.Digest{1, 2, 3, 31: 0xff}
	testRuns     = []hot.Run{{Image: 7, Pages: 2}, {Image: 1, Pages: 1}, {Image: 99, Pages: 1}, {Image: 3, Pages: 1}}
)

const testImage = 100

// testPage returns a page of one letter.
func testPage(letter byte) []byte { return bytes.Repeat([]byte{letter}, pack.PageSize) }

// file returns a hot file of runs; its pages are of the letters from 'a' on.
func file(t testing.TB, runs []hot.Run) []byte {
	t.Helper()
	head, table, err := hot.Encode(testSnapshot, testImage, runs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range table.Pages() {
		head = append(head, testPage('a'+byte(i))...)
	}
	return head
}

// parse is hot.Parse of a whole file.
func parse(data []byte) (*hot.Table, error) {
	head := data
	if len(data) > 24 {
		runs := int(binary.LittleEndian.Uint32(data[20:]))
		head = data[:min((72+16*runs+4095)/4096*4096, len(data))]
	}
	return hot.Parse(head, int64(len(data)), testSnapshot, testImage)
}

// seal makes the checksums right again.
func seal(data []byte, pages int) []byte {
	head := data[:len(data)-pages*pack.PageSize]
	binary.LittleEndian.PutUint64(head[56:], xxhash.Sum64(head[72:]))
	binary.LittleEndian.PutUint64(head[64:], xxhash.Sum64(head[:64]))
	return data
}

func TestGoldenFile(t *testing.T) {
	got := file(t, testRuns)
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
		t.Error("the format has changed: a hot file of five pages is not what the golden file has")
	}
	table, err := parse(want)
	if err != nil {
		t.Fatal(err)
	}
	if table.FileSize() != int64(len(want)) || table.Pages() != 5 {
		t.Errorf("%d pages in %d bytes, the file has %d", table.Pages(), table.FileSize(), len(want))
	}
	if diff := cmp.Diff(testRuns, runsOf(table)); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	for image, letter := range map[uint64]byte{7: 'a', 8: 'b', 1: 'c', 99: 'd', 3: 'e'} {
		page, n := table.Find(image)
		if n == 0 || !bytes.Equal(want[table.Offset(page):][:pack.PageSize], testPage(letter)) {
			t.Errorf("image page %d is not where page %d of the file is (%d pages)", image, page, n)
		}
	}
}

func runsOf(table *hot.Table) (runs []hot.Run) {
	for i := range table.Runs() {
		r, _ := table.Run(i)
		runs = append(runs, r)
	}
	return runs
}

func TestFindIsASearchThroughTheRuns(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		// Runs with gaps, in any order, of an image that is dense here and sparse there.
		var runs []hot.Run
		image := rng.Uint64N(100)
		for range 1 + rng.IntN(60) {
			n := 1 + rng.Uint32N(5)
			runs = append(runs, hot.Run{Image: image, Pages: n})
			image += uint64(n) + 1 + rng.Uint64N(3)
			if rng.IntN(20) == 0 {
				image += rng.Uint64N(100_000)
			}
		}
		rng.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
		_, table, err := hot.Encode(testSnapshot, image, runs)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for page := range image + 10 {
			if got, n := table.Find(page); n != search(runs, page).n || n > 0 && got != search(runs, page).page {
				t.Fatalf("seed %d: Find(%d) is page %d and %d pages, want %+v", seed, page, got, n, search(runs, page))
			}
		}
		gap := uint64(math.MaxUint64) // none of the table follows
		for page := image + 9; page < math.MaxUint64; page-- {
			if search(runs, page).n > 0 {
				gap = 0
			} else if gap < math.MaxUint64 {
				gap++
			}
			if got := table.Gap(page); got != gap {
				t.Fatalf("seed %d: Gap(%d) is %d, want %d", seed, page, got, gap)
			}
		}
		for _, page := range []uint64{1 << 46, 1<<64 - 1} {
			if _, n := table.Find(page); n != 0 {
				t.Fatalf("seed %d: Find(%d) has %d pages", seed, page, n)
			}
		}
	}
}

type found struct {
	page uint32
	n    int
}

// search is Table.Find without a table.
func search(runs []hot.Run, image uint64) found {
	page := uint32(0)
	for _, r := range runs {
		if r.Image <= image && image-r.Image < uint64(r.Pages) {
			return found{page + uint32(image-r.Image), int(uint64(r.Pages) - (image - r.Image))}
		}
		page += r.Pages
	}
	return found{}
}

func TestParseRefuses(t *testing.T) {
	put32 := func(off int, v uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[off:], v) }
	}
	put64 := func(off int, v uint64) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint64(b[off:], v) }
	}
	tests := []struct {
		name string
		edit func(b []byte)
		want string
	}{
		{"another magic", func(b []byte) { b[0]++ }, "no header"},
		{"a later version", put32(8, 2), "version"},
		{"another page size", put32(12, 8192), "8192"},
		{"no pages", put32(16, 0), "0 pages"},
		{"more pages than the file", put32(16, 6), "bytes"},
		{"more pages than allowed", put32(16, hot.MaxPages+1), "want 1 to"},
		{"no runs", put32(20, 0), "0 runs"},
		{"more runs than pages", put32(20, 6), "6 runs"},
		{"fewer runs than pages need", put32(20, 3), "header says"},
		{"another snapshot", func(b []byte) { b[24]++ }, "of the snapshot"},
		{"an empty run", put32(72+8, 0), "has 0 pages"},
		{"a run that is longer than the file", put32(72+8, 6), "6 pages"},
		{"a run outside of the image", put64(72, testImage-1), "of 100"},
		{"a run whose end overflows", put64(72, 1<<64-1), "of 100"},
		{"a run that continues the one before", put64(72+16, 9), "continues"},
		{"two runs with a page in common", put64(72+16, 8), "two runs"},
		{"a reserved field", put32(72+12, 1), "reserved"},
		{"a byte behind the table", func(b []byte) { b[4095] = 1 }, "behind the table"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := file(t, testRuns)
			tt.edit(data)
			table, err := parse(seal(data, 5))
			if table != nil || !errors.Is(err, hot.ErrCorrupt) && !errors.Is(err, hot.ErrVersion) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestEveryFlippedBitOfTheHeadIsNoticed(t *testing.T) {
	data := file(t, testRuns)
	for i := range pack.PageSize {
		data[i] ^= 0x10
		if _, err := parse(data); !errors.Is(err, hot.ErrCorrupt) && !errors.Is(err, hot.ErrVersion) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		data[i] ^= 0x10
	}
}

func TestOtherLengthsAreRefused(t *testing.T) {
	data := file(t, testRuns)
	for _, n := range []int{0, 1, 71, 72, 4096, len(data) / 2, len(data) - 1, len(data) - 4096} {
		if _, err := parse(data[:n]); !errors.Is(err, hot.ErrCorrupt) {
			t.Errorf("cut off at %d: %v", n, err)
		}
		if _, err := open(t, data[:n]); !errors.Is(err, hot.ErrCorrupt) {
			t.Errorf("opened, cut off at %d: %v", n, err)
		}
	}
	for _, n := range []int{1, 16, 4096} {
		if _, err := parse(append(bytes.Clone(data), make([]byte, n)...)); !errors.Is(err, hot.ErrCorrupt) {
			t.Errorf("%d bytes longer: %v", n, err)
		}
	}
}

func TestEncodeRefusesWhatParseWould(t *testing.T) {
	for name, runs := range map[string][]hot.Run{
		"nothing":                {},
		"an empty run":           {{Image: 1}},
		"a page twice":           {{Image: 1, Pages: 3}, {Image: 3, Pages: 1}},
		"a page behind the end":  {{Image: testImage, Pages: 1}},
		"runs that are not long": {{Image: 1, Pages: 1}, {Image: 2, Pages: 1}},
	} {
		if _, _, err := hot.Encode(testSnapshot, testImage, runs); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// open opens data as a file.
func open(t *testing.T, data []byte) (*hot.Mapped, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hot")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := hot.Open(f, testSnapshot, testImage)
	if err == nil {
		t.Cleanup(func() { m.Close() })
	}
	return m, err
}

// sums returns the sums of pages of these letters.
func sums(letters string) (b []byte) {
	for i := range len(letters) {
		b = binary.LittleEndian.AppendUint64(b, pack.Sum(testPage(letters[i])))
	}
	return b
}

func TestPagesAreComparedWithTheirSumsOnce(t *testing.T) {
	data := file(t, testRuns)
	m, err := open(t, data)
	if err != nil {
		t.Fatal(err)
	}
	m.Fetch(0, 2)
	m.Stream(2, 3)
	if n := m.Verified(0, 5); n != 0 {
		t.Errorf("%d pages are known before any was compared", n)
	}
	if n, err := m.Check(1, sums("bcX")); n != 2 || !errors.Is(err, hot.ErrCorrupt) || !strings.Contains(err.Error(), "page 3") {
		t.Errorf("Check: %d, %v; want the 2 pages before the one that differs", n, err)
	}
	for page, want := range map[uint32]int{0: 0, 1: 2, 2: 1, 3: 0, 4: 0} {
		if n := m.Verified(page, 10); n != want {
			t.Errorf("Verified(%d) is %d, want %d", page, n, want)
		}
	}
	if n := m.Verified(1, 1); n != 1 {
		t.Errorf("Verified goes beyond its limit: %d pages", n)
	}
	if n, err := m.Check(1, sums("XX")); n != 2 || err != nil {
		t.Errorf("Check of known pages: %d, %v", n, err)
	}
	if got := m.Bytes(3, 2); !bytes.Equal(got, data[len(data)-2*pack.PageSize:]) {
		t.Error("Bytes are not those of the file")
	}
	got := make([]byte, pack.PageSize)
	if _, err := m.ReadAt(got, m.Offset(4)); err != nil || !bytes.Equal(got, testPage('e')) {
		t.Errorf("ReadAt: %v", err)
	}
}

func TestFileThatShrinksWhileItIsMapped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hot")
	if err := os.WriteFile(path, file(t, testRuns), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := hot.Open(f, testSnapshot, testImage)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := os.Truncate(path, 3*pack.PageSize); err != nil {
		t.Fatal(err)
	}
	m.Fetch(0, 5)
	m.Stream(0, 5)
	if n, err := m.Check(0, sums("abcde")); n != 2 || !errors.Is(err, syscall.EIO) {
		t.Errorf("Check: %d, %v; want the 2 pages that are left", n, err)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hot.Open(f, testSnapshot, testImage); !errors.Is(err, hot.ErrCorrupt) {
		t.Errorf("a folder: %v", err)
	}
}

func TestLookUpsDoNotAllocate(t *testing.T) {
	m, err := open(t, file(t, testRuns))
	if err != nil {
		t.Fatal(err)
	}
	want := sums("ab")
	if n := testing.AllocsPerRun(100, func() {
		page, n := m.Find(7)
		m.Find(50)
		m.Verified(page, n)
		m.Fetch(page, n)
		m.Check(page, want)
		m.Bytes(page, n)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(file(f, testRuns))
	f.Add(file(f, testRuns[:1]))
	f.Add([]byte("THAWHOTP"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, sealed(data)} { // as it is, and such that the checks behind the checksums are reached
			table, err := parse(data)
			if (err == nil) != (table != nil) {
				t.Fatalf("table %v and error %v", table, err)
			}
			if m, openErr := open(t, data); (openErr == nil) != (err == nil) {
				t.Fatalf("Parse: %v, Open: %v", err, openErr)
			} else if openErr == nil {
				m.Check(0, make([]byte, 8*m.Pages()))
			}
			if err != nil {
				continue
			}
			runs := runsOf(table)
			head, _, err := hot.Encode(testSnapshot, testImage, runs)
			if err != nil || !bytes.Equal(head, data[:len(head)]) {
				t.Fatalf("encoded again it is another head: %v", err)
			}
			for image := range uint64(testImage + 1) {
				page, n := table.Find(image)
				if want := search(runs, image); n != want.n || n > 0 && page != want.page {
					t.Fatalf("Find(%d) is %d, %d; want %+v", image, page, n, want)
				}
			}
		}
	})
}

// sealed returns data with right checksums, if it is long enough to have any.
func sealed(data []byte) []byte {
	if len(data) < 72 {
		return data
	}
	data = bytes.Clone(data)
	pages := int(binary.LittleEndian.Uint32(data[16:]))
	if pages < 0 || len(data)-pages*pack.PageSize < 72 {
		return data
	}
	return seal(data, pages)
}

// BenchmarkFind looks for pages of an image of 4 GiB of which one in forty is in the file, in runs of two.
func BenchmarkFind(b *testing.B) {
	const image = 1 << 20
	rng := rand.New(rand.NewPCG(1, 0))
	var runs []hot.Run
	for page := uint64(0); page < image-80; page += 3 + rng.Uint64N(154) {
		runs = append(runs, hot.Run{Image: page, Pages: 2})
	}
	rng.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	_, table, err := hot.Encode(testSnapshot, image, runs)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(runs)), "runs")
	page, found := uint64(0), 0
	for b.Loop() {
		page = (page + 7919) % image
		if _, n := table.Find(page); n > 0 {
			found++
		}
	}
	b.ReportMetric(float64(found)/float64(b.N), "hits/op")
}
