package tier

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
	"sync"
	"testing"
	"time"

	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/fetch"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const testBase = 0x7f00_0000_0000

// pageOf returns a page that is like no page of another seed: random for even ones, easy to compress for odd ones.
func pageOf(seed uint64) []byte {
	page := make([]byte, pagestore.PageSize)
	rng := rand.New(rand.NewPCG(seed, 1))
	n := pagestore.PageSize
	if seed%2 == 1 {
		n /= 8
	}
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(page[i:], rng.Uint64())
	}
	return page
}

// seeds returns the content of n pages with the seeds from first on.
func seeds(first uint64, n int) []byte {
	var b bytes.Buffer
	for i := range n {
		b.Write(pageOf(first + uint64(i)))
	}
	return b.Bytes()
}

func nameOf(snapshot string) pagestore.Name {
	return pagestore.Name{Namespace: "ns", Snapshot: snapshot}
}

// node is a store with what connects it to others.
type node struct {
	t      testing.TB
	store  *pagestore.Store
	origin *Origin
	shelf  *Shelf

	mu     sync.Mutex
	places []Place // protected by mu
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t}
	n.origin = NewOrigin(OriginOptions{Places: n.where, Fetch: fetch.Options{Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond}})
	dir := filepath.Join(t.TempDir(), "store")
	made, err := pagestore.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	if n.store, err = pagestore.Open(dir, &pagestore.Options{Origin: n.origin}); err != nil {
		t.Fatal(err)
	}
	n.shelf = NewShelf(n.store, nil)
	t.Cleanup(func() {
		n.shelf.Close()
		n.store.Close()
		n.origin.Close()
	})
	return n
}

func (n *node) where(Key) []Place {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.places
}

// sees sets the places that the node sees.
func (n *node) sees(places ...Place) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.places = places
}

func peer(n *node) Place              { return Place{Reader: n.shelf, Raw: true} }
func bucketPlace(b blob.Reader) Place { return Place{Reader: b, Tier: 1} }
func (n *node) pull(snapshot string, opts *PullOptions) (PullReport, error) {
	return Pull(n.t.Context(), n.store, n.where, nameOf(snapshot), opts)
}

func (n *node) mustPull(snapshot string, opts *PullOptions) PullReport {
	n.t.Helper()
	r, err := n.pull(snapshot, opts)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// mustOpen opens a snapshot's image for the time of the test.
func (n *node) mustOpen(snapshot string) *pagestore.Image {
	n.t.Helper()
	snap, err := n.store.Snapshot(nameOf(snapshot))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { snap.Close() })
	im, err := snap.Image()
	if err != nil {
		n.t.Fatal(err)
	}
	return im
}

func (n *node) mustPush(snapshot string, b blob.Bucket, opts *PushOptions) PushReport {
	n.t.Helper()
	r, err := Push(n.t.Context(), n.store, nameOf(snapshot), b, opts)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// freeze makes a snapshot of memory, whose working set is every third page from the end on.
func (n *node) freeze(snapshot string, memory []byte) {
	n.t.Helper()
	in := pagestore.Input{
		Spaces: []pagestore.Space{{
			ID: 1, Regions: []pagestore.Region{{Start: testBase, End: testBase + uint64(len(memory))}},
			Runs: []pagestore.Run{{Addr: testBase, Pages: uint64(len(memory) / pagestore.PageSize)}},
		}},
		Files: []io.ReaderAt{bytes.NewReader(memory)},
		Skeleton: func(dir string) error {
			return errors.Join(
				os.WriteFile(filepath.Join(dir, "core-1.img"), []byte("core of "+snapshot), 0o600),
				os.WriteFile(filepath.Join(dir, "mm-1.img"), bytes.Repeat([]byte("mm"), 5000), 0o600),
			)
		},
	}
	if _, err := n.store.Import(n.t.Context(), nameOf(snapshot), in, nil); err != nil {
		n.t.Fatal(err)
	}
	n.setWorkingSet(snapshot, "hint of "+snapshot, len(memory)/pagestore.PageSize)
}

func (n *node) setWorkingSet(snapshot, hint string, pages int) {
	n.t.Helper()
	snap, err := n.store.Snapshot(nameOf(snapshot))
	if err != nil {
		n.t.Fatal(err)
	}
	defer snap.Close()
	w := pagestore.WorkingSet{Hint: []byte(hint)}
	for page := pages - 3; page >= 0; page -= 3 {
		w.Order = append(w.Order, pagestore.PageRun{Image: uint64(page), Pages: 1})
	}
	if err := snap.SetWorkingSet(n.t.Context(), w); err != nil {
		n.t.Fatal(err)
	}
}

// check compares all of a snapshot with what it should be. Its pages have to come within ten seconds.
func (n *node) check(snapshot string, memory []byte) error {
	snap, err := n.store.Snapshot(nameOf(snapshot))
	if err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	im, err := snap.Image()
	if err != nil {
		return errors.Join(err, snap.Close())
	}
	var page uint64
	for page < im.Pages() && err == nil {
		var data []byte
		var got int
		ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
		if err = im.Bring(ctx, page, min(40, im.Pages()-page), pagestore.Demand); err == nil {
			data, got, err = im.Load(page, 40)
		}
		cancel()
		if err == nil && !bytes.Equal(data, memory[page*pagestore.PageSize:][:got*pagestore.PageSize]) {
			err = fmt.Errorf("pages [%d, +%d) of %s are others", page, got, snapshot)
		}
		page += uint64(got)
	}
	if err == nil && im.Pages() != uint64(len(memory)/pagestore.PageSize) {
		err = fmt.Errorf("image has %d pages", im.Pages())
	}
	if err == nil {
		err = checkBeside(snap, snapshot)
	}
	return errors.Join(err, snap.Close())
}

func checkBeside(snap *pagestore.Snapshot, snapshot string) error {
	core, err := os.ReadFile(filepath.Join(snap.SkeletonDir(), "core-1.img"))
	if err != nil {
		return err
	}
	hint, err := snap.WorkingSet()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(core) != "core of "+snapshot || string(hint) != "hint of "+snapshot {
		return fmt.Errorf("core is %q, hint %q", core, hint)
	}
	return nil
}

func (n *node) mustCheck(snapshot string, memory []byte) {
	n.t.Helper()
	if err := n.check(snapshot, memory); err != nil {
		n.t.Fatal(err)
	}
}

// mustBring brings pages of a stub, without leaving it open.
func (n *node) mustBring(snapshot string, page, pages uint64) {
	n.t.Helper()
	snap, err := n.store.Snapshot(nameOf(snapshot))
	if err != nil {
		n.t.Fatal(err)
	}
	im, err := snap.Image()
	if err == nil {
		err = im.Bring(n.t.Context(), page, pages, pagestore.Demand)
	}
	if err := errors.Join(err, snap.Close()); err != nil {
		n.t.Fatal(err)
	}
}

// local returns how many pages of a snapshot are here, and how many there are.
func (n *node) local(snapshot string) (local, stored uint64) {
	n.t.Helper()
	snap, err := n.store.Snapshot(nameOf(snapshot))
	if err != nil {
		n.t.Fatal(err)
	}
	defer snap.Close()
	l, err := snap.Local()
	if err != nil {
		n.t.Fatal(err)
	}
	return l.LocalPages, l.StoredPages
}
