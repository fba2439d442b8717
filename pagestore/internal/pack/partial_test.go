package pack_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/pack"
)

// whole is a complete pack to fill partial ones from.
type whole struct {
	pages, digests, nodes []byte
	file                  []byte
	id, root              pack.Digest
	n                     uint32
}

func newWhole(t testing.TB, n int) *whole {
	t.Helper()
	letters := make([]byte, n)
	for i := range letters {
		letters[i] = byte(i + 1)
	}
	path := filepath.Join(t.TempDir(), "pack")
	w := &whole{id: write(t, path, string(letters)).ID, n: uint32(n)}
	var err error
	if w.file, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	w.pages = w.file[pack.Offset(0):][:n*pack.PageSize]
	w.digests = w.file[pack.Offset(w.n):][:n*sha256.Size]
	for i := 0; i < n; i += pack.FramePages {
		node := sha256.Sum256(w.digests[i*sha256.Size : min(i+pack.FramePages, n)*sha256.Size])
		w.nodes = append(w.nodes, node[:]...)
	}
	w.root = sha256.Sum256(w.nodes)
	return w
}

// content returns pages and digests of [page, page+n).
func (w *whole) content(page uint32, n int) (pages, digests []byte) {
	return w.pages[page*pack.PageSize:][:n*pack.PageSize], w.digests[page*sha256.Size:][:n*sha256.Size]
}

func (w *whole) admit(p *pack.Partial, page uint32, n int) error {
	pages, digests := w.content(page, n)
	return p.Admit(page, pages, digests)
}

func boot(b byte) pack.Boot { return pack.Boot{b} }

