package pagestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"thaw/internal/testenv"
	"thaw/pagestore/internal/pack"
)

func TestMain(m *testing.M) {
	if code, ok := childMain(); ok {
		os.Exit(code)
	}
	testenv.Main(m)
}

// testBase is where the memory of test snapshots begins.
const testBase = 0x7f00_0000_0000

// newStore makes a store with small packs, which is closed and, if the test has not failed yet, verified at its end.
func newStore(t *testing.T) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	s, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openStore(t, dir, &Options{packPages: 64})
}

// memoryDir is t.TempDir in memory, where there is such a place: thousands of small stores are made there, and making
// folders is what costs most on a disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pagestore-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func openStore(t *testing.T, dir string, opts *Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// pageOf returns a page that is like no page of another seed; seed 0 is a page of zeros.
func pageOf(seed uint64) []byte {
	page := make([]byte, PageSize)
	if seed != 0 {
		rng := rand.New(rand.NewPCG(seed, 1))
		for i := 0; i < PageSize; i += 8 {
			binary.LittleEndian.PutUint64(page[i:], rng.Uint64())
		}
	}
	return page
}

// memory is the content of a test snapshot, as seeds of pageOf.
type memory []uint64

// seeds returns the memory of n pages with the seeds from first on.
func seeds(first uint64, n int) memory {
	m := make(memory, n)
	for i := range m {
		m[i] = first + uint64(i)
	}
	return m
}

func (m memory) bytes() []byte {
	var b bytes.Buffer
	for _, seed := range m {
		b.Write(pageOf(seed))
	}
	return b.Bytes()
}

// input returns an input of one space with the memory as one run.
func (m memory) input() Input {
	in := Input{Spaces: []Space{{ID: 1}}, Files: []io.ReaderAt{bytes.NewReader(m.bytes())}}
	if len(m) > 0 {
		in.Spaces[0].Regions = []Region{{Start: testBase, End: testBase + uint64(len(m))*PageSize}}
		in.Spaces[0].Runs = []Run{{Addr: testBase, Pages: uint64(len(m))}}
	}
	return in
}

// mustName is ParseName for constants.
func mustName(s string) Name {
	n, err := ParseName(s)
	if err != nil {
		panic(err)
	}
	return n
}

func mustImport(t *testing.T, s *Store, name string, m memory) Report {
	t.Helper()
	report, err := s.Import(t.Context(), mustName(name), m.input(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// mustOpen leases a snapshot until the end of the test.
func mustOpen(t *testing.T, s *Store, name string) *Snapshot {
	t.Helper()
	snap, err := s.Snapshot(mustName(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { snap.Close() })
	return snap
}

func mustImage(t *testing.T, s *Store, name string) *Image {
	t.Helper()
	im, err := mustOpen(t, s, name).Image()
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// setWorkingSet sets the working set of a snapshot.
func setWorkingSet(ctx context.Context, s *Store, name string, w WorkingSet) error {
	snap, err := s.Snapshot(mustName(name))
	if err != nil {
		return err
	}
	defer snap.Close()
	return snap.SetWorkingSet(ctx, w)
}

// workingSetOf returns the working set that a snapshot has.
func workingSetOf(s *Store, name string) (w WorkingSet, err error) {
	snap, err := s.Snapshot(mustName(name))
	if err != nil {
		return w, err
	}
	defer snap.Close()
	if w.Hint, err = snap.WorkingSet(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	im, err := snap.Image()
	if err != nil {
		return w, err
	}
	if _, err := im.Hot(); err != nil {
		return w, err
	}
	if im.hot.file != nil {
		for i := range im.hot.file.Runs() {
			r, _ := im.hot.file.Run(i)
			w.Order = append(w.Order, PageRun{r.Image, uint64(r.Pages)})
		}
	}
	if w.Far, _, err = snap.readHotOrder(hotOrderFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	return w, nil
}

// checkImage loads all of a snapshot and compares it with what it should be.
func checkImage(s *Store, name string, want memory) error {
	snap, err := s.Snapshot(mustName(name))
	if err != nil {
		return err
	}
	defer snap.Close()
	im, err := snap.Image()
	if err != nil {
		return err
	}
	if im.Pages() != uint64(len(want)) {
		return fmt.Errorf("image of %s has %d pages, want %d", name, im.Pages(), len(want))
	}
	for page := 0; page < len(want); {
		data, n, err := im.Load(uint64(page), len(want))
		if err != nil {
			return err
		}
		for i := range n {
			got := make([]byte, PageSize)
			if data != nil {
				got = data[i*PageSize:][:PageSize]
			}
			if !bytes.Equal(got, pageOf(want[page+i])) {
				return fmt.Errorf("page %d of %s is not that of seed %d", page+i, name, want[page+i])
			}
		}
		page += n
	}
	return nil
}

// checkVerify returns an error if Verify finds anything.
func checkVerify(t *testing.T, s *Store) error {
	report, err := s.Verify(t.Context(), nil)
	if err != nil {
		return err
	}
	if !report.OK() {
		return fmt.Errorf("verify found %d bad snapshots, %d bad packs, %d bad pages: %+v",
			len(report.BadSnapshots), len(report.BadPacks), report.BadPageCount, report)
	}
	return nil
}

// tree lists the files and folders of a store, with the sizes of files, but for the index, which is derived.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == indexDir {
			return fs.SkipDir
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			fmt.Fprintf(&out, "%s/\n", rel)
		} else {
			fmt.Fprintf(&out, "%s %d\n", rel, info.Size())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// packPaths returns the files of the packs of a namespace, in the order of their first pages in the snapshot name.
func packPaths(t *testing.T, s *Store, name string) (ids []PackID, paths []string) {
	t.Helper()
	snap, err := s.Snapshot(mustName(name))
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	for i := range snap.manifest.Packs() {
		id := snap.manifest.Pack(i).ID
		ids, paths = append(ids, id), append(paths, snap.ns.pack(id))
	}
	return ids, paths
}

// flipBit changes one bit of a file.
func flipBit(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
}

// wantPageError checks that err names the page.
func wantPageError(t *testing.T, err error, id PackID, page uint32, marker error) {
	t.Helper()
	var pe *PageError
	if !errors.As(err, &pe) {
		t.Fatalf("error is %v, want a *PageError", err)
	}
	if pe.Pack != id || pe.Page != page || pe.Offset != pack.Offset(page) {
		t.Errorf("error names page %d at %d of pack %s, want page %d at %d of %s",
			pe.Page, pe.Offset, pe.Pack, page, pack.Offset(page), id)
	}
	if !errors.Is(err, marker) {
		t.Errorf("error is %v, want %v", err, marker)
	}
}
