package node

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/blob/peer"
	"thaw/pagestore/blob/placement"
	"thaw/pagestore/tier"
)

var fourNodes = []string{"a", "b", "c", "d"}

// readOfPages returns how many bytes of packs and hot objects were read at a place, and how many there are. It counts what was asked for.
func readOfPages(t *testing.T, r *blobtest.Recorder, kinds ...tier.Kind) (read, size int64) {
	t.Helper()
	is := func(key string) bool {
		k, err := tier.ParseKey(key)
		if err != nil {
			return false
		}
		for _, kind := range kinds {
			if k.Kind == kind {
				return true
			}
		}
		return false
	}
	sizes := map[string]int64{}
	for info, err := range r.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if is(info.Key) {
			sizes[info.Key] = info.Size
			size += info.Size
		}
	}
	for _, c := range r.Calls() {
		if c.Op == blobtest.OpOpen && is(c.Key) {
			n := c.N
			if n < 0 {
				n = sizes[c.Key] - c.Off
			}
			read += n
		}
	}
	return read, size
}

// distant takes as long to answer as an object store does at best. One that answers at once would be asked in place of peers that are busy, being more than
// 64 times as fast.
type distant struct{ blob.Bucket }

func (d distant) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	there := time.NewTimer(5 * time.Millisecond)
	defer there.Stop()
	select {
	case <-there.C:
		return d.Bucket.Open(ctx, key, off, n)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestFourColdNodesReadTheObjectStoreOnce: 32 nearly at the same time want one snapshot, eight on each node.
func TestFourColdNodesReadTheObjectStoreOnce(t *testing.T) {
	memory := memoryOf(1, 6000)
	bucket := pushed(t, memory)
	for _, tt := range []struct {
		name string
		want func(n *running) error
	}{
		{"the whole of it", func(n *running) error {
			r, err := n.Pull(t.Context(), nameOf("one"), control.PullWhole)
			if err == nil && r.LocalPages != 6000 {
				err = fmt.Errorf("pull: %+v", r)
			}
			return err
		}},
		{"the pages as they touch them", func(n *running) error {
			if _, err := n.Pull(t.Context(), nameOf("one"), control.PullOnDemand); err != nil {
				return err
			}
			return check(n.Store(), "one", memory)
		}},
		{"the working set, then pages as they touch them", func(n *running) error {
			if err := n.Warm(t.Context(), nameOf("one")); err != nil {
				return err
			}
			return check(n.Store(), "one", memory)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := blobtest.NewRecorder(bucket)
			var nodes []*running
			for _, p := range fleet(t, fourNodes...) {
				nodes = append(nodes, run(t, Config{bucket: distant{store}, Peers: p}))
			}
			var wg sync.WaitGroup
			for i := range 32 {
				wg.Go(func() {
					if err := tt.want(nodes[i%len(nodes)]); err != nil {
						t.Errorf("%d: %v", i, err)
					}
				})
			}
			wg.Wait()
			for _, kind := range []tier.Kind{tier.KindPack, tier.KindHot} {
				read, size := readOfPages(t, store, kind)
				if size == 0 || float64(read) > 1.2*float64(size) {
					t.Errorf("of %s %d bytes were read, of %d: %.2f times", kind, read, size, float64(read)/float64(size))
				}
			}
			for i, n := range nodes {
				if err := check(n.Store(), "one", memory); err != nil {
					t.Errorf("node %s: %v", fourNodes[i], err)
				}
			}
		})
	}
}

// TestADeadOwnerIsReplaced: without the owner of the packs all come all the same, once.
func TestADeadOwnerIsReplaced(t *testing.T) {
	memory := memoryOf(1, 3000)
	bucket := pushed(t, memory)
	store := blobtest.NewRecorder(bucket)
	configs := fleet(t, fourNodes...)
	dead := ownerOf(t, bucket)
	configs[dead].listener.Close()
	var nodes []*running
	for i, p := range configs {
		if i != dead {
			nodes = append(nodes, run(t, Config{bucket: distant{store}, Peers: p}))
		}
	}
	// Each finds out by itself: the one that owns it now, too.
	for _, n := range nodes {
		n.peers.health.note(t.Context(), fourNodes[dead], fmt.Errorf("connection refused"))
	}
	var wg sync.WaitGroup
	for _, n := range nodes {
		for range 4 {
			wg.Go(func() {
				if _, err := n.Pull(t.Context(), nameOf("one"), control.PullWhole); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	read, size := readOfPages(t, store, tier.KindPack)
	if float64(read) > 1.2*float64(size) {
		t.Errorf("packs were read %.2f times", float64(read)/float64(size))
	}
}

// ownerOf returns which of the four nodes owns the pack in a bucket.
func ownerOf(t *testing.T, b blob.Bucket) int {
	t.Helper()
	keys, err := blobtest.Keys(t.Context(), b, "v1/ns/packs/")
	if err != nil || len(keys) != 1 {
		t.Fatalf("packs: %v, %v", keys, err)
	}
	members := make([]placement.Member, len(fourNodes))
	for i, name := range fourNodes {
		members[i].Name = name
	}
	owner := placement.Rank(placement.KeyOf("ns", keys[0]), members, 1)[0].Name
	for i, name := range fourNodes {
		if name == owner {
			return i
		}
	}
	panic("unreachable")
}

// TestNoTwoNodesBringForEachOther: whatever each believes of who lives, the waiting goes one way.
func TestNoTwoNodesBringForEachOther(t *testing.T) {
	var nodes []*running
	for _, p := range fleet(t, "a", "b", "c") {
		nodes = append(nodes, run(t, Config{bucket: new(blobtest.Memory), Peers: p}))
	}
	names := []string{"a", "b", "c"}
	for view := range 1 << 6 { // who takes whom for dead
		bit := 0
		for i, n := range nodes {
			n.peers.health = health{}
			for j, other := range names {
				if i == j {
					continue
				}
				if view>>bit&1 == 1 {
					n.peers.health.note(t.Context(), other, fmt.Errorf("unreachable"))
				}
				bit++
			}
		}
		for object := range byte(8) {
			key := tier.PackKey("ns", pagestore.PackID{object})
			brings := func(i, j int) bool { return nodes[i].brings(peer.WithAsker(t.Context(), names[j]), key) }
			for i := range nodes {
				for j := range nodes {
					if i != j && brings(i, j) && brings(j, i) {
						t.Fatalf("view %b, object %d: %s and %s bring for each other", view, object, names[i], names[j])
					}
				}
			}
			if brings(0, 1) && brings(1, 2) && brings(2, 0) || brings(1, 0) && brings(2, 1) && brings(0, 2) {
				t.Fatalf("view %b, object %d: they bring around", view, object)
			}
			if view != 0 {
				continue
			}
			// All see the same: one brings for the other two, and they ask it first.
			for i := range nodes {
				first := nodes[i].places(key)[0]
				asked := -1
				for j, name := range names {
					if m, ok := first.Reader.(*member); ok && m.client.Node() == name {
						asked = j
					}
				}
				if others := (i + 1) % 3; brings(i, others) {
					if !brings(i, (i+2)%3) {
						t.Errorf("object %d: %s brings for one alone", object, names[i])
					}
				} else if asked < 0 || !brings(asked, i) {
					t.Errorf("object %d: %s asks node %d, which does not bring", object, names[i], asked)
				}
			}
		}
	}
}
