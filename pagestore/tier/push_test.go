package tier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// Whatever request of a push fails, before or after it had its effect: nobody sees a part of the snapshot, and the next push completes it.
func TestAPushThatIsBrokenOffAnywhereIsInvisibleAndCanBeRepeated(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 100))
	broken := errors.New("broken off")
	for step := 1; ; step++ {
		b := newMemoryBucket()
		var count atomic.Int64
		failed := false
		b.before = func(_ context.Context, op, key string) error {
			if strings.Contains(key, "/leases/") && op == "delete" {
				return nil
			}
			if count.Add(1) >= int64(step) { // and all that follow
				failed = true
				return fmt.Errorf("%s %s: %w", op, key, broken)
			}
			return nil
		}
		_, err := Push(t.Context(), n.store, nameOf("one"), b, &PushOptions{Parallel: 1})
		b.before = nil
		names, checkErr := checkNames(b)
		if checkErr != nil {
			t.Fatalf("step %d: %v", step, checkErr)
		}
		if !failed {
			if err != nil || names != 1 {
				t.Fatalf("%d names, %v", names, err)
			}
			if step < 10 {
				t.Errorf("a push has %d requests only: the test is not looking", step)
			}
			return
		}
		if !errors.Is(err, broken) {
			t.Fatalf("step %d: %v", step, err)
		}
		_, resolveErr := Resolve(t.Context(), []Place{bucketPlace(b)}, nameOf("one"), nil)
		if names == 0 && !errors.Is(resolveErr, pagestore.ErrNotFound) || names == 1 && resolveErr != nil {
			t.Fatalf("step %d: %d names, and resolving says %v", step, names, resolveErr)
		}
		had := len(b.keys("v1/ns/packs/")) + len(b.keys("v1/ns/hot/")) + len(b.keys("v1/ns/meta/")) + len(b.keys("v1/ns/descriptors/"))
		if r := n.mustPush("one", b, nil); r.Skipped != had || r.Sent != 4-had {
			t.Errorf("step %d: of 4 blobs, of which %d were there, %d were skipped and %d sent", step, had, r.Skipped, r.Sent)
		}
		if names, err := checkNames(b); names != 1 || err != nil {
			t.Fatalf("step %d: %d names, %v", step, names, err)
		}
	}
}

func TestABlobThatIsThereAndOfNoUseIsReplaced(t *testing.T) {
	n := newNode(t)
	memory := seeds(1, 100)
	n.freeze("one", memory)
	b := newMemoryBucket()
	n.mustPush("one", b, nil)
	for _, kind := range []string{"packs", "hot", "meta", "descriptors"} {
		key := b.keys("v1/ns/" + kind + "/")[0]
		m, _ := b.get(key)
		b.put(key, m.data[:len(m.data)-1], true)
	}
	if r := n.mustPush("one", b, nil); r.Sent != 4 || r.Named {
		t.Errorf("%+v", r)
	}
	other := newNode(t)
	other.sees(bucketPlace(b))
	other.mustPull("one", nil)
	other.mustCheck("one", memory)
}

func TestANameStandsForOneSnapshotUnlessForced(t *testing.T) {
	first, second := newNode(t), newNode(t)
	first.freeze("one", seeds(1, 100))
	second.freeze("one", seeds(1000, 100))
	b := newMemoryBucket()
	was := first.mustPush("one", b, nil)
	if _, err := Push(t.Context(), second.store, nameOf("one"), b, nil); !errors.Is(err, pagestore.ErrExists) {
		t.Errorf("another snapshot of that name: %v, want %v", err, pagestore.ErrExists)
	}
	now := second.mustPush("one", b, &PushOptions{Force: true})
	if f, err := Resolve(t.Context(), []Place{bucketPlace(b)}, nameOf("one"), nil); err != nil || f.Digest != now.Descriptor {
		t.Errorf("after force it is %v, %v", f, err)
	}
	// What it stood for has the grace time from now on.
	if _, err := b.get(DescriptorKey("ns", was.Descriptor).String()); err != nil || len(b.keys("v1/ns/leases/kept-")) != 1 {
		t.Errorf("%v; leases %q", err, b.keys("v1/ns/leases/"))
	}
}

func TestAnotherWorkingSetOfTheSameSnapshotIsKeptUnlessRefreshed(t *testing.T) {
	n := newNode(t)
	n.freeze("one", seeds(1, 100))
	b := newMemoryBucket()
	was := n.mustPush("one", b, nil)
	n.setWorkingSet("one", "another hint", 50)
	if r := n.mustPush("one", b, nil); r.Named || r.Descriptor != was.Descriptor {
		t.Errorf("without Refresh: %+v", r)
	}
	if r := n.mustPush("one", b, &PushOptions{Refresh: true}); !r.Named || r.Descriptor == was.Descriptor {
		t.Errorf("with Refresh: %+v", r)
	}
	if names, err := checkNames(b); names != 1 || err != nil {
		t.Errorf("%d names, %v", names, err)
	}
}

