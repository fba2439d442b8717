package tier

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAPlaceThatLiesAboutWhatDoesNotComeInFramesIsSetAside has a peer lie about hot objects, or meta objects, and nothing else.
func TestAPlaceThatLiesAboutWhatDoesNotComeInFramesIsSetAside(t *testing.T) {
	maker := newNode(t)
	b := newMemoryBucket()
	for i, snapshot := range []string{"one", "two", "three"} {
		maker.freeze(snapshot, seeds(uint64(1000*i), 400))
		maker.mustPush(snapshot, b, nil)
	}
	later := func(_ string, _ int64, r io.Reader) io.Reader {
		return io.MultiReader(io.LimitReader(r, 100_000), &flipper{r: r})
	}
	for name, lie := range map[string]struct {
		about  string
		change func(string, int64, io.Reader) io.Reader
	}{
		"the head of hot objects": {"/hot/", flipped},
		"hot pages":               {"/hot/", later},
		"meta objects":            {"/meta/", flipped},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			liar := &faulty{
				Reader: maker.shelf, name: "liar",
				before: func(_ context.Context, key string) error {
					if strings.Contains(key, lie.about) {
						asked.Add(1)
					}
					return nil
				},
				change: func(key string, off int64, r io.Reader) io.Reader {
					if strings.Contains(key, lie.about) {
						return lie.change(key, off, r)
					}
					return r
				},
			}
			n := newNode(t)
			n.sees(Place{Reader: liar, Raw: true}, bucketPlace(b))
			for i, snapshot := range []string{"one", "two"} {
				n.mustPull(snapshot, &PullOptions{Mode: WorkingSetToo, Origin: n.origin})
				lies, aside := n.liesOf("liar")
				if lies == 0 || aside.IsZero() != (i == 0) {
					t.Errorf("after %s: %d lies, set aside until %v", snapshot, lies, aside)
				}
			}
			before := asked.Load()
			n.mustPull("three", &PullOptions{Mode: WorkingSetToo, Origin: n.origin})
			if n := asked.Load(); n != before || n == 0 {
				t.Errorf("it was asked %d times, and %d times after it was set aside", n, n-before)
			}
			for i, snapshot := range []string{"one", "two", "three"} {
				n.mustCheck(snapshot, seeds(uint64(1000*i), 400))
			}
		})
	}
}

func (n *node) liesOf(source string) (lies uint64, aside time.Time) {
	for _, s := range n.origin.Stats().Sources {
		if s.Source == source {
			return s.Lies, s.SetAside
		}
	}
	return 0, time.Time{}
}

// TestADescriptorThatSaysAnotherSizeOfAMetaObjectHasNobodySetAside: the place that delivers the object has told the truth.
func TestADescriptorThatSaysAnotherSizeOfAMetaObjectHasNobodySetAside(t *testing.T) {
	maker, n := newNode(t), newNode(t)
	maker.freeze("one", seeds(1, 100))
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	for _, more := range []int64{-1, 1} {
		f := found(t, b, "one")
		d := *f.Descriptor
		d.Meta.Bytes += more
		f.Descriptor = &d
		p := &puller{store: n.store, places: n.where, name: nameOf("one"), opts: PullOptions{Origin: n.origin}}
		if _, err := p.fetchMeta(t.Context(), f); err == nil {
			t.Error("it has come")
		}
	}
	if lies, _ := n.liesOf(b.String()); lies != 0 {
		t.Errorf("%d lies", lies)
	}
}