// open opens the partial pack in a folder.
func (w *whole) open(t testing.TB, dir string, b pack.Boot) *pack.Partial {
	t.Helper()
	p, err := pack.OpenPartial(filepath.Join(dir, "pack"), filepath.Join(dir, "map"), w.id, w.n, w.root, b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// here returns which pages are there.
func here(p *pack.Partial) (pages []uint32) {
	for i := range p.Pages() {
		if p.Missing(i, i+1) == i+1 {
			pages = append(pages, i)
		}
	}
	return pages
}

// finish admits what is missing, and returns an error unless the file is the complete pack then.
func (w *whole) finish(p *pack.Partial) error {
	for i := range w.n {
		if p.Missing(i, i+1) == i+1 {
			if n, err := p.Verify(i, 1); n != 1 {
				return fmt.Errorf("page %d is said to be here: %w", i, err)
			}
			if !bytes.Equal(p.Bytes(i, 1), w.pages[i*pack.PageSize:][:pack.PageSize]) {
				return fmt.Errorf("page %d is said to be here, and is another", i)
			}
			continue
		}
		if err := w.admit(p, i, 1); err != nil {
			return err
		}
	}
	if err := p.Finish(); err != nil {
		return err
	}
	file, _ := p.Files()
	got, err := os.ReadFile(file)
	if err == nil && !bytes.Equal(got, w.file) {
		err = errors.New("the file is not that of the complete pack")
	}
	return err
}

func TestPartialPackBecomesTheWhole(t *testing.T) {
	w := newWhole(t, 70)
	dir := t.TempDir()
	p := w.open(t, dir, boot(1))
	if got := here(p); got != nil || p.Verified(0, 70) != 0 {
		t.Errorf("pages %v are in a new partial pack", got)
	}
	if err := p.Finish(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Finish without pages: %v", err)
	}
	if err := w.admit(p, 30, 7); err != nil {
		t.Fatal(err)
	}
	if p.Verified(30, 70) != 7 || p.Present(0, 70) != 7 || len(here(p)) != 7 {
		t.Errorf("pages %v are here, want 30 to 36", here(p))
	}
	p.Close()
	p = w.open(t, dir, boot(1)) // another process
	defer p.Close()
	if n, err := p.Verify(30, 7); n != 7 || err != nil {
		t.Errorf("Verify: %d, %v", n, err)
	}
	if err := w.finish(p); err != nil {
		t.Error(err)
	}
}

func TestNodesAreKeptIfTheyHaveTheRoot(t *testing.T) {
	w := newWhole(t, 70)
	dir := t.TempDir()
	p := w.open(t, dir, boot(1))
	for _, bad := range [][]byte{nil, make([]byte, len(w.nodes)), w.nodes[:32]} {
		if err := p.SetNodes(bad); !errors.Is(err, pack.ErrWrongBytes) {
			t.Errorf("nodes of %d bytes: %v", len(bad), err)
		}
	}
	if p.Nodes() != nil {
		t.Error("there are nodes before anybody gave some")
	}
	if err := p.SetNodes(w.nodes); err != nil {
		t.Fatal(err)
	}
	p.Close()
	p = w.open(t, dir, boot(2))
	defer p.Close()
	if !bytes.Equal(p.Nodes(), w.nodes) {
		t.Error("the nodes are gone")
	}
}

func TestAnotherRootIsRefused(t *testing.T) {
	w := newWhole(t, 40)
	dir := t.TempDir()
	w.open(t, dir, boot(1)).Close()
	_, err := pack.OpenPartial(filepath.Join(dir, "pack"), filepath.Join(dir, "map"), w.id, w.n, pack.Digest{1}, boot(1))
	if !errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("error is %v, want %v", err, pack.ErrCorrupt)
	}
}

func TestPagesOfAnotherPackDoNotFinish(t *testing.T) {
	w, other := newWhole(t, 40), newWhole(t, 41)
	p := w.open(t, t.TempDir(), boot(1))
	defer p.Close()
	pages, digests := other.content(1, 40)
	if err := p.Admit(0, pages, digests); err != nil {
		t.Fatal(err)
	}
	if err := p.Finish(); !errors.Is(err, pack.ErrWrongBytes) {
		t.Errorf("Finish: %v", err)
	}
	p.Doubt()
	if n := p.Verified(0, 40); n != 0 {
		t.Errorf("%d pages are known to be intact", n)
	}
}

func TestFilesThatAreNotFitAreMadeAnew(t *testing.T) {
	w := newWhole(t, 40)
	for what, spoil := range map[string]func(file, state string) error{
		"no pack":           func(file, _ string) error { return os.Remove(file) },
		"no map":            func(_, state string) error { return os.Remove(state) },
		"an empty map":      func(_, state string) error { return os.Truncate(state, 0) },
		"a shorter map":     func(_, state string) error { return os.Truncate(state, 150) },
		"a shorter pack":    func(file, _ string) error { return os.Truncate(file, 8192) },
		"another map":       func(_, state string) error { return os.WriteFile(state, bytes.Repeat([]byte{7}, 232), 0o600) },
		"a map left behind": func(_, state string) error { return os.WriteFile(state+".tmp", []byte{1}, 0o600) },
	} {
		dir := t.TempDir()
		p := w.open(t, dir, boot(1))
		if err := w.admit(p, 0, 40); err != nil {
			t.Fatal(err)
		}
		p.Close()
		if err := spoil(p.Files()); err != nil {
			t.Fatal(err)
		}
		p = w.open(t, dir, boot(1))
		if got := len(here(p)); what != "a map left behind" && got != 0 {
			t.Errorf("%s: %d pages are here", what, got)
		}
		if err := w.finish(p); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		p.Close()
	}
}

// TestPowerIsLostBetweenDataAndMap is a model: of all that was written for each page (content, digest, sum, presence), and of the
// boot id, any subset is on the disk after a power cut; the rest is as it was before: zeros. It cuts power twice.
func TestPowerIsLostBetweenDataAndMap(t *testing.T) {
	w := newWhole(t, 67)
	rnd := rand.New(rand.NewPCG(1, 1))
	for round := range 60 {
		dir := t.TempDir()
		p := w.open(t, dir, boot(1))
		if err := errors.Join(p.SetNodes(w.nodes), w.admit(p, 0, 60)); err != nil {
			t.Fatal(err)
		}
		p.Close()
		for cut := range 2 {
			survived := w.cutPower(t, dir, rnd)
			p = w.open(t, dir, boot(byte(2+cut)))
			for _, page := range here(p) {
				if !survived[page] {
					t.Fatalf("round %d, cut %d: page %d is said to be here, and is not", round, cut, page)
				}
			}
			// Whoever comes now, in this round or another process, relies on what was found out.
			again := w.open(t, dir, boot(byte(2+cut)))
			for page := range w.n {
				if again.Missing(page, page+1) == page+1 && !survived[page] {
					t.Fatalf("round %d, cut %d: page %d is said to be here by another", round, cut, page)
				}
			}
			again.Close()
			if cut == 0 {
				if err := w.admit(p, 5, 30); err != nil {
					t.Fatal(err)
				}
				p.Close()
			}
		}
		if err := w.finish(p); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		p.Close()
	}
}

// cutPower takes back a part of what is in the files, and returns the pages of which all is left.
func (w *whole) cutPower(t *testing.T, dir string, rnd *rand.Rand) map[uint32]bool {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	file, state := read("pack"), read("map")
	nodes := (int(w.n) + pack.FramePages - 1) / pack.FramePages * sha256.Size
	digests := file[pack.Offset(w.n):][:len(w.digests)]
	sums := file[int(pack.Offset(w.n))+len(w.digests):][:w.n*8]
	states := state[128+nodes:]
	if rnd.IntN(2) == 0 { // nodes that are only half there
		clear(state[128+nodes/2 : 128+nodes])
	}
	if rnd.IntN(2) == 0 { // the first page of the pack
		clear(file[:pack.PageSize])
	}
	left := make(map[uint32]bool)
	for page := range w.n {
		content := file[pack.Offset(page):][:pack.PageSize]
		switch rnd.IntN(4) {
		case 0:
			clear(content)
		case 1:
			clear(content[512*rnd.IntN(8):]) // torn
		}
		for _, b := range [][]byte{digests[page*32:][:32], sums[page*8:][:8], states[page:][:1]} {
			if rnd.IntN(4) == 0 {
				clear(b)
			}
		}
		left[page] = bytes.Equal(content, w.pages[page*pack.PageSize:][:pack.PageSize]) &&
			bytes.Equal(digests[page*32:][:32], w.digests[page*32:][:32]) && binary.LittleEndian.Uint64(sums[page*8:]) == pack.Sum(content)
	}
	for name, b := range map[string][]byte{"pack": file, "map": state} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return left
}

func TestPagesThatFindNoRoomAreInMemory(t *testing.T) {
	w := newWhole(t, 40)
	p := w.open(t, t.TempDir(), boot(1))
	defer p.Close()
	if err := w.admit(p, 0, 4); err != nil {
		t.Fatal(err)
	}
	pages, _ := w.content(2, 5)
	if err := p.Keep(2, pages); err != nil {
		t.Fatal(err)
	}
	if got := p.Missing(0, 40); got != 7 || !p.InMemory() {
		t.Errorf("page %d is the first that is missing, want 7", got)
	}
	if n := p.Verified(0, 40); n != 7 || !bytes.Equal(p.Bytes(0, 7), w.pages[:7*pack.PageSize]) {
		t.Errorf("%d pages are known to be intact, want 7, of the right content", n)
	}
	to := make([]byte, 7*pack.PageSize)
	if n, err := p.Copy(to, 0); n != 7 || err != nil || !bytes.Equal(to, w.pages[:len(to)]) {
		t.Errorf("Copy: %d, %v", n, err)
	}
	if err := p.Finish(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Finish of a pack that is not on the disk: %v", err)
	}
	// There is room again, and somebody brings them for another session.
	if err := errors.Join(w.admit(p, 0, 40), p.Finish()); !errors.Is(err, fs.ErrNotExist) && err != nil {
		t.Error(err)
	}
	if n := p.Verified(0, 40); n != 40 || !bytes.Equal(p.Bytes(0, 40), w.pages) {
		t.Errorf("%d pages are known to be intact", n)
	}
}

// mappings returns how many mappings this process has.
func mappings(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

func TestPagesInMemoryThatLieTogetherTakeOneMapping(t *testing.T) {
	const pages = 1920
	w := newWhole(t, pages)
	for what, keep := range map[string]func(p *pack.Partial) error{
		"one by one, in any order": func(p *pack.Partial) (err error) {
			for _, page := range rand.New(rand.NewPCG(1, 1)).Perm(pages) {
				content, _ := w.content(uint32(page), 1)
				err = errors.Join(err, p.Keep(uint32(page), content))
			}
			return err
		},
		"by frames, of which every other page is on the disk": func(p *pack.Partial) (err error) {
			for page := uint32(0); page < pages; page += 2 {
				err = errors.Join(err, w.admit(p, page, 1))
			}
			for page := uint32(0); page < pages; page += pack.FramePages {
				content, _ := w.content(page, pack.FramePages)
				err = errors.Join(err, p.Keep(page, content))
			}
			return err
		},
	} {
		p := w.open(t, t.TempDir(), boot(1))
		before := mappings(t)
		if err := keep(p); err != nil {
			t.Fatal(err)
		}
		// Some are the runtime's own.
		if n := mappings(t) - before; n > 100 {
			t.Errorf("%s: %d mappings for %d pages, want few", what, n, pages)
		}
		if n := p.Verified(0, pages); n != pages || !bytes.Equal(p.Bytes(0, pages), w.pages) {
			t.Errorf("%s: %d pages are known to be intact, want %d, of the right content", what, n, pages)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAdmitRefusesWhatDoesNotFit(t *testing.T) {
	w := newWhole(t, 40)
	p := w.open(t, t.TempDir(), boot(1))
	defer p.Close()
	pages, digests := w.content(0, 2)
	for _, err := range []error{
		p.Admit(39, pages, digests), p.Admit(40, pages, digests), p.Admit(1<<31, pages, digests), p.Admit(0, nil, nil),
		p.Admit(0, pages[:5000], digests), p.Admit(0, pages, digests[:32]),
	} {
		if err == nil {
			t.Error("pages that do not fit were admitted")
		}
	}
	if got := here(p); got != nil {
		t.Errorf("pages %v are here", got)
	}
}

// TestManyAdmitTheSamePages has goroutines with two openings of the same files admit pages that overlap.
func TestManyAdmitTheSamePages(t *testing.T) {
	w := newWhole(t, 200)
	dir := t.TempDir()
	open := []*pack.Partial{w.open(t, dir, boot(1)), w.open(t, dir, boot(1))}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			p := open[i%2]
			for range 100 {
				page := rnd.Uint32N(w.n)
				n := int(min(1+rnd.Uint32N(40), w.n-page))
				if err := w.admit(p, page, n); err != nil {
					t.Error(err)
				}
				if got := p.Verified(page, n); got != n {
					if got, err := p.Verify(page, n); got != n {
						t.Errorf("%d of %d pages are intact: %v", got, n, err)
					}
				}
				if pages, _ := w.content(page, n); !bytes.Equal(p.Bytes(page, n), pages) {
					t.Error("other pages")
				}
			}
		})
	}
	wg.Wait()
	if err := w.finish(open[0]); err != nil {
		t.Error(err)
	}
	for _, p := range open {
		p.Close()
	}
}

// FuzzReadPresence gives the parser of maps bytes with a right checksum.
func FuzzReadPresence(f *testing.F) {
	w := newWhole(f, 40)
	dir := f.TempDir()
	p := w.open(f, dir, boot(1))
	if err := errors.Join(p.SetNodes(w.nodes), w.admit(p, 3, 20), p.Close()); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(filepath.Join(dir, "map"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	path := filepath.Join(dir, "fuzz")
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 96 {
			data = bytes.Clone(data)
			binary.LittleEndian.PutUint64(data[88:], xxhash.Sum64(data[:88]))
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := pack.ReadPresence(path)
		if err != nil {
			return
		}
		n := 0
		for i := range p.Pages {
			if p.Has(i) {
				n++
			}
			if p.Present(i) && !p.Has(i) {
				t.Errorf("page %d is present, and not here", i)
			}
		}
		if p.Pages < 1 || p.Pages > pack.MaxPages || p.Runs() > n || n > 0 && p.Runs() == 0 {
			t.Errorf("map of %d pages has %d, in %d runs", p.Pages, n, p.Runs())
		}
	})
}

func TestPagesAdmittedWhileTheyAreLookedAtStay(t *testing.T) {
	const pages = 200
	w := newWhole(t, pages)
	for range 20 {
		dir := t.TempDir()
		p := w.open(t, dir, boot(1))
		if err := w.admit(p, 0, pages); err != nil {
			t.Fatal(err)
		}
		p.Close()
		file, _ := p.Files()
		if err := os.Truncate(file, pack.PageSize); err != nil { // power is lost: the map has pages that are not here
			t.Fatal(err)
		}
		if err := os.Truncate(file, int64(len(w.file))); err != nil {
			t.Fatal(err)
		}
		p, other := w.open(t, dir, boot(2)), w.open(t, dir, boot(2))
		var all sync.WaitGroup
		all.Go(func() {
			for page := range w.n {
				p.Missing(page, page+1)
			}
		})
		all.Go(func() {
			for page := range w.n {
				if err := w.admit(other, page, 1); err != nil {
					t.Error(err)
				}
			}
		})
		all.Wait()
		if at := p.Missing(0, pages); at != pages {
			t.Errorf("page %d was admitted, and is missing", at)
		}
		p.Close()
		other.Close()
	}
}

func TestGoldenMap(t *testing.T) {
	const golden = "testdata/40-pages.map"
	w := newWhole(t, 40)
	dir := t.TempDir()
	p := w.open(t, dir, boot(9))
	if err := errors.Join(p.SetNodes(w.nodes), w.admit(p, 3, 20), p.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "map"))
	if err != nil {
		t.Fatal(err)
	}
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
		t.Error("the format has changed: a map of 40 pages is not what the golden file has")
	}
}
