package index_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"thaw/internal/durable"
	"thaw/internal/testenv"
	"thaw/pagestore/internal/index"
	"thaw/pagestore/internal/pack"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// packs are the tables of packs that exist, by id.
type packs map[pack.ID]*pack.Footer

// add makes a pack whose pages have the seeds from first on, and returns its id.
func (p packs) add(t *testing.T, first, n uint64) pack.ID {
	t.Helper()
	id, err := p.make(filepath.Join(t.TempDir(), "pack"), first, n)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (p packs) make(path string, first, n uint64) (pack.ID, error) {
	f, err := durable.Disk.Create(path)
	if err != nil {
		return pack.ID{}, err
	}
	defer f.Close()
	w, err := pack.NewWriter(f)
	if err != nil {
		return pack.ID{}, err
	}
	for seed := first; seed < first+n; seed++ {
		// The index believes any digest, so pages need no content.
		w.Add(digestOf(seed), 0)
	}
	footer, err := w.Seal()
	if err != nil {
		return pack.ID{}, err
	}
	p[footer.ID] = footer
	return footer.ID, os.Remove(path)
}

func digestOf(seed uint64) *pack.Digest {
	d := pack.Digest(sha256.Sum256(binary.LittleEndian.AppendUint64(nil, seed)))
	return &d
}

func (p packs) footer(id pack.ID) (*pack.Footer, error) {
	if f := p[id]; f != nil {
		return f, nil
	}
	return nil, errors.New("no such pack")
}

// open opens the index and adds what it says is missing, as an import does.
func (p packs) open(t *testing.T, dir string) (x *index.Index, added int) {
	t.Helper()
	var ids []pack.ID
	for id := range p {
		ids = append(ids, id)
	}
	x, err := index.Open(dir, ids)
	if err != nil {
		t.Fatal(err)
	}
	added = len(x.Missing())
	if err := x.Add(x.Missing(), p.footer); err != nil {
		t.Fatal(err)
	}
	return x, added
}

func lookup(t *testing.T, x *index.Index, seed uint64) (index.Location, bool) {
	t.Helper()
	return x.Lookup(digestOf(seed))
}

// segments returns the files of the index.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.segment"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestLookup(t *testing.T) {
	dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
	a, b := p.add(t, 100, 10), p.add(t, 200, 20)
	x, added := p.open(t, dir)
	if added != 2 {
		t.Errorf("%d packs were missing in an empty index, want 2", added)
	}
	check := func() {
		t.Helper()
		for seed, want := range map[uint64]index.Location{100: {a, 0}, 109: {a, 9}, 200: {b, 0}, 219: {b, 19}} {
			if got, ok := lookup(t, x, seed); !ok || got != want {
				t.Errorf("page %d is at %v, %v; want %v", seed, got, ok, want)
			}
		}
		for _, seed := range []uint64{0, 110, 220} {
			if got, ok := lookup(t, x, seed); ok {
				t.Errorf("page %d, which is nowhere, is at %v", seed, got)
			}
		}
	}
	check()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if x, added = p.open(t, dir); added != 0 {
		t.Errorf("%d packs were missing after it was opened again", added)
	}
	check()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPacksThatAreGoneAreIgnored(t *testing.T) {
	dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
	a, b := p.add(t, 100, 10), p.add(t, 200, 20)
	x, _ := p.open(t, dir)
	x.Close()

	gone := p[a]
	delete(p, a)
	x, added := p.open(t, dir)
	if added != 0 {
		t.Errorf("%d packs were missing", added)
	}
	if got, ok := lookup(t, x, 105); ok {
		t.Errorf("a page of a pack that is gone is at %v", got)
	}
	if _, ok := lookup(t, x, 205); !ok {
		t.Error("a page of the other pack is not found")
	}
	x.Close()

	p[a] = gone
	x, added = p.open(t, dir)
	if _, ok := lookup(t, x, 105); !ok || added != 0 {
		t.Errorf("a pack that came back: found %v, %d added", ok, added)
	}
	x.Close()

	// More than half of the entries are about b: the index begins anew.
	delete(p, b)
	x, added = p.open(t, dir)
	if _, ok := lookup(t, x, 105); !ok || added != 1 {
		t.Errorf("after most became garbage: found %v, %d packs added; want it built anew", ok, added)
	}
	x.Close()
}

func TestAddThatFails(t *testing.T) {
	dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
	x, _ := p.open(t, dir)
	a := p.add(t, 100, 10)
	if err := x.Add([]pack.ID{a, {1}}, p.footer); err == nil {
		t.Error("a pack without a footer was added")
	}
	x.Close()
	x, _ = p.open(t, dir)
	if _, ok := lookup(t, x, 105); !ok {
		t.Error("the pack that could not be added then is not there now")
	}
	x.Close()
}

func TestSegmentsAreMerged(t *testing.T) {
	dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
	where := make(map[uint64]pack.ID)
	for i := range uint64(16) {
		where[1000*i] = p.add(t, 1000*i, 100)
		x, added := p.open(t, dir)
		if added != 1 {
			t.Fatalf("%d packs were missing, want the new one", added)
		}
		for seed, id := range where {
			if got, ok := lookup(t, x, seed+99); !ok || got != (index.Location{Pack: id, Page: 99}) {
				t.Errorf("after %d packs: page %d is at %v, %v", i+1, seed+99, got, ok)
			}
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		if n, want := len(segments(t, dir)), bits.OnesCount64(i+1); n != want {
			t.Errorf("%d packs of one size are in %d segments, want %d", i+1, n, want)
		}
	}
}

func TestMergingLeavesOutPacksThatAreGone(t *testing.T) {
	dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
	a, b := p.add(t, 100, 10), p.add(t, 200, 20)
	x, _ := p.open(t, dir)
	x.Close()
	delete(p, a)
	c := p.add(t, 300, 30)
	x, _ = p.open(t, dir)
	if n := len(segments(t, dir)); n != 1 {
		t.Errorf("there are %d segments, want 1", n)
	}
	for seed, want := range map[uint64]index.Location{200: {Pack: b}, 219: {Pack: b, Page: 19}, 329: {Pack: c, Page: 29}} {
		if got, ok := lookup(t, x, seed); !ok || got != want {
			t.Errorf("page %d is at %v, %v; want %v", seed, got, ok, want)
		}
	}
	x.Close()
}

func TestThePageOfThePackThatIsThereIsFound(t *testing.T) {
	dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
	a := p.add(t, 100, 20)
	x, _ := p.open(t, dir)
	x.Close()
	b := p.add(t, 105, 10) // has pages of a
	x, _ = p.open(t, dir)
	if got, ok := lookup(t, x, 105); !ok || got != (index.Location{Pack: b}) {
		t.Errorf("a page of two packs is at %v, %v; want the newer one, %v", got, ok, b)
	}
	x.Close()
	delete(p, b)
	x, _ = p.open(t, dir)
	if got, ok := lookup(t, x, 105); !ok || got != (index.Location{Pack: a, Page: 5}) {
		t.Errorf("it is at %v, %v after the newer pack has gone; want the older one, %v", got, ok, a)
	}
	x.Close()
}

// TestCrashWhileAdding puts the files into states in which a crash leaves them.
func TestCrashWhileAdding(t *testing.T) {
	dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
	p.add(t, 100, 10)
	x, _ := p.open(t, dir)
	x.Close()
	first := segments(t, dir)[0]
	old, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	p.add(t, 200, 10)
	x, _ = p.open(t, dir)
	x.Close()
	merged := segments(t, dir)[0]
	both, err := os.ReadFile(merged)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		files map[string][]byte
		added int
	}{
		{"before the new segment has its name", map[string][]byte{first: old, merged + ".tmp": both[:50]}, 1},
		{"before the old segment is deleted", map[string][]byte{first: old, merged: both}, 0},
		{"of the machine before the new segment is on the disk", map[string][]byte{merged: both[:100]}, 2},
		{"of the machine that leaves an empty file", map[string][]byte{merged: nil}, 2},
		{"before an upgrade", map[string][]byte{filepath.Join(dir, "pages.bolt"): both, filepath.Join(dir, "state"): nil}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, data := range tt.files {
				if err := os.WriteFile(name, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			x, added := p.open(t, dir)
			defer x.Close()
			if added != tt.added {
				t.Errorf("%d packs were missing, want %d", added, tt.added)
			}
			for _, seed := range []uint64{100, 109, 200, 209} {
				if _, ok := lookup(t, x, seed); !ok {
					t.Errorf("page %d is not found", seed)
				}
			}
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(files) != 1 {
				t.Errorf("the folder has %v, want one segment", files)
			}
		})
	}
}

// TestDamagedIndexIsNoDisaster damages the file at random: the index is built anew.
func TestDamagedIndexIsNoDisaster(t *testing.T) {
	dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
	p.add(t, 100, 500)
	x, _ := p.open(t, dir)
	x.Close()
	file := segments(t, dir)[0]
	sound, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string]func(b []byte, rng *rand.Rand) []byte{
		"empty":        func(b []byte, _ *rand.Rand) []byte { return nil },
		"text":         func(b []byte, _ *rand.Rand) []byte { return []byte("not a database") },
		"zeros":        func(b []byte, _ *rand.Rand) []byte { clear(b); return b },
		"cut off":      func(b []byte, rng *rand.Rand) []byte { return b[:rng.IntN(len(b))] },
		"a page lost":  func(b []byte, rng *rand.Rand) []byte { clear(b[rng.IntN(len(b)/4096)*4096:][:4096]); return b },
		"a byte wrong": func(b []byte, rng *rand.Rand) []byte { b[rng.IntN(len(b))] ^= 0x40; return b },
		"garbage": func(b []byte, rng *rand.Rand) []byte {
			for range 100 {
				b[rng.IntN(len(b))] = byte(rng.Uint32())
			}
			return b
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				rng := rand.New(rand.NewPCG(seed, 0))
				if err := os.WriteFile(file, damage(slices.Clone(sound), rng), 0o600); err != nil {
					t.Fatal(err)
				}
				var ids []pack.ID
				for id := range p {
					ids = append(ids, id)
				}
				x, err := index.Open(dir, ids)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if err := x.Add(x.Missing(), p.footer); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				for _, seed := range []uint64{99, 100, 350, 599, 600} {
					if _, ok := lookup(t, x, seed); ok != (seed >= 100 && seed < 600) {
						t.Errorf("page %d is found: %v", seed, ok)
					}
				}
				if err := x.Close(); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				file = segments(t, dir)[0]
			}
		})
	}
}

