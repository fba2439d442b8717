package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/blob/peer"
	"thaw/pagestore/tier"
)

// down is a place that answers nothing but 503.
func down(inner blob.Reader) blob.Bucket { return blobtest.Failing(inner, 1<<40, blob.ErrBusy) }

func mustPull(t *testing.T, n *running, mode control.PullMode) *control.PullReport {
	t.Helper()
	r, err := n.Pull(t.Context(), nameOf("one"), mode)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAPageThatDoesNotComeInTimeIsAnErrorAndComesLater(t *testing.T) {
	memory := memoryOf(1, 400)
	bucket := pushed(t, memory)
	place := blobtest.NewSwitch(bucket)
	n := run(t, Config{bucket: place, PageDeadline: 20 * time.Millisecond})
	mustPull(t, n, control.PullOnDemand)
	place.Set(down(bucket))
	err := check(n.Store(), "one", memory)
	if !errors.Is(err, ErrDeadline) {
		t.Errorf("a page of a place that is down: %v", err)
	}
	var bad *pagestore.PageError
	if !errors.As(err, &bad) {
		t.Errorf("the error %v names no page", err)
	}
	if _, err := n.Pull(t.Context(), nameOf("two"), control.PullOnDemand); err == nil || errors.Is(err, pagestore.ErrNotFound) {
		t.Errorf("a name while the place is down: %v", err)
	}
	place.Set(bucket)
	// A source that failed is left alone for a while.
	for start := time.Now(); ; {
		if err = check(n.Store(), "one", memory); err == nil || time.Since(start) > 30*time.Second {
			break
		}
	}
	if err != nil {
		t.Errorf("when it is back: %v", err)
	}
	if _, err := n.Pull(t.Context(), nameOf("two"), control.PullOnDemand); !errors.Is(err, pagestore.ErrNotFound) {
		t.Errorf("a name that nobody knows: %v", err)
	}
}

// TestABulkReadEndsWithoutProgress: a whole pack may take longer than a page.
func TestABulkReadEndsWithoutProgress(t *testing.T) {
	memory := memoryOf(1, 400)
	bucket := pushed(t, memory)
	place := blobtest.NewSwitch(bucket)
	n := run(t, Config{bucket: place, PageDeadline: 20 * time.Millisecond})
	mustPull(t, n, control.PullOnDemand)
	place.Set(blobtest.Hanging(bucket, -1))
	if _, err := n.Pull(t.Context(), nameOf("one"), control.PullWhole); !errors.Is(err, ErrDeadline) {
		t.Errorf("the whole of it from a place that hangs: %v", err)
	}
}

func TestAPullEndsWithItsContextAndLeavesOthersAlone(t *testing.T) {
	bucket := pushed(t, memoryOf(1, 100))
	place := blobtest.NewSwitch(blobtest.Hanging(bucket, -1))
	n := run(t, Config{bucket: place})
	ctx, cancel := context.WithCancel(t.Context())
	ends := make(chan error)
	for _, ctx := range []context.Context{ctx, t.Context()} {
		go func() {
			_, err := n.Pull(ctx, nameOf("one"), control.PullOnDemand)
			ends <- err
		}()
	}
	waiting := func() int {
		n.mu.Lock()
		defer n.mu.Unlock()
		if p := n.pulls[nameOf("one")]; p != nil {
			return p.waiting
		}
		return 0
	}
	for waiting() < 2 {
		runtime.Gosched()
	}
	cancel()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("the pull that was given up: %v", err)
	}
	if waiting() != 1 {
		t.Error("the other pull has gone, too")
	}
	place.Set(bucket)
	<-ends // it gets an answer, or the error of the place that hung: both are ends
}

func TestWhenAllPeersAreGoneTheObjectStoreServes(t *testing.T) {
	memory := memoryOf(1, 3000)
	bucket := pushed(t, memory)
	var nodes []*running
	for _, p := range fleet(t, "a", "b", "c") {
		nodes = append(nodes, run(t, Config{bucket: bucket, Peers: p}))
		mustPull(t, nodes[len(nodes)-1], control.PullOnDemand)
	}
	nodes[1].stop()
	nodes[2].stop()
	if err := check(nodes[0].Store(), "one", memory); err != nil {
		t.Error(err)
	}
}

func TestASnapshotThatWasNeverPushedComesFromAPeer(t *testing.T) {
	memory := memoryOf(1, 700)
	for _, bucket := range []blob.Bucket{nil, new(blobtest.Memory), down(new(blobtest.Memory))} {
		configs := fleet(t, "a", "b")
		a := run(t, Config{bucket: bucket, Peers: configs[0]})
		freeze(t, a.Store(), "one", memory)
		b := run(t, Config{bucket: bucket, Peers: configs[1]})
		r := mustPull(t, b, control.PullWorkingSet)
		if !strings.HasPrefix(r.Source, "a at ") || r.LocalPages == 0 {
			t.Errorf("report: %+v", r)
		}
		if err := check(b.Store(), "one", memory); err != nil {
			t.Error(err)
		}
		tiers := b.Tiers()
		if len(tiers.Members) != 2 || len(tiers.Sources) == 0 || tiers.Node != "b" || a.Tiers().Served.Bytes == 0 {
			t.Errorf("tiers: %+v", tiers)
		}
		b.stop()
		a.stop()
	}
}