func TestTwoNodesPushTheSameSnapshotAtTheSameTime(t *testing.T) {
	for _, exclusive := range []bool{true, false} {
		memory := seeds(1, 300)
		maker, other := newNode(t), newNode(t)
		maker.freeze("one", memory)
		other.sees(peer(maker))
		other.mustPull("one", &PullOptions{Mode: Whole})
		b := newMemoryBucket()
		b.exclusive = exclusive
		// Both have looked whether there is a name before either writes it.
		var ready sync.WaitGroup
		ready.Add(2)
		b.before = func(_ context.Context, op, key string) error {
			if op == "create" && strings.Contains(key, "/names/") {
				ready.Done()
				ready.Wait()
			}
			return nil
		}
		var wg sync.WaitGroup
		reports := make([]PushReport, 2)
		for i, n := range []*node{maker, other} {
			wg.Go(func() {
				var err error
				if reports[i], err = Push(t.Context(), n.store, nameOf("one"), b, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		b.before = nil
		if reports[0].Descriptor != reports[1].Descriptor {
			t.Errorf("one has pushed %s, the other %s", reports[0].Descriptor, reports[1].Descriptor)
		}
		if names, err := checkNames(b); names != 1 || err != nil {
			t.Errorf("%d names, %v", names, err)
		}
		if left := b.keys("v1/ns/leases/"); len(left) > 0 {
			t.Errorf("leases are left: %q", left)
		}
		third := newNode(t)
		third.sees(bucketPlace(b))
		third.mustPull("one", nil)
		third.mustCheck("one", memory)
	}
}

func TestAPushThatSleptForTooLongBeginsAgain(t *testing.T) {
	for _, renewed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { testSleepingPush(t, renewed) })
	}
}

// testSleepingPush has a push sleep until its lease has expired, and then go on, with the lease put again or not.
func testSleepingPush(t *testing.T, renewed bool) {
	b := newMemoryBucket()
	var leases atomic.Int64
	var slept atomic.Bool
	b.before = func(_ context.Context, op, key string) error {
		if op == "replace" && strings.Contains(key, "/leases/push-") {
			if leases.Add(1) > 1 && !slept.Load() {
				return blob.ErrBusy // its lease is not renewed
			}
		}
		if op == "create" && strings.Contains(key, "/packs/") && !slept.Load() {
			time.Sleep(2 * leaseTime) // the others collect meanwhile
			slept.Store(true)
			for _, key := range b.keys("v1/ns/meta/") {
				b.Delete(context.Background(), key)
			}
			if renewed {
				time.Sleep(2 * time.Minute) // it is put again, too late
			}
		}
		return nil
	}
	mustRun(t, testPush(t, b, "one", PushOptions{Parallel: 1}, "a", "b"))
	if names, err := checkNames(b); names != 1 || err != nil || !slept.Load() {
		t.Errorf("%d names, %v; slept: %v", names, err, slept.Load())
	}
}

func TestACollectionThatSleptDeletesNothingOnItsOldAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemoryBucket()
		mustRun(t, testPush(t, b, "gone", PushOptions{}, "a"))
		if err := b.Delete(t.Context(), "v1/ns/names/gone"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(48 * time.Hour)
		slept := false
		b.before = func(ctx context.Context, op, key string) error {
			if op == "list" && key == "v1/ns/" && !slept {
				slept = true
				// It sleeps, with what is needed read and nothing deleted. A push comes that waits for it only as long as announcements count.
				b.before = nil
				mustRun(t, testPush(t, b, "new", PushOptions{}, "a"))
			}
			return nil
		}
		r := mustCollect(t, b)
		if names, err := checkNames(b); names != 1 || err != nil || !slept {
			t.Errorf("%d names, %v; slept: %v; %+v", names, err, slept, r)
		}
	})
}

func TestAPlaceWhoseListingsLagIsRefused(t *testing.T) {
	b := newMemoryBucket()
	p := testPush(t, laggingBucket{b}, "one", PushOptions{}, "a")
	if err := p.run(t.Context()); err == nil || !strings.Contains(err.Error(), "listing") {
		t.Errorf("push: %v", err)
	}
	if _, err := Collect(t.Context(), laggingBucket{b}, "ns", nil); err == nil || !strings.Contains(err.Error(), "listing") {
		t.Errorf("collect: %v", err)
	}
}
