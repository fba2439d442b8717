package fetch_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore/fetch"
)

func TestRangesGrowAlongAStream(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 1, MaxFrames: 32}, func(w *world) {
		p := newPlace("a", nil)
		w.add(p)
		w.must(0, 90, fetch.Mirror)
		w.equal("ranges of one call", p.ranges(), "[0+8 8+16 24+32 56+32 88+2]")
		w.must(90, 32, fetch.Mirror)
		w.equal("the next call goes on", p.ranges()[5:], "[90+32]")
		w.must(200, 12, fetch.Mirror)
		w.equal("elsewhere they begin anew", p.ranges()[6:], "[200+8 208+4]")
		w.must(122, 32, fetch.Mirror)
		w.equal("the first stream is not forgotten", p.ranges()[8:], "[122+32]")
	})
}

func TestRangesOfDemandAreShorter(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 1, Kept: -1, MaxDemandFrames: 4}, func(w *world) {
		p := newPlace("a", nil)
		w.add(p)
		w.must(0, 12, fetch.Demand)
		w.equal("ranges", p.ranges(), "[0+1 1+2 3+4 7+4 11+1]")
	})
}

func TestOnlyWantedFramesAreAskedFor(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 1}, func(w *world) {
		p := newPlace("a", nil)
		w.add(p)
		for i := range 6 {
			w.must(i, 1, fetch.Demand)
		}
		w.equal("ranges", p.ranges(), "[0+1 1+1 2+1 3+1 4+1 5+1]")
	})
}

func TestAConnectionIsKeptForDemand(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 3}, func(w *world) {
		p := newPlace("a", takes(time.Second))
		w.add(p)
		bulk := w.begin(0, 64, fetch.Mirror)
		w.equal("running", w.of("a").Running, 2)
		w.begin(1000, 1, fetch.Demand).must()
		w.equal("the demand was asked for", p.ranges()[2], "1000+1")
		w.equal("at", p.log()[2].at, time.Duration(0))
		bulk.must()
		w.equal("the most at the same time", p.peak(), 3)
	})
}

func TestNoBulkStartsWhileDemandWaits(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 2, MaxFrames: 1, HedgeShare: -1}, func(w *world) {
		p := newPlace("a", takes(time.Second))
		w.add(p)
		bulk := w.begin(0, 3, fetch.Mirror)
		ahead := w.begin(100, 2, fetch.Ahead)
		var demand []*started
		for i := range 4 {
			demand = append(demand, w.begin(1000+10*i, 1, fetch.Demand))
		}
		for _, d := range demand {
			d.must()
		}
		bulk.must()
		ahead.must()
		w.equal("second by second", p.bySecond(), "[[0 1000] [1010 1020] [100 1030] [101] [1] [2]]")
	})
}

func TestObjectsTakeTurns(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 1, MaxFrames: 1}, func(w *world) {
		p := newPlace("a", nil)
		w.add(p)
		other := newShelf(t, key(1))
		a := w.begin(0, 4, fetch.Mirror)
		done := make(chan error, 1)
		w.calls.Go(func() { done <- w.Fetch(context.Background(), other.o, 100, 3, fetch.Mirror, other.take) })
		a.must()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.equal("order", p.ranges(), "[0+1 1+1 100+1 2+1 101+1 3+1 102+1]")
	})
}

func TestDemandRaisesAFrameThatWaits(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 1, MaxFrames: 1}, func(w *world) {
		p := newPlace("a", takes(time.Second))
		w.add(p)
		bulk := w.begin(0, 8, fetch.Mirror)
		w.begin(6, 1, fetch.Demand).must()
		w.equal("order", p.ranges()[:2], "[0+1 6+1]")
		bulk.must()
		w.equal("frames delivered", p.frames(), 8)
	})
}

func TestARaisedFrameIsLoweredWhenDemandLeaves(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 1, MaxFrames: 1}, func(w *world) {
		p := newPlace("a", takes(time.Second))
		w.add(p)
		bulk := w.begin(0, 4, fetch.Mirror)
		d := w.begin(3, 1, fetch.Demand)
		d.cancel(nil)
		_ = d.end()
		bulk.must()
		w.equal("demand requests", w.of("a").Classes[fetch.Demand].Requests, 0)
		w.equal("frames delivered", p.frames(), 4)
	})
}

