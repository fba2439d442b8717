package tier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
)

// faulty is a place that misbehaves: what Open returns goes through change first, unless before fails.
type faulty struct {
	blob.Reader
	name   string
	before func(ctx context.Context, key string) error
	change func(key string, off int64, r io.Reader) io.Reader
}

func (f *faulty) String() string { return f.name }

func (f *faulty) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if f.before != nil {
		if err := f.before(ctx, key); err != nil {
			return nil, err
		}
	}
	r, err := f.Reader.Open(ctx, key, off, n)
	if err != nil || f.change == nil {
		return r, err
	}
	return struct {
		io.Reader
		io.Closer
	}{f.change(key, off, r), r}, nil
}

// flipped is r with one bit in each kilobyte that is another.
func flipped(_ string, _ int64, r io.Reader) io.Reader { return &flipper{r: r} }

type flipper struct {
	r   io.Reader
	off int
}

func (f *flipper) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	for i := range n {
		if (f.off+i)%1024 == 700 {
			b[i] ^= 4
		}
	}
	f.off += n
	return n, err
}

func isContent(key string) bool {
	return strings.Contains(key, "/packs/") || strings.Contains(key, "/hot/")
}

func TestPeersThatMisbehaveCostNothingButTime(t *testing.T) {
	memory := seeds(1, 400)
	maker := newNode(t)
	maker.freeze("one", memory)
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	content := func(change func(string, int64, io.Reader) io.Reader) func(string, int64, io.Reader) io.Reader {
		return func(key string, off int64, r io.Reader) io.Reader {
			if isContent(key) {
				return change(key, off, r)
			}
			return r
		}
	}
	for name, f := range map[string]*faulty{
		"it lies about content":    {change: content(flipped)},
		"it lies about everything": {change: flipped},
		"it lies about indexes": {change: content(func(_ string, off int64, r io.Reader) io.Reader {
			if off == 0 {
				return &flipper{r: r}
			}
			return r
		})},
		"it truncates":        {change: content(func(_ string, _ int64, r io.Reader) io.Reader { return io.LimitReader(r, 100_000) })},
		"it delivers nothing": {change: func(string, int64, io.Reader) io.Reader { return bytes.NewReader(nil) }},
		"it breaks off with an error": {change: content(func(_ string, _ int64, r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, 5000), iotest.ErrReader(errors.New("connection reset")))
		})},
		"it has forgotten the content": {before: func(_ context.Context, key string) error {
			if isContent(key) {
				return blob.ErrNotFound
			}
			return nil
		}},
		"it is busy": {before: func(_ context.Context, key string) error {
			if isContent(key) {
				return blob.ErrBusy
			}
			return nil
		}},
		"it refuses": {before: func(context.Context, string) error { return blob.ErrDenied }},
		"it hangs":   {before: func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }},
		"it hangs with content": {before: func(ctx context.Context, key string) error {
			if isContent(key) {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}},
		"it is slow": {change: func(_ string, _ int64, r io.Reader) io.Reader { return iotest.OneByteReader(r) }},
	} {
		t.Run(name, func(t *testing.T) {
			f.Reader, f.name = maker.shelf, "bad peer"
			for _, raw := range []bool{true, false} {
				n := newNode(t)
				n.sees(Place{Reader: f, Raw: raw}, bucketPlace(b))
				n.mustPull("one", &PullOptions{Origin: n.origin})
				n.mustCheck("one", memory)
			}
		})
	}
}

func TestAPeerThatDeliversWrongBytesIsNamed(t *testing.T) {
	memory := seeds(1, 400)
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", memory)
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	n.sees(Place{Reader: &faulty{Reader: maker.shelf, name: "liar", change: func(key string, off int64, r io.Reader) io.Reader {
		if isContent(key) {
			return flipped(key, off, r)
		}
		return r
	}}, Raw: true}, bucketPlace(b))
	n.mustPull("one", nil)
	n.mustCheck("one", memory)
	for _, s := range n.origin.Stats().Sources {
		if s.Source == "liar" && s.Lies > 0 {
			return
		}
	}
	t.Errorf("nobody is named: %+v", n.origin.Stats().Sources)
}

func TestAnObjectStoreThatIsBusyNowAndThenServesInTheEnd(t *testing.T) {
	memory := seeds(1, 400)
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", memory)
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	n.sees(bucketPlace(b))
	n.mustPull("one", nil)
	var count atomic.Int64
	b.before = func(_ context.Context, _, _ string) error {
		if count.Add(1)%3 != 0 {
			return fmt.Errorf("503: %w", blob.ErrBusy)
		}
		return nil
	}
	n.mustCheck("one", memory)
	if count.Load() == 0 {
		t.Error("it was not asked")
	}
}

