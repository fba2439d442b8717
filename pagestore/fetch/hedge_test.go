package fetch_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore/fetch"
)

// learn has the Fetcher learn that a source takes a millisecond, then lets the test change it.
func learn(w *world, p *place) {
	for i := range 20 {
		w.must(10_000+2*i, 1, fetch.Demand)
	}
	if n := p.asks(); n != 20 {
		w.Fatalf("%s was asked %d times", p.name, n)
	}
}

func TestASlowSourceIsHedgedAfterItsOwnPercentile(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a := newPlace("a", takes(8*time.Millisecond))
		w.add(a)
		learn(w, a)
		b := newPlace("b", takes(2*time.Millisecond))
		w.add(b)
		time.Sleep(2 * time.Second) // so that the list is asked for again
		a.becomes(hangs)
		start := time.Now()
		w.must(0, 1, fetch.Demand)
		w.equal("asked of b after", b.log()[0].at-start.Sub(b.born), 9*time.Millisecond)
		w.equal("taken after", time.Since(start), 11*time.Millisecond)
		synctest.Wait()
		w.equal("running at a", w.of("a").Running, 0)
		c := w.of("b").Classes[fetch.Demand]
		w.equal("hedges, won, wasted", []uint64{c.Hedges, c.HedgesWon, c.HedgesWasted}, "[1 1 0]")
	})
}

func TestAHedgeThatLosesIsCancelled(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a := newPlace("a", takes(60*time.Millisecond))
		b := newPlace("b", hangs)
		w.add(a, b)
		w.must(0, 1, fetch.Demand)
		synctest.Wait()
		s := w.of("b")
		c := s.Classes[fetch.Demand]
		w.equal("hedges, won, wasted, running", []any{c.Hedges, c.HedgesWon, c.HedgesWasted, s.Running}, "[1 0 1 0]")
		w.equal("errors", c.Errors, [7]uint64{})
	})
}

func TestAHedgeThatFailsIsNotTheEnd(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a := newPlace("a", takes(time.Second))
		b := newPlace("b", says(errRefused))
		w.add(a, b)
		w.must(0, 1, fetch.Demand)
		w.equal("a was asked", a.asks(), 1)
		w.equal("b was asked", b.asks(), 1)
	})
}

func TestBothMayDeliverAndOneIsTaken(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a := newPlace("a", takes(60*time.Millisecond))
		b := newPlace("b", takes(10*time.Millisecond))
		w.add(a, b)
		w.must(0, 1, fetch.Demand)
		synctest.Wait()
		as, bs := w.of("a").Classes[fetch.Demand], w.of("b").Classes[fetch.Demand]
		w.equal("frames taken", as.Frames+bs.Frames, 1)
		w.equal("frames delivered", a.frames()+b.frames(), as.Frames+bs.Frames+as.WastedFrames+bs.WastedFrames)
	})
}

func TestTheSecondDeliveryWaitsForTheFirstAndCountsIfThatWasWrong(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a := newPlace("a", takes(60*time.Millisecond))
		a.change = wrong
		b := newPlace("b", takes(20*time.Millisecond))
		w.add(a, b)
		slow := func(frame int, c []byte) error { // checks for a second
			time.Sleep(time.Second)
			return w.shelf.take(frame, c)
		}
		if err := w.Fetch(context.Background(), obj, 0, 1, fetch.Demand, slow); err != nil {
			t.Fatal(err)
		}
		w.equal("requests", []int{a.asks(), b.asks()}, "[1 1]")
		w.equal("lies of a", w.of("a").Lies, 1)
	})
}

func TestASingleSourceIsHedgedOnAnotherConnection(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a := newPlace("a", nil)
		w.add(a)
		learn(w, a)
		var hung atomic.Bool
		a.becomes(func(ctx context.Context, f int) error {
			if !hung.Swap(true) {
				return hangs(ctx, f)
			}
			return pause(ctx, time.Millisecond)
		})
		w.must(0, 1, fetch.Demand)
		w.equal("hedges won", w.of("a").Classes[fetch.Demand].HedgesWon, 1)
	})
}

func TestBulkIsNotHedged(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		w.add(newPlace("a", takes(time.Second)), newPlace("b", nil))
		w.must(0, 1, fetch.Mirror)
		w.equal("taken from a", w.of("a").Classes[fetch.Mirror].Frames, 1)
	})
}

func TestDemandThatWaitsForARangeIsHedgedIfTheRangeStalls(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a := newPlace("a", hangs)
		w.add(a)
		bulk := w.begin(0, 1, fetch.Mirror)
		w.add(newPlace("b", nil))
		time.Sleep(2 * time.Second)
		start := time.Now()
		d := w.begin(0, 1, fetch.Demand)
		d.must()
		bulk.must()
		w.equal("taken after", time.Since(start), 51*time.Millisecond)
	})
}

func TestHedgesHaveABudget(t *testing.T) {
	inWorld(t, fetch.Options{HedgeShare: 0.1, Connections: 1000}, func(w *world) {
		a, b := newPlace("a", takes(time.Second)), newPlace("b", takes(time.Second))
		w.add(a, b)
		var all []*started
		for i := range 500 {
			all = append(all, w.begin(2*i, 1, fetch.Demand))
		}
		for _, s := range all {
			s.must()
		}
		hedges := w.of("a").Classes[fetch.Demand].Hedges + w.of("b").Classes[fetch.Demand].Hedges
		if hedges > 500/10+8 || hedges < 8 {
			t.Errorf("%d hedges of 500 requests", hedges)
		}
	})
}

func TestASourceThatHangsIsSoonNotAskedFirst(t *testing.T) {
	for tier, most := range []int{2, 4} {
		t.Run(fmt.Sprintf("the other is of tier %d", tier), func(t *testing.T) {
			inWorld(t, fetch.Options{}, func(w *world) {
				a, b := newPlace("a", nil), newPlace("b", nil)
				b.profile.Tier = tier
				w.add(a)
				learn(w, a)
				w.add(b)
				time.Sleep(2 * time.Second)
				a.becomes(hangs)
				before := a.asks()
				for i := range 100 {
					w.must(2*i, 1, fetch.Demand)
				}
				if n := a.asks() - before; n > most {
					t.Errorf("a source that hangs was asked %d times of 100", n)
				}
				// That would be when the budget for hedges is spent.
				w.equal("demand that waited until the source was given up", w.of("a").Classes[fetch.Demand].Errors[fetch.Stalled], 0)
			})
		})
	}
}

func TestWhenAHedgeFailsThereMayBeAnother(t *testing.T) {
	inWorld(t, fetch.Options{Stall: time.Hour}, func(w *world) {
		a, b, c := newPlace("a", hangs), newPlace("b", says(errRefused)), newPlace("c", nil)
		w.add(a, b, c)
		w.must(0, 1, fetch.Demand)
		w.equal("requests", []int{a.asks(), b.asks(), c.asks()}, "[1 1 1]")
	})
}

func TestAFrameIsTakenByOneAtATime(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a, b := newPlace("a", takes(60*time.Millisecond)), newPlace("b", takes(20*time.Millisecond))
		w.add(a, b)
		slow := func(frame int, c []byte) error {
			time.Sleep(time.Second)
			return w.shelf.take(frame, c) // which fails the test the second time
		}
		if err := w.Fetch(context.Background(), obj, 0, 1, fetch.Demand, slow); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.equal("delivered", []int{a.frames(), b.frames()}, "[1 1]")
		w.equal("wasted", w.of("b").Classes[fetch.Demand].WastedFrames, 1)
	})
}
