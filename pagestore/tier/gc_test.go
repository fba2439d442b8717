package tier

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

func digestOf(s string) pagestore.Digest { return sha256.Sum256([]byte(s)) }

// testDescriptor returns a descriptor whose packs have those contents, and one that shares the pack "shared" with all others.
func testDescriptor(t testing.TB, snapshot string, packs ...string) (text []byte, contents map[Key]string) {
	t.Helper()
	d := &Descriptor{
		Snapshot: snapshot, Created: time.Unix(1e9, 0),
		Manifest: Part{digestOf("manifest of " + strings.Join(packs, " ")), 100},
		Meta:     Part{digestOf("meta of " + strings.Join(packs, " ")), int64(len("meta"))},
	}
	contents = map[Key]string{MetaKey("ns", d.Meta.Digest): "meta"}
	for _, p := range packs {
		d.Packs = append(d.Packs, Pack{ID: digestOf(p), Pages: 1, Root: digestOf("root of " + p)})
		contents[PackKey("ns", digestOf(p))] = p
	}
	text, _, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text, contents
}

// testPush is a push of such a descriptor.
func testPush(t testing.TB, b blob.Bucket, snapshot string, opts PushOptions, packs ...string) *pusher {
	opts.setDefaults()
	text, contents := testDescriptor(t, snapshot, packs...)
	var uploads []upload
	for key, content := range contents {
		uploads = append(uploads, bytesUpload(b, key, []byte(content)))
	}
	slices.SortFunc(uploads, func(a, b upload) int { return strings.Compare(a.key.String(), b.key.String()) }) // so that a seed stands for one order
	return newPusher(b, pagestore.Name{Namespace: "ns", Snapshot: snapshot}, text, uploads, opts)
}

// checkNames returns an error unless all that the names lead to is there.
func checkNames(b *memoryBucket) (names int, err error) {
	for _, name := range b.keys("v1/ns/names/") {
		key, err := ParseKey(name)
		if err != nil {
			return 0, err
		}
		m, err := b.get(name)
		if err != nil {
			return 0, err
		}
		p, err := parsePointer(m.data)
		if err != nil {
			return 0, err
		}
		text, err := b.get(DescriptorKey("ns", p.Descriptor).String())
		if err != nil {
			return 0, fmt.Errorf("%s: %w", key.Name, err)
		}
		d, err := ParseDescriptor(text.data)
		if err != nil {
			return 0, err
		}
		for _, k := range d.keys("ns") {
			if _, err := b.get(k.String()); err != nil {
				return 0, fmt.Errorf("%s: %w", key.Name, err)
			}
		}
		names++
	}
	return names, nil
}

func mustRun(t *testing.T, p *pusher) {
	t.Helper()
	if err := p.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func mustCollect(t *testing.T, b blob.Bucket) CollectReport {
	t.Helper()
	r, err := Collect(t.Context(), b, "ns", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCollectKeepsWhatNamesLeadToAndWhatIsYoung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemoryBucket()
		mustRun(t, testPush(t, b, "one", PushOptions{}, "shared", "a"))
		mustRun(t, testPush(t, b, "two", PushOptions{}, "shared", "b"))
		name := pagestore.Name{Namespace: "ns", Snapshot: "one"}
		time.Sleep(100 * time.Hour)
		if err := Remove(t.Context(), b, name); err != nil {
			t.Fatal(err)
		}
		if err := Remove(t.Context(), b, name); !errors.Is(err, pagestore.ErrNotFound) {
			t.Errorf("a second removal: %v, want %v", err, pagestore.ErrNotFound)
		}
		if r := mustCollect(t, b); r.Deleted != 0 || r.Names != 1 || r.Leases != 1 {
			t.Errorf("right after the removal: %+v, want nothing deleted", r)
		}
		time.Sleep(DefaultGrace)
		mustRun(t, testPush(t, b, "three", PushOptions{}, "c"))
		if err := b.Delete(t.Context(), "v1/ns/names/three"); err != nil { // as people do
			t.Fatal(err)
		}
		b.put("v1/ns/other/thing", nil, true)
		dry, err := Collect(t.Context(), b, "ns", &CollectOptions{DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		r := mustCollect(t, b)
		if want := (CollectReport{Names: 1, Kept: 4, Young: 3, Deleted: 3, Unknown: 1}); r.Names != want.Names || r.Kept != want.Kept || r.Young != want.Young ||
			r.Deleted != want.Deleted || r.Unknown != want.Unknown || r.Leases != 0 {
			t.Errorf("after the grace time: %+v, want %+v", r, want)
		}
		if dry != r {
			t.Errorf("a dry run says %+v, the collection %+v", dry, r)
		}
		if names, err := checkNames(b); names != 1 || err != nil {
			t.Errorf("%d names, %v", names, err)
		}
		if left := b.keys("v1/ns/leases/"); len(left) != 0 {
			t.Errorf("leases are left: %q", left)
		}
	})
}

func TestCollectDeletesNothingIfItCannotFindOutWhatIsNeeded(t *testing.T) {
	for name, spoil := range map[string]func(b *memoryBucket){
		"a name that cannot be read":      func(b *memoryBucket) { b.put("v1/ns/names/one", []byte("{}"), true) },
		"a name of a later version":       func(b *memoryBucket) { b.put("v1/ns/names/one", []byte(`{"format":"thaw-name","version":2}`), true) },
		"a descriptor that is not there":  func(b *memoryBucket) { delete(b.blobs, b.keys("v1/ns/descriptors/")[0]) },
		"a descriptor with other content": func(b *memoryBucket) { b.put(b.keys("v1/ns/descriptors/")[0], []byte("{}"), true) },
		"a lease that cannot be read":     func(b *memoryBucket) { b.put("v1/ns/leases/push-x", []byte("{}"), true) },
		"a listing that fails": func(b *memoryBucket) {
			b.before = func(_ context.Context, op, key string) error {
				if op == "list" && key == "v1/ns/names/" {
					return blob.ErrBusy
				}
				return nil
			}
		},
		"a name that cannot be opened": func(b *memoryBucket) {
			b.before = func(_ context.Context, op, key string) error {
				if op == "open" && strings.HasPrefix(key, "v1/ns/names/") {
					return blob.ErrDenied
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newMemoryBucket()
				mustRun(t, testPush(t, b, "one", PushOptions{}, "a"))
				b.put(PackKey("ns", digestOf("orphan")).String(), nil, true)
				time.Sleep(100 * time.Hour)
				spoil(b)
				before := len(b.keys("v1/ns/packs/"))
				if _, err := Collect(t.Context(), b, "ns", nil); err == nil {
					t.Error("no error")
				}
				if after := len(b.keys("v1/ns/packs/")); after != before {
					t.Errorf("%d packs of %d are left", after, before)
				}
			})
		})
	}
}

// schedule releases the requests to a bucket one at a time, in an order that rng chooses, and checks the names after each.
type schedule struct {
	t      *testing.T
	bucket *memoryBucket
	rng    *rand.Rand

	mu      sync.Mutex
	waiting []request // sorted, so that a seed stands for one order
	log     []string
}

type request struct {
	what string
	turn chan struct{}
}

func (s *schedule) enter(ctx context.Context, op, key string) error {
	r := request{op + " " + key, make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, r)
	slices.SortStableFunc(s.waiting, func(a, b request) int { return strings.Compare(a.what, b.what) })
	s.mu.Unlock()
	select {
	case <-r.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, r.what)
	return nil
}

func (s *schedule) history() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, "\n")
}