func TestWhenAllPeersAreGoneTheObjectStoreServes(t *testing.T) {
	memory := seeds(1, 400)
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", memory)
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	var gone atomic.Bool
	var asked atomic.Int64
	n.sees(Place{Raw: true, Reader: &faulty{Reader: maker.shelf, name: "peer", before: func(context.Context, string) error {
		asked.Add(1)
		if gone.Load() {
			return errors.New("connection refused")
		}
		return nil
	}}}, bucketPlace(b))
	n.mustPull("one", nil)
	b.before = func(_ context.Context, op, key string) error {
		if !gone.Load() {
			t.Errorf("%s %s although the peer has it", op, key)
		}
		return nil
	}
	im := n.mustOpen("one")
	if _, _, err := im.Load(0, 1); err != nil {
		t.Fatal(err)
	}
	gone.Store(true)
	n.mustCheck("one", memory)
	if asked.Load() == 0 {
		t.Error("the peer was not asked")
	}
}

func TestAnOldNameLeadsToTheOldSnapshotAndNotToAMixture(t *testing.T) {
	old, new := seeds(1, 400), append(seeds(1, 200), seeds(5000, 200)...)
	first, second := newNode(t), newNode(t)
	first.freeze("one", old)
	second.freeze("one", new)
	b, stale := newMemoryBucket(), newMemoryBucket()
	first.mustPush("one", b, nil)
	name := b.keys("v1/ns/names/")[0]
	was, _ := b.get(name)
	second.mustPush("one", b, &PushOptions{Force: true})
	// A place that shows all blobs as they are now, but for the name.
	for key, m := range b.blobs {
		stale.blobs[key] = m
	}
	stale.blobs[name] = was
	n := newNode(t)
	n.sees(bucketPlace(&faulty{Reader: stale, name: "stale"}), bucketPlace(b))
	n.mustPull("one", nil)
	n.mustCheck("one", old)

	// The same when all that the old name leads to has been collected: then the place's word is worth nothing, and the next one is asked.
	for key := range stale.blobs {
		if k, err := ParseKey(key); err == nil && k.Kind == KindMeta {
			if now, err := Resolve(t.Context(), []Place{bucketPlace(b)}, nameOf("one"), nil); err == nil && k.Digest != now.Descriptor.Meta.Digest {
				delete(stale.blobs, key)
				delete(b.blobs, key)
			}
		}
	}
	n = newNode(t)
	n.sees(bucketPlace(&faulty{Reader: stale, name: "stale"}), bucketPlace(b))
	if r := n.mustPull("one", nil); r.Place != "memory" {
		t.Errorf("it has the word of %s", r.Place)
	}
	n.mustCheck("one", new)
}

func TestASnapshotThatIsDeletedWhileItIsRestoredGoesOn(t *testing.T) {
	memory := seeds(1, 400)
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", memory)
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	for key, m := range b.blobs { // it is old
		m.modified -= int64(100 * time.Hour)
		b.blobs[key] = m
	}
	n.sees(bucketPlace(b))
	n.mustPull("one", nil)
	if err := Remove(t.Context(), b, nameOf("one")); err != nil {
		t.Fatal(err)
	}
	if r := mustCollect(t, b); r.Deleted != 0 {
		t.Errorf("%+v", r)
	}
	n.mustCheck("one", memory)
	other := newNode(t)
	other.sees(bucketPlace(b))
	if _, err := other.pull("one", nil); !errors.Is(err, pagestore.ErrNotFound) {
		t.Errorf("pulled after it was removed: %v", err)
	}
}

func TestANameThatNobodyKnowsIsToldFromPlacesThatDoNotAnswer(t *testing.T) {
	n := newNode(t)
	n.sees(bucketPlace(newMemoryBucket()), Place{Reader: &faulty{Reader: newMemoryBucket(), name: "empty"}})
	if _, err := n.pull("one", nil); !errors.Is(err, pagestore.ErrNotFound) {
		t.Errorf("nobody knows it: %v", err)
	}
	refused := func(context.Context, string) error { return errors.New("connection refused") }
	n.sees(bucketPlace(newMemoryBucket()), Place{Reader: &faulty{Reader: newMemoryBucket(), name: "dead", before: refused}})
	if _, err := n.pull("one", nil); err == nil || errors.Is(err, pagestore.ErrNotFound) || !strings.Contains(err.Error(), "dead: connection refused") {
		t.Errorf("one does not answer: %v", err)
	}
	if _, err := n.pull("one", &PullOptions{Digest: digestOf("x")}); err == nil {
		t.Error("no error")
	}
}

