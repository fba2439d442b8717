package tier

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/internal/frame"
)

// found resolves a snapshot at a shelf.
func found(t *testing.T, r blob.Reader, snapshot string) *Found {
	t.Helper()
	f, err := Resolve(t.Context(), []Place{{Reader: r}}, nameOf(snapshot), nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAShelfServesTheRangesThatItIsAskedFor(t *testing.T) {
	memory := seeds(1, 100)
	n := newNode(t)
	n.freeze("one", memory)
	f := found(t, n.shelf, "one")
	keys := append(f.Descriptor.keys("ns"), NameKey(nameOf("one")), DescriptorKey("ns", f.Digest))
	rng := rand.New(rand.NewPCG(1, 2))
	for _, key := range keys {
		whole, err := blobtest.Read(t.Context(), n.shelf, key.String(), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		size, err := n.shelf.Size(t.Context(), key.String())
		if err != nil || size != int64(len(whole)) {
			t.Errorf("%s has %d bytes, and %d are read; %v", key, size, len(whole), err)
		}
		for range 50 {
			off := rng.Int64N(size + 1)
			length := rng.Int64N(size - off + 1)
			if part, err := blobtest.Read(t.Context(), n.shelf, key.String(), off, length); err != nil || !bytes.Equal(part, whole[off:off+length]) {
				t.Errorf("%s: %d bytes from %d on: %d bytes that may be others; %v", key, length, off, len(part), err)
			}
		}
		for _, bad := range [][2]int64{{0, size + 1}, {size + 1, 0}, {size + 1, -1}, {-1, 1}, {size, 1}, {1 << 62, 1 << 62}} {
			if _, err := n.shelf.Open(t.Context(), key.String(), bad[0], bad[1]); !errors.Is(err, blob.ErrRange) {
				t.Errorf("%s: %d bytes from %d on: %v, want %v", key, bad[1], bad[0], err, blob.ErrRange)
			}
		}
	}
	p := f.Descriptor.Packs[0]
	x, err := readIndex(t.Context(), n.shelf, PackKey("ns", p.ID), p.Pages, p.Root)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := frame.Raw(frame.Pack, p.ID, p.Pages, x.Nodes())
	if err != nil || !bytes.Equal(raw.Head(), x.Head()) {
		t.Errorf("its packs are not in the raw layout; %v", err)
	}
}

func TestAShelfHasNothingElse(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 10))
	f := found(t, n.shelf, "one")
	none := digestOf("none")
	for _, key := range []Key{
		NameKey(nameOf("two")), PackKey("ns", none), MetaKey("ns", none), DescriptorKey("ns", none), HotKey("ns", none, none), leaseKey("ns", "push-x"),
		PackKey("other", f.Descriptor.Packs[0].ID), MetaKey("other", f.Descriptor.Meta.Digest), DescriptorKey("other", f.Digest), NameKey(pagestore.Name{Namespace: "other", Snapshot: "one"}),
		HotKey("ns", f.Descriptor.Manifest.Digest, none),
	} {
		if _, err := n.shelf.Size(t.Context(), key.String()); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("size of %s: %v", key, err)
		}
		if _, err := n.shelf.Open(t.Context(), key.String(), 0, -1); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("open %s: %v", key, err)
		}
	}
	if _, err := n.shelf.Open(t.Context(), "v1/ns/packs/../../x", 0, -1); !errors.Is(err, blob.ErrKey) {
		t.Errorf("a key that is none: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := n.shelf.Open(ctx, PackKey("ns", f.Descriptor.Packs[0].ID).String(), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("read after the context's end: %v", err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	n.shelf.Close()
	if _, err := n.shelf.Open(t.Context(), NameKey(nameOf("one")).String(), 0, -1); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("open after Close: %v", err)
	}
}

func TestAShelfServesOfAPartialPackWhatIsHere(t *testing.T) {
	memory := seeds(1, 32*6)
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", memory)
	n.sees(peer(maker))
	n.mustPull("one", nil)
	im := n.mustOpen("one")
	key := PackKey("ns", found(t, maker.shelf, "one").Descriptor.Packs[0].ID).String()
	if _, err := n.shelf.Size(t.Context(), key); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("nothing is known of it: %v", err)
	}
	if err := im.Bring(t.Context(), 64, 64, pagestore.Demand); err != nil { // frames 2 and 3
		t.Fatal(err)
	}
	head := int64(frame.HeaderSize + 6*36)
	const size = 32 * pagestore.PageSize
	got, err := blobtest.Read(t.Context(), n.shelf, key, head+2*size+5, 2*size-10)
	if err != nil || !bytes.Equal(got, memory[2*size+5:4*size-5]) {
		t.Errorf("%d bytes of frames that are here, which may be others; %v", len(got), err)
	}
	if _, err := blobtest.Read(t.Context(), n.shelf, key, 0, head); err != nil {
		t.Errorf("its index: %v", err)
	}
	for _, r := range [][2]int64{{head, 1}, {head + 2*size - 1, 2}, {head + 5*size, size}} {
		if _, err := n.shelf.Open(t.Context(), key, r[0], r[1]); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%d bytes from %d on: %v, want %v", r[1], r[0], err, blob.ErrNotFound)
		}
	}
	// Of what begins with something that is here that comes, and it is said how much it is.
	for _, r := range [][3]int64{{head + 4*size - 1, 2, 1}, {head + 2*size + 1, 3 * size, 2*size - 1}, {0, -1, head}} {
		body, err := n.shelf.Open(t.Context(), key, r[0], r[1])
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if part, ok := body.(blob.Part); !ok || part.Part() != r[2] || int64(len(got)) != r[2] || !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%d bytes from %d on: %d came, want %d; %v", r[1], r[0], len(got), r[2], err)
		}
		body.Close()
	}
	// One that is to bring what others ask for does so, and only for packs that it is to.
	shelf := NewShelf(n.store, &ShelfOptions{Bring: func(_ context.Context, k Key) bool { return k.String() == key }})
	defer shelf.Close()
	if got, err := blobtest.Read(t.Context(), shelf, key, head, -1); err != nil || !bytes.Equal(got, memory) {
		t.Errorf("%d bytes that were to be brought, which may be others; %v", len(got), err)
	}
}

