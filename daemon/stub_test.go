package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"thaw/pagestore"
	"thaw/restore"
)

// elsewhere is an origin that has another store at hand.
type elsewhere struct{ store *pagestore.Store }

func (e elsewhere) Fetch(_ context.Context, p *pagestore.RemotePack, first, n int, _ pagestore.Class) error {
	h, err := e.store.HeldPack(p.Namespace, p.ID)
	if err != nil {
		return err
	}
	defer h.Close()
	nodes, err := h.Nodes()
	if err == nil {
		err = p.SetNodes(nodes)
	}
	buf := make([]byte, 128<<10)
	for i := first; err == nil && i < first+n; i++ {
		var size int
		if size, err = h.ReadFrame(buf, i); err == nil {
			err = p.Admit(i, buf[:size])
		}
	}
	return err
}

func (elsewhere) FetchHot(context.Context, *pagestore.RemoteHot) error {
	return errors.New("there are no hot pages")
}

// newStub returns a store with the snapshot "web" of another as a stub.
func newStub(t *testing.T, far *pagestore.Store) *pagestore.Store {
	t.Helper()
	name, err := pagestore.ParseName("web")
	if err != nil {
		t.Fatal(err)
	}
	snap, err := far.Snapshot(name)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	files, err := snap.Files()
	if err != nil {
		t.Fatal(err)
	}
	a := pagestore.Adoption{
		Name: name, Info: files.Info, Manifest: files.Manifest,
		Skeleton: func(dir string) error { return os.CopyFS(dir, os.DirFS(snap.SkeletonDir())) },
	}
	if a.Remote.Packs, err = snap.Packs(); err != nil {
		t.Fatal(err)
	}
	for i := range a.Remote.Packs {
		h, err := far.HeldPack(name.Namespace, a.Remote.Packs[i].ID)
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := h.Nodes()
		if err := errors.Join(err, h.Close()); err != nil {
			t.Fatal(err)
		}
		a.Remote.Packs[i].Root = sha256.Sum256(nodes)
	}
	dir := filepath.Join(t.TempDir(), "stubs")
	made, err := pagestore.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	store := openAgain(t, dir, elsewhere{far})
	if err := store.Adopt(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	return store
}

func openAgain(t *testing.T, dir string, o pagestore.Origin) *pagestore.Store {
	t.Helper()
	store, err := pagestore.Open(dir, &pagestore.Options{Origin: o})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// TestMemoryIsMappedOnlyFromPacksThatAreWhole: a process that maps a partial pack would read zeros.
func TestMemoryIsMappedOnlyFromPacksThatAreWhole(t *testing.T) {
	store := newStub(t, newStore(t, 400))
	o, err := openSnapshot(store, "web")
	if err != nil {
		t.Fatal(err)
	}
	if o.warm(nil, everything(), rand.New(rand.NewPCG(1, 1))) {
		t.Error("a snapshot of which nothing is here counts as warm")
	}
	if got, _ := planFor(t, store, everything(), at(0, 400)); got != nil {
		t.Errorf("mapped are %+v, of which nothing is here", got)
	}
	if !check(o.image, restore.Extent{Pages: 300}) { // brings them
		t.Fatal("the memory is not intact")
	}
	if got, _ := planFor(t, store, everything(), at(0, 300)); got != nil {
		t.Errorf("mapped are %+v, from a pack that is not whole", got)
	}
	if err := errors.Join(o.image.Mirror(t.Context()), o.close(), store.Close()); err != nil { // which waits until it is whole
		t.Fatal(err)
	}
	if got, _ := planFor(t, openAgain(t, store.Dir(), nil), everything(), at(0, 400)); len(got) == 0 {
		t.Error("nothing is mapped of what is here now")
	}
}
