package tier

import (
	"errors"
	"path/filepath"
	"testing"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

func TestASnapshotGoesThroughABucketToAnotherNode(t *testing.T) {
	memory := seeds(1, 700)
	b := newMemoryBucket()
	maker := newNode(t)
	maker.freeze("one", memory)
	pushed := maker.mustPush("one", b, nil)
	if !pushed.Named || pushed.Sent != 4 || pushed.Skipped != 0 || pushed.SentBytes >= pushed.Bytes {
		t.Errorf("first push: %+v", pushed)
	}
	if again := maker.mustPush("one", b, nil); again.Named || again.Sent != 0 || again.Skipped != 4 || again.SentBytes != 0 {
		t.Errorf("second push: %+v", again)
	}
	if names, err := checkNames(b); names != 1 || err != nil {
		t.Errorf("%d names: %v", names, err)
	}
	for mode, want := range map[PullMode]uint64{OnDemand: 0, WorkingSetToo: 233, Whole: 700} {
		n := newNode(t)
		n.sees(bucketPlace(b))
		r := n.mustPull("one", &PullOptions{Mode: mode, Origin: n.origin})
		if r.Descriptor != pushed.Descriptor || r.Place != "memory" {
			t.Errorf("mode %d: %+v", mode, r)
		}
		if local, stored := n.local("one"); local != want || stored != 700 {
			t.Errorf("mode %d brings %d of %d pages, want %d", mode, local, stored, want)
		}
		if mode == Whole {
			n.sees()
		}
		n.mustCheck("one", memory)
		if _, err := n.pull("one", nil); !errors.Is(err, pagestore.ErrExists) {
			t.Errorf("pulled twice: %v", err)
		}
	}
}

func TestASnapshotGoesFromPeerToPeer(t *testing.T) {
	memory := seeds(1, 700)
	maker, second, third := newNode(t), newNode(t), newNode(t)
	maker.freeze("one", memory)
	second.sees(peer(maker))
	first := second.mustPull("one", &PullOptions{Mode: WorkingSetToo, Origin: second.origin})
	// The second has a third of the pages, and serves what it has.
	third.sees(peer(second), peer(maker))
	if r := third.mustPull("one", &PullOptions{Mode: WorkingSetToo, Origin: third.origin}); r.Place != second.shelf.String() || r.Descriptor != first.Descriptor {
		t.Errorf("the third has it from %s as %s, the second as %s", r.Place, r.Descriptor, first.Descriptor)
	}
	third.mustCheck("one", memory)
	// With all of it it needs nobody, and is a place like the first.
	maker.sees()
	second.sees(peer(third))
	second.mustCheck("one", memory)
}

func TestASnapshotGoesThroughAFolderAndIsCollectedThere(t *testing.T) {
	b, err := blob.NewDir(filepath.Join(t.TempDir(), "bucket"))
	if err != nil {
		t.Fatal(err)
	}
	memory := seeds(1, 300)
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", memory)
	maker.mustPush("one", b, nil)
	n.sees(bucketPlace(b))
	n.mustPull("one", &PullOptions{Mode: WorkingSetToo, Origin: n.origin})
	if err := Remove(t.Context(), b, nameOf("one")); err != nil {
		t.Fatal(err)
	}
	if r := mustCollect(t, b); r.Kept != 4 || r.Leases != 1 || r.Deleted != 0 {
		t.Errorf("right after the removal: %+v", r)
	}
	n.mustCheck("one", memory)
	for info, err := range b.List(t.Context(), "v1/ns/leases/") { // as if the grace time were over
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), info.Key); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := Collect(t.Context(), b, "ns", &CollectOptions{Grace: 1}); err != nil || r.Deleted != 4 || r.Kept != 0 {
		t.Errorf("in the end: %+v, %v", r, err)
	}
	for info, err := range b.List(t.Context(), "") {
		t.Errorf("%s is left; %v", info.Key, err)
	}
}
