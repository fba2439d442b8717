package fetch_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore/fetch"
)

// has has a place hold some frames only.
func has(frames ...int) func(ctx context.Context, frame int) error {
	return func(ctx context.Context, frame int) error {
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
		if !slices.Contains(frames, frame) {
			return fmt.Errorf("404: %w", fetch.ErrNotYet)
		}
		return nil
	}
}

func TestAFrameThatAHolderOfPartsLacksSaysNothingOfOthers(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		part, all := newPlace("part", has(10, 20, 30)), newPlace("all", nil)
		all.profile.Tier = 1
		w.add(part, all)
		for _, frame := range []int{0, 10, 1, 20, 2, 30} {
			w.must(frame, 1, fetch.Demand)
		}
		w.equal("frames of the one that has parts", part.frames(), 3)
		w.equal("frames of the other", all.frames(), 3)
	})
}

func TestAHolderThatNeverHasWhatIsWantedIsAskedLessAndLess(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		part, all := newPlace("part", has()), newPlace("all", nil)
		all.profile.Tier = 1
		w.add(part, all)
		for frame := range 100 {
			w.must(frame, 1, fetch.Demand)
		}
		// 100 frames take 100 ms at least: three free misses, and one for each of two rests.
		if n := part.asks(); n < 4 || n > 6 {
			t.Errorf("it was asked %d times", n)
		}
		part.becomes(has(200))
		time.Sleep(time.Second) // of the bubble
		w.must(200, 1, fetch.Demand)
		w.equal("frames of it", part.frames(), 1)
	})
}

// TestASwarmOfHoldersOfPartsServesItself has nodes that begin with nothing bring one object, each in an order of its own, from each other and from
// a store that all share. Whatever one of them has brought the others find there.
func TestASwarmOfHoldersOfPartsServesItself(t *testing.T) {
	const nodes, frames = 6, 120
	synctest.Test(t, func(t *testing.T) {
		store := newPlace("store", takes(5*time.Millisecond))
		store.profile = fetch.Profile{Tier: 1, Connections: 64}
		var swarm []*swarmNode
		for i := range nodes {
			swarm = append(swarm, &swarmNode{name: fmt.Sprint("node ", i), has: make(map[int]bool)})
		}
		var wg sync.WaitGroup
		for i, n := range swarm {
			f := fetch.New(fetch.Options{}, func(fetch.Object) []fetch.Source {
				all := []fetch.Source{store}
				for _, other := range swarm {
					if other != n {
						all = append(all, other)
					}
				}
				return all
			})
			wg.Go(func() {
				defer f.Close()
				for step := range frames {
					frame := (step + i*frames/nodes) % frames
					if err := f.Fetch(t.Context(), obj, frame, 1, fetch.Demand, n.take); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		// Each begins a sixth of the object away from the next, and so finds the others' parts there from the second sixth on.
		if n := store.frames(); n > 2*frames {
			t.Errorf("the store was asked for %d frames of %d that %d nodes brought", n, frames, nodes)
		}
	})
}

// swarmNode is a node as others see it.
type swarmNode struct {
	name string

	mu  sync.Mutex
	has map[int]bool
}

func (n *swarmNode) String() string { return n.name }

func (n *swarmNode) take(frame int, b []byte) error {
	if string(b) != string(content(obj, frame)) {
		return fetch.ErrWrong
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.has[frame] = true
	return nil
}

func (n *swarmNode) Frames(ctx context.Context, o fetch.Object, first, count int, deliver func(int, []byte) error) error {
	for frame := first; frame < first+count; frame++ {
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
		n.mu.Lock()
		has := n.has[frame]
		n.mu.Unlock()
		if !has {
			return fetch.ErrNotYet
		}
		if err := deliver(frame, content(o, frame)); err != nil {
			return err
		}
	}
	return nil
}

func TestASourceWithAnotherObjectIsNoLiar(t *testing.T) {
	for name, differs := range map[string]*doubter{
		"it says so at once":           {place: newPlace("a", says(fmt.Errorf("root: %w", fetch.ErrDiffers)))},
		"it says so after wrong bytes": {place: newPlace("a", nil), doubts: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, fetch.Options{}, func(w *world) {
				differs.change = wrong
				other := newPlace("b", nil)
				other.profile.Tier = 1
				sources := []fetch.Source{differs, other}
				f := fetch.New(fetch.Options{}, func(fetch.Object) []fetch.Source { return sources })
				defer f.Close()
				for frame := range 20 {
					if err := f.Fetch(context.Background(), obj, frame, 1, fetch.Demand, w.shelf.take); err != nil {
						t.Fatal(err)
					}
				}
				w.equal("requests to the one that differs", differs.asks(), 1)
				for _, s := range f.Stats().Sources {
					if s.Source == "a" && (s.Lies != 0 || !s.SetAside.IsZero()) {
						t.Errorf("it is taken for a liar: %+v", s)
					}
				}
				// Of another object it is asked.
				o := key(7)
				differs.becomes(nil)
				differs.repents()
				differs.doubts = false
				shelf := newShelf(t, o)
				if err := f.Fetch(context.Background(), o, 0, 1, fetch.Demand, shelf.take); err != nil {
					t.Fatal(err)
				}
				w.equal("requests to it", differs.asks(), 2)
			})
		})
	}
}

// doubter is a place that finds out why its bytes are wrong: it has another object.
type doubter struct {
	*place
	doubts bool
}

func (d *doubter) Frames(ctx context.Context, o fetch.Object, first, n int, deliver func(int, []byte) error) error {
	err := d.place.Frames(ctx, o, first, n, deliver)
	if err != nil && d.doubts {
		return fmt.Errorf("%w: %w", fetch.ErrDiffers, err)
	}
	return err
}