func TestANodeGetsNothingOfANamespaceThatItIsNoMemberOf(t *testing.T) {
	configs := fleet(t, "a", "b")
	a := run(t, Config{Peers: configs[0]})
	freeze(t, a.Store(), "one", memoryOf(1, 100))
	if err := os.WriteFile(configs[0].Access, []byte(`{"namespaces": {"ns": ["a"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	access := filepath.Join(t.TempDir(), "access.json") // b has another view, and asks all the same
	if err := os.WriteFile(access, []byte(`{"namespaces": {"ns": ["*"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	configs[1].Access = access
	b := run(t, Config{Peers: configs[1]})
	for start := time.Now(); ; {
		_, err := b.Pull(t.Context(), nameOf("one"), control.PullOnDemand)
		if errors.Is(err, pagestore.ErrNotFound) {
			break
		}
		if time.Since(start) > 30*time.Second {
			t.Fatalf("pull: %v", err)
		}
		if err == nil { // the file is looked at now and then only
			if err := b.Store().Remove(t.Context(), nameOf("one")); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Store().GC(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestACertificateIsReplacedDuringARestore(t *testing.T) {
	memory := memoryOf(1, 700)
	authority, err := peer.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	configs := fleet(t, "a", "b")
	issue := func(name, dir string) {
		cert, err := authority.Issue(name, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	issue("a", configs[0].Keys)
	issue("b", configs[1].Keys)
	a := run(t, Config{Peers: configs[0]})
	freeze(t, a.Store(), "one", memory)
	b := run(t, Config{Peers: configs[1]})
	mustPull(t, b, control.PullOnDemand)
	issue("a", configs[0].Keys)
	issue("b", configs[1].Keys)
	b.peers.mu.Lock()
	for _, m := range b.peers.clients {
		m.client.Close() // so that new connections are made
	}
	b.peers.mu.Unlock()
	if err := check(b.Store(), "one", memory); err != nil {
		t.Error(err)
	}
}

func TestASnapshotIsDeletedElsewhereWhileItIsRestored(t *testing.T) {
	memory := memoryOf(1, 700)
	bucket := pushed(t, memory)
	n := run(t, Config{bucket: bucket})
	mustPull(t, n, control.PullOnDemand)
	if err := tier.Remove(t.Context(), bucket, nameOf("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := tier.Collect(t.Context(), bucket, "ns", nil); err != nil {
		t.Fatal(err)
	}
	if err := check(n.Store(), "one", memory); err != nil {
		t.Errorf("within the grace time: %v", err)
	}
	other := run(t, Config{bucket: bucket})
	if _, err := other.Pull(t.Context(), nameOf("one"), control.PullOnDemand); !errors.Is(err, pagestore.ErrNotFound) {
		t.Errorf("pulled after it was deleted: %v", err)
	}
}

func TestTheQuotaEvictsWhatNobodyLeases(t *testing.T) {
	memory := memoryOf(1, 1000)
	bucket := pushed(t, memory)
	second, err := pagestore.Open(newStoreDir(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	freeze(t, second, "two", memoryOf(2, 1000))
	if _, err := tier.Push(t.Context(), second, nameOf("two"), bucket, nil); err != nil {
		t.Fatal(err)
	}
	opts := pagestore.Options{RemoteBytes: 5 << 20}
	n := run(t, Config{bucket: bucket, StoreOptions: opts})
	mustPull(t, n, control.PullWhole)
	leased, err := n.Store().Snapshot(nameOf("one"))
	if err != nil {
		t.Fatal(err)
	}
	defer leased.Close()
	if _, err := n.Pull(t.Context(), nameOf("two"), control.PullWhole); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Store().Evict(t.Context(), opts.RemoteBytes); err != nil { // which the store does by itself, some time
		t.Fatal(err)
	}
	if here, all := local(t, n.Store(), "one"); here != all {
		t.Errorf("of a leased snapshot %d of %d pages are here", here, all)
	}
	if here, _ := local(t, n.Store(), "two"); here != 0 {
		t.Errorf("%d pages that nobody leases are above the bound", here)
	}
	if err := check(n.Store(), "two", memoryOf(2, 1000)); err != nil {
		t.Errorf("an evicted snapshot: %v", err)
	}
}

func TestAFullDiskStopsNobodyFromReading(t *testing.T) {
	testenv.NeedRoot(t)
	memory := memoryOf(1, 4000) // 16 MB
	bucket := pushed(t, memory)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("no tmpfs can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	made, err := pagestore.Create(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	n := run(t, Config{Store: filepath.Join(dir, "store"), bucket: bucket})
	defer n.stop()
	mustPull(t, n, control.PullOnDemand)
	if err := check(n.Store(), "one", memory); err != nil {
		t.Error(err)
	}
}
