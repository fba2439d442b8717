package tier

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowBucket returns a bucket with n snapshots and a pack that is to be collected, which takes some time to open what has that in its key.
func slowBucket(t *testing.T, n int, what string, takes time.Duration) *memoryBucket {
	t.Helper()
	b := newMemoryBucket()
	for i := range n {
		mustRun(t, testPush(t, b, fmt.Sprintf("snapshot-%d", i), PushOptions{}, fmt.Sprintf("a%d", i)))
	}
	b.put(PackKey("ns", digestOf("orphan")).String(), nil, true)
	time.Sleep(2 * DefaultGrace)
	b.before = func(_ context.Context, op, key string) error {
		if op == "open" && strings.Contains(key, what) {
			time.Sleep(takes)
		}
		return nil
	}
	return b
}

func TestManyLeasesDoNotKeepACollectionFromDeleting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := slowBucket(t, 1, "/leases/", time.Second)
		text, _ := testDescriptor(t, "removed", "b")
		for i := range 400 { // snapshots that were removed a moment ago
			b.put(leaseKey("ns", fmt.Sprintf("%s%d", leaseKept, i)).String(), text, true)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if r, err := Collect(ctx, b, "ns", nil); err != nil || r.Deleted != 1 || r.Leases != 400 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestACollectionThatGetsNowhereSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := slowBucket(t, 20, "/names/", collectWork/2)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if r, err := Collect(ctx, b, "ns", nil); err == nil || ctx.Err() != nil || r.Deleted != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		if left := b.keys("v1/ns/leases/"); len(left) != 0 {
			t.Errorf("leases are left: %q", left)
		}
		if r, err := Collect(ctx, b, "ns", &CollectOptions{DryRun: true}); err != nil || r.Deleted != 1 {
			t.Errorf("a dry run, which has time: %+v, %v", r, err)
		}
	})
}
