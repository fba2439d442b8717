package index_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
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
	f, err := durable.Disk.Create(filepath.Join(t.TempDir(), "pack"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := pack.NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	for seed := first; seed < first+n; seed++ {
		// The index believes any digest, so pages need no content.
		digest := *digestOf(seed)
		if err := w.Append(make([]byte, pack.PageSize), []pack.Digest{digest}, []uint64{0}); err != nil {
			t.Fatal(err)
		}
	}
	footer, err := w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	p[footer.ID] = footer
	return footer.ID
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
	r, err := x.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return r.Lookup(digestOf(seed))
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

func TestCrashWhileAdding(t *testing.T) {
	tests := []struct {
		name  string
		mark  string
		added int
	}{
		{"of the machine: the index is built anew", "dirty another boot", 1},
		{"of the process: the index is as its last transaction left it", "dirty " + bootID(t), 0},
		{"with a state that makes no sense: the index is built anew", "happy", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
			p.add(t, 100, 10)
			x, _ := p.open(t, dir)
			x.Close()
			if err := os.WriteFile(filepath.Join(dir, "state"), []byte(tt.mark), 0o600); err != nil {
				t.Fatal(err)
			}
			x, added := p.open(t, dir)
			defer x.Close()
			if added != tt.added {
				t.Errorf("%d packs were missing, want %d", added, tt.added)
			}
			if _, ok := lookup(t, x, 105); !ok {
				t.Error("a page is not found")
			}
		})
	}
}

func bootID(t *testing.T) string {
	t.Helper()
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Skip(err)
	}
	return string(id)
}

// TestDamagedIndexIsNoDisaster damages the file at random: the index is built anew.
func TestDamagedIndexIsNoDisaster(t *testing.T) {
	dir, p := filepath.Join(t.TempDir(), "index"), make(packs)
	p.add(t, 100, 500)
	x, _ := p.open(t, dir)
	x.Close()
	file := filepath.Join(dir, "pages.bolt")
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
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "index")
	x, err := index.Open(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	r, err := x.NewReader()
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	d := digestOf(1)
	for b.Loop() {
		r.Lookup(d)
	}
}