// benchPages is the size of the benchmarks' index: what a process of 1.6 GB adds.
const benchPages = 400_000

// benchTables are the tables of packs with benchPages pages from the seed on.
func benchTables(b *testing.B, first uint64) (ids []pack.ID, p packs) {
	b.Helper()
	p = make(packs)
	for n := uint64(0); n < benchPages; n += 50_000 {
		id, err := p.make(filepath.Join(b.TempDir(), "pack"), first+n, 50_000)
		if err != nil {
			b.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids, p
}

func BenchmarkAdd(b *testing.B) {
	ids, p := benchTables(b, 0)
	for b.Loop() {
		x, err := index.Open(filepath.Join(b.TempDir(), "index"), nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(x.Add(ids, p.footer), x.Close()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchPages, "ns/page")
}

func BenchmarkLookup(b *testing.B) {
	ids, p := benchTables(b, 0)
	x, err := index.Open(filepath.Join(b.TempDir(), "index"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	if err := x.Add(ids, p.footer); err != nil {
		b.Fatal(err)
	}
	for name, first := range map[string]uint64{"hit": 0, "miss": benchPages} {
		digests := make([]pack.Digest, benchPages)
		for i := range digests {
			digests[i] = *digestOf(first + uint64(i))
		}
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i = (i + 1) % benchPages {
				x.Lookup(&digests[i])
			}
		})
	}
}