func TestAShelfBringsNothingForAPackThatWasEvicted(t *testing.T) {
	const size = 32 * pagestore.PageSize
	memory := seeds(1, 32*2)
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", memory)
	n.sees(peer(maker))
	n.mustPull("one", nil)
	key := PackKey("ns", found(t, maker.shelf, "one").Descriptor.Packs[0].ID).String()
	head := int64(frame.HeaderSize + 2*36)
	for _, readers := range []int{0, 1} {
		n.mustBring("one", 0, 1)
		shelf := NewShelf(n.store, &ShelfOptions{Bring: func(context.Context, Key) bool { return true }})
		body, err := shelf.Open(t.Context(), key, head, size)
		if err != nil {
			t.Fatal(err)
		}
		if readers == 0 {
			body.Close()
		}
		if report, err := n.store.Evict(t.Context(), 0); err != nil || report.Partial != 1 {
			t.Fatalf("%+v, %v", report, err)
		}
		if _, err := shelf.Open(t.Context(), key, head, -1); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%d readers: of what is not here any more: %v, want %v", readers, err, blob.ErrNotFound)
		}
		if readers > 0 {
			if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, memory[:size]) {
				t.Errorf("who was reading it has %d bytes, which may be others; %v", len(got), err)
			}
			body.Close()
		}
		shelf.mu.Lock()
		if len(shelf.packs) != 0 {
			t.Errorf("%d readers: %d packs are open", readers, len(shelf.packs))
		}
		shelf.mu.Unlock()
		shelf.Close()
	}
}

func TestAStubOffersNoHotPagesThatItDoesNotHaveAndAsksNobody(t *testing.T) {
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", seeds(1, 100))
	n.sees(peer(maker))
	n.mustPull("one", nil)
	n.sees(Place{Reader: &faulty{Reader: maker.shelf, name: "peer", before: func(_ context.Context, key string) error {
		t.Errorf("it asks for %s", key)
		return nil
	}}})
	f := found(t, n.shelf, "one")
	if was := found(t, maker.shelf, "one"); f.Digest != was.Digest {
		t.Errorf("it names %s, and has it from %s", f.Digest, was.Digest)
	}
	w := f.Descriptor.WorkingSet
	if _, err := n.shelf.Open(t.Context(), HotKey("ns", f.Descriptor.Manifest.Digest, w.Root).String(), 0, -1); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("%v, want %v", err, blob.ErrNotFound)
	}
}

func TestANameAtAShelfFollowsTheWorkingSet(t *testing.T) {
	maker, n := newNode(t), newNode(t)
	memory := seeds(1, 100)
	maker.freeze("one", memory)
	was := found(t, maker.shelf, "one")
	if again := found(t, maker.shelf, "one"); again.Digest != was.Digest {
		t.Errorf("asked twice it is %s and %s", was.Digest, again.Digest)
	}
	maker.setWorkingSet("one", "hint of one", 50)
	now := found(t, maker.shelf, "one")
	if now.Digest == was.Digest || now.Descriptor.WorkingSet.Pages == was.Descriptor.WorkingSet.Pages {
		t.Error("it is what it was")
	}
	n.sees(peer(maker))
	n.mustPull("one", &PullOptions{Mode: WorkingSetToo})
	if local, _ := n.local("one"); local != uint64(now.Descriptor.WorkingSet.Pages) {
		t.Errorf("%d pages are here, want %d", local, now.Descriptor.WorkingSet.Pages)
	}
	n.mustCheck("one", memory)
}

func TestWhatAShelfHasMadeIsBoundedAndWhoReadsItGoesOn(t *testing.T) {
	n := newNode(t)
	for i, name := range []string{"one", "two", "three"} {
		n.freeze(name, seeds(uint64(1000*i+1), 64))
	}
	shelf := NewShelf(n.store, &ShelfOptions{MadeBytes: 1})
	defer shelf.Close()
	f := found(t, shelf, "one")
	meta := MetaKey("ns", f.Descriptor.Meta.Digest).String()
	if _, err := shelf.Size(t.Context(), meta); err != nil {
		t.Fatal(err)
	}
	r, err := shelf.Open(t.Context(), meta, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	found(t, shelf, "two")
	found(t, shelf, "three")
	if data, err := io.ReadAll(r); err != nil || int64(len(data)) != f.Descriptor.Meta.Bytes {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	r.Close()
	found(t, shelf, "two")
	if _, err := shelf.Size(t.Context(), meta); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	shelf.mu.Lock()
	defer shelf.mu.Unlock()
	if len(shelf.offers) > 1 {
		t.Errorf("%d offers are kept", len(shelf.offers))
	}
}

func TestManyAskAShelfAtOnce(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 300))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			f, err := Resolve(t.Context(), []Place{{Reader: n.shelf}}, nameOf("one"), nil)
			if err != nil {
				t.Error(err)
				return
			}
			for _, key := range f.Descriptor.keys("ns") {
				if _, err := blobtest.Read(t.Context(), n.shelf, key.String(), 0, -1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