// run releases requests until all of done are closed.
func (s *schedule) run(finished func() bool) {
	for steps := 0; !finished(); steps++ {
		synctest.Wait()
		s.mu.Lock()
		n := len(s.waiting)
		var turn chan struct{}
		if n > 0 && s.rng.IntN(20) > 0 {
			i := s.rng.IntN(n)
			turn = s.waiting[i].turn
			s.waiting = slices.Delete(s.waiting, i, i+1)
		}
		s.mu.Unlock()
		if turn == nil {
			// Time passes: a little while requests are under way, as they have deadlines, or until somebody does something again.
			time.Sleep(time.Duration(1+s.rng.IntN(5000)) * time.Millisecond)
			continue
		}
		close(turn)
		synctest.Wait()
		if _, err := checkNames(s.bucket); err != nil {
			s.t.Fatalf("a name leads to what is not there: %v\n%s", err, s.history())
		}
		if steps > 100_000 {
			s.t.Fatal("no end")
		}
	}
}

// Whatever the order of their requests, of pushes, removals and collections none takes away what a name leads to.
func TestPushesRemovalsAndCollectionsInAnyOrder(t *testing.T) {
	runs := 300
	if testing.Short() {
		runs = 30
	}
	deleted := 0
	for seed := range runs {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel() // also if the test fails: a push that waits renews its lease for ever
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			b := newMemoryBucket()
			b.exclusive = rng.IntN(2) == 0
			mustRun(t, testPush(t, b, "old", PushOptions{}, "shared", "a"))
			mustRun(t, testPush(t, b, "gone", PushOptions{}, "b", "c"))
			if err := Remove(t.Context(), b, pagestore.Name{Namespace: "ns", Snapshot: "gone"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(48 * time.Hour)
			s := &schedule{t: t, bucket: b, rng: rng}
			b.before = s.enter
			var wg sync.WaitGroup
			var errs sync.Map
			actors := []func() error{
				func() error { return testPush(t, b, "old", PushOptions{}, "shared", "a").run(ctx) },
				func() error { return testPush(t, b, "new", PushOptions{}, "b", "c", "shared").run(ctx) },
				func() error { return testPush(t, b, "new", PushOptions{Force: true}, "b", "d").run(ctx) },
				func() error {
					err := Remove(ctx, b, pagestore.Name{Namespace: "ns", Snapshot: "old"})
					if errors.Is(err, pagestore.ErrNotFound) {
						return nil
					}
					return err
				},
				func() error { r, err := Collect(ctx, b, "ns", nil); deleted += r.Deleted; return err },
				func() error { _, err := Collect(ctx, b, "ns", &CollectOptions{Grace: time.Hour}); return err },
			}
			for i, actor := range actors {
				if rng.IntN(4) == 0 {
					continue
				}
				wg.Go(func() {
					if err := actor(); err != nil && !errors.Is(err, pagestore.ErrExists) {
						errs.Store(i, err)
					}
				})
			}
			done := make(chan struct{})
			go func() { wg.Wait(); close(done) }()
			s.run(func() bool {
				select {
				case <-done:
					return true
				default:
					return false
				}
			})
			// Its name may have gone, but not for long: who restores it can go on.
			_, contents := testDescriptor(t, "old", "shared", "a")
			for key := range contents {
				if _, err := b.get(key.String()); err != nil {
					t.Errorf("seed %d: what was removed a moment ago is gone: %v\n%s", seed, err, s.history())
				}
			}
			errs.Range(func(i, err any) bool {
				t.Errorf("seed %d: actor %d: %v", seed, i, err)
				return true
			})
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if deleted == 0 {
		t.Error("nothing was ever deleted: the test is not looking")
	}
}