// inStream has a range of 16 frames on its way, from frame 8 on, and nothing else.
func inStream(w *world, p *place) *started {
	bulk := w.begin(0, 24, fetch.Mirror)
	for p.asks() < 2 {
		time.Sleep(time.Millisecond) // the bubble's
	}
	w.equal("the range on its way", p.ranges()[1], "8+16")
	return bulk
}

func TestDemandWaitsForARangeThatIsNear(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 2, Near: 4, HedgeShare: -1}, func(w *world) {
		p := newPlace("a", takes(time.Second))
		w.add(p)
		bulk := inStream(w, p)
		w.begin(12, 1, fetch.Demand).must()
		bulk.must()
		w.equal("requests", p.asks(), 2)
	})
}

func TestDemandOvertakesARangeThatIsFar(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 2, Near: 4, HedgeShare: -1}, func(w *world) {
		p := newPlace("a", takes(time.Second))
		w.add(p)
		bulk := inStream(w, p)
		w.begin(13, 1, fetch.Demand).must()
		w.equal("the last request", p.ranges()[2:], "[13+1]")
		bulk.must()
		w.equal("overtakes", w.of("a").Classes[fetch.Demand].Overtakes, 1)
		w.equal("frame 13 was delivered", p.times(13), 2)
		w.equal("wasted", w.of("a").Classes[fetch.Mirror].WastedFrames, 1)
		w.equal("frames taken", len(w.shelf.frames()), 24)
	})
}

func TestDemandThatOvertakesIsOverWhenTheRangeIsThereFirst(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 2, Near: 1, HedgeShare: -1, Stall: time.Minute}, func(w *world) {
		p := newPlace("a", takes(time.Second))
		w.add(p)
		bulk := inStream(w, p)
		slow := p.frame
		p.becomes(hangs) // for who comes now
		other := w.begin(1000, 1, fetch.Demand)
		p.becomes(slow)
		d := w.begin(13, 1, fetch.Demand) // has no connection
		d.must()
		w.equal("overtakes", w.of("a").Classes[fetch.Demand].Overtakes, 0)
		other.cancel(nil)
		bulk.must()
	})
}

func TestALongQueueStartsInOrder(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 1}, func(w *world) {
		p := newPlace("a", nil)
		w.add(p)
		w.must(0, 5000, fetch.Mirror)
		next := 0
		for _, r := range p.log() {
			if r.first != next {
				t.Fatalf("a range begins at %d, and %d was due", r.first, next)
			}
			next += r.n
		}
		w.equal("frames", next, 5000)
		synctest.Wait()
		w.equal("running", w.of("a").Running, 0)
	})
}

func TestDemandThatWasToOvertakeAndLeftAsksForNothing(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 2, Near: 1, HedgeShare: -1}, func(w *world) {
		p, q := newPlace("a", takes(time.Second)), newPlace("b", takes(time.Second))
		w.add(p)
		bulk := inStream(w, p)
		w.add(q)
		time.Sleep(time.Second) // so that the list is asked for again
		var others []*started
		for i := range 3 { // on all connections that are left
			others = append(others, w.begin(1000+10*i, 1, fetch.Demand))
		}
		d := w.begin(21, 1, fetch.Demand)
		d.cancel(nil)
		_ = d.end()
		for _, o := range others {
			o.must()
		}
		bulk.must()
		w.equal("frame 21 was delivered", p.times(21)+q.times(21), 1)
		w.equal("requests", p.asks()+q.asks(), 5)
	})
}

// TestNoBulkStartsElsewhereWhileDemandWaits: what bulk would bring from another place comes through the same network of this machine.
func TestNoBulkStartsElsewhereWhileDemandWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, other := newPlace("a", takes(time.Second)), newPlace("b", nil), key(1)
		f := fetch.New(fetch.Options{Connections: 1, HedgeShare: -1}, func(o fetch.Object) []fetch.Source {
			if o == other {
				return []fetch.Source{b}
			}
			return []fetch.Source{a}
		})
		defer f.Close()
		var calls sync.WaitGroup
		begin := func(o fetch.Object, first int, class fetch.Class) {
			calls.Go(func() {
				if err := f.Fetch(context.Background(), o, first, 1, class, func(int, []byte) error { return nil }); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		begin(obj, 0, fetch.Demand)
		begin(obj, 10, fetch.Demand) // waits for a's connection
		begin(other, 0, fetch.Mirror)
		calls.Wait()
		if at := b.log()[0].at; at != time.Second {
			t.Errorf("bulk started after %v, and demand waited for a second", at)
		}
	})
}