func TestResolvingDoesNotWaitForPlacesThatHang(t *testing.T) {
	b := newMemoryBucket()
	mustRun(t, testPush(t, b, "one", PushOptions{}, "a"))
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		var places []Place
		for i := range 3 {
			places = append(places, Place{Reader: &faulty{Reader: b, name: fmt.Sprint("hanging ", i), before: hangs}})
		}
		start := time.Now()
		f, err := Resolve(t.Context(), append(places, bucketPlace(b)), nameOf("one"), nil)
		if err != nil || f.Place.String() != "memory" {
			t.Fatalf("%v, %v", f, err)
		}
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("with three that hang it took %v", took)
		}
		start = time.Now()
		if _, err := Resolve(t.Context(), places, nameOf("one"), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took != 5200*time.Millisecond {
			t.Errorf("with none that answers it took %v", took)
		}
	})
}

func TestAPinnedDescriptorIsTakenFromWhoHasIt(t *testing.T) {
	first, second, n := newNode(t), newNode(t), newNode(t)
	first.freeze("one", seeds(1, 100))
	second.freeze("one", seeds(1000, 100))
	found, err := Resolve(t.Context(), []Place{peer(second)}, nameOf("one"), nil)
	if err != nil {
		t.Fatal(err)
	}
	n.sees(peer(first), peer(second))
	n.mustPull("one", &PullOptions{Digest: found.Digest})
	n.mustCheck("one", seeds(1000, 100))
}

func TestTheHotObjectIsOnItsWayBesideTheMetaObjectAndIsAskedForOnce(t *testing.T) {
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", seeds(1, 400))
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	n.sees(bucketPlace(b))
	var hot atomic.Int64
	asked := make(chan struct{})
	b.before = func(ctx context.Context, op, key string) error {
		switch {
		case op == "open" && strings.Contains(key, "/hot/"):
			if hot.Add(1) == 1 {
				close(asked)
			}
		case op == "open" && strings.Contains(key, "/meta/"):
			select { // it does not come before the other is asked for
			case <-asked:
			case <-ctx.Done():
			}
		}
		return ctx.Err()
	}
	n.mustPull("one", &PullOptions{Mode: WorkingSetToo, Origin: n.origin})
	if local, _ := n.local("one"); local != 133 || hot.Load() != 1 {
		t.Errorf("%d pages are here, and the hot object was asked for %d times", local, hot.Load())
	}
}

func TestAHotObjectThatNobodyTakesIsGivenUp(t *testing.T) {
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", seeds(1, 400))
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	var open atomic.Int64
	n.sees(Place{Reader: &faulty{Reader: b, name: "counted", change: func(key string, _ int64, r io.Reader) io.Reader {
		if strings.Contains(key, "/hot/") {
			open.Add(1)
		}
		return r
	}}})
	n.mustPull("one", &PullOptions{Origin: n.origin})
	n.store.Close()
	n.origin.Close() // waits for it
	if open.Load() == 0 {
		t.Error("it was not asked for")
	}
}

func TestAPackThatWasPushedAnewInAnotherFormIsReadAsItIsNow(t *testing.T) {
	memory := seeds(1, 400)
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", memory)
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	n.sees(bucketPlace(b))
	n.mustPull("one", nil)
	im := n.mustOpen("one")
	if _, _, err := im.Load(0, 1); err != nil {
		t.Fatal(err)
	}
	key := b.keys("v1/ns/packs/")[0]
	raw, err := blobtest.Read(t.Context(), maker.shelf, key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	b.put(key, raw, true)
	n.mustCheck("one", memory)
	for _, s := range n.origin.Stats().Sources {
		if s.Lies > 0 {
			t.Errorf("%s is said to lie", s.Source)
		}
	}
}

func TestAPeerThatNamesWhatCannotBeAdoptedIsPassedOver(t *testing.T) {
	memory := seeds(1, 100)
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", memory)
	b, bad := newMemoryBucket(), newMemoryBucket()
	maker.mustPush("one", b, nil)
	// It has a name, a descriptor and a meta object that fit together, and are nonsense.
	d := Descriptor{Snapshot: "one", Manifest: Part{digestOf("manifest"), 8}, Meta: Part{digestOf("meta"), 4}, Created: time.Unix(1, 0)}
	text, digest, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	name, err := encodePointer(text)
	if err != nil {
		t.Fatal(err)
	}
	bad.put(NameKey(nameOf("one")).String(), name, true)
	bad.put(DescriptorKey("ns", digest).String(), text, true)
	bad.put(MetaKey("ns", digestOf("meta")).String(), []byte("meta"), true)
	n.sees(Place{Reader: &faulty{Reader: bad, name: "bad peer"}}, bucketPlace(b))
	if r := n.mustPull("one", nil); r.Place != "memory" {
		t.Errorf("it has the word of %s", r.Place)
	}
	n.mustCheck("one", memory)
}
