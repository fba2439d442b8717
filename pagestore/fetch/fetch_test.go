package fetch_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore/fetch"
)

func TestCallsForOneFrameShareOneRequest(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		p := newPlace("a", nil)
		w.add(p)
		var all []*started
		for range 10 {
			all = append(all, w.begin(3, 1, fetch.Demand))
		}
		for _, s := range all {
			s.must()
		}
		w.equal("requests", p.ranges(), "[3+1]")
		w.equal("frames taken", w.shelf.frames(), "[3]")
		s := w.Stats()
		w.equal("calls, joined, flights", []any{s.Calls, s.Joined, s.Flights}, "[[10 0 0] 9 0]")
	})
}

func TestCallsThatOverlapAskForTheRestOnly(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		p := newPlace("a", nil)
		w.add(p)
		a, b := w.begin(0, 8, fetch.Ahead), w.begin(4, 8, fetch.Mirror)
		a.must()
		b.must()
		w.equal("frames delivered", p.frames(), 12)
		w.equal("frames taken", w.shelf.frames(), "[0 1 2 3 4 5 6 7 8 9 10 11]")
	})
}

func TestWhatHasArrivedIsAskedForAgainByWhoAsksAgain(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		p := newPlace("a", nil)
		w.add(p)
		w.must(0, 1, fetch.Demand)
		w.shelf = newShelf(t, obj)
		w.must(0, 1, fetch.Demand)
		w.equal("requests", p.ranges(), "[0+1 0+1]")
	})
}

func TestOneThatLeavesTakesNothingFromTheOthers(t *testing.T) {
	inWorld(t, fetch.Options{HedgeShare: -1}, func(w *world) {
		p := newPlace("a", takes(time.Second))
		w.add(p)
		a, b := w.begin(0, 1, fetch.Demand), w.begin(0, 1, fetch.Demand)
		errGone := errors.New("gone")
		a.cancel(errGone)
		if err := a.end(); !errors.Is(err, errGone) {
			t.Errorf("the one that left got %v", err)
		}
		b.must()
		w.equal("requests", p.ranges(), "[0+1]")
	})
}

func TestTheLastToLeaveCancelsTheRequest(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		p := newPlace("a", hangs)
		w.add(p)
		a, b := w.begin(0, 1, fetch.Ahead), w.begin(0, 1, fetch.Ahead)
		a.cancel(nil)
		_ = a.end()
		synctest.Wait()
		w.equal("running with one left", w.of("a").Running, 1)
		b.cancel(nil)
		_ = b.end()
		synctest.Wait()
		w.equal("running with none left", w.of("a").Running, 0)
		w.equal("flights", w.Stats().Flights, 0)
		w.equal("errors of the source", w.of("a").Classes[fetch.Ahead].Errors, [7]uint64{})
	})
}

func TestARangeGoesOnForTheFramesThatAreStillWanted(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 2}, func(w *world) {
		p := newPlace("a", takes(time.Second))
		w.add(p)
		w.begin(0, 1, fetch.Ahead).must()
		a, b := w.begin(1, 1, fetch.Ahead), w.begin(2, 4, fetch.Ahead)
		a.must() // and now 2 to 5 are asked for at once
		synctest.Wait()
		c := w.begin(3, 1, fetch.Ahead)
		b.cancel(nil)
		_ = b.end()
		c.must()
		w.equal("requests", p.ranges(), "[0+1 1+1 2+4]")
		w.equal("frames taken", w.shelf.frames(), "[0 1 3]")
		w.equal("frames wasted", w.of("a").Classes[fetch.Ahead].WastedFrames, 1)
		synctest.Wait()
		w.equal("running", w.of("a").Running, 0)
	})
}

func TestWhoCannotTakeAFrameFailsAlone(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		p := newPlace("a", nil)
		w.add(p)
		errFull := errors.New("no space")
		a := w.start(context.Background(), 0, 4, fetch.Demand, func(int, []byte) error { return errFull })
		b := w.begin(0, 1, fetch.Demand)
		if err := a.end(); !errors.Is(err, errFull) {
			t.Errorf("the one without space got %v", err)
		}
		b.must()
		w.equal("frames delivered", p.times(0), 1)
		w.equal("lies", w.of("a").Lies, 0)
	})
}

func TestNothingIsTakenAfterFetchHasReturned(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		w.add(newPlace("a", nil))
		takes := make(chan struct{})
		var returned atomic.Bool
		a := w.start(context.Background(), 0, 1, fetch.Demand, func(int, []byte) error {
			<-takes
			if returned.Load() {
				t.Error("a frame is being taken, and Fetch has returned")
			}
			return nil
		})
		time.Sleep(time.Second) // the bubble's
		a.cancel(nil)
		if !a.running() {
			t.Error("Fetch has returned while a frame is taken")
		}
		b := w.begin(0, 1, fetch.Demand) // joins: the frame is not asked for again
		close(takes)
		_ = a.end()
		returned.Store(true)
		b.must()
		w.equal("requests", w.of("a").Classes[fetch.Demand].Requests, 1)
		w.equal("taken by the one that joined", w.shelf.frames(), "[]")
	})
}

func TestAFrameThatNobodyCouldTakeIsGoneWithItsCall(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		w.add(newPlace("a", nil))
		takes := make(chan struct{})
		a := w.start(context.Background(), 0, 1, fetch.Demand, func(int, []byte) error {
			<-takes
			return errors.New("no space")
		})
		time.Sleep(time.Second)
		a.cancel(nil)
		synctest.Wait()
		close(takes)
		if err := a.end(); !errors.Is(err, context.Canceled) {
			t.Errorf("Fetch = %v", err)
		}
		synctest.Wait()
		w.equal("flights", w.Stats().Flights, 0)
		w.must(0, 1, fetch.Demand)
	})
}

func TestCloseEndsCallsAndWaitsForSources(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		var ended atomic.Bool
		w.add(newPlace("a", func(ctx context.Context, _ int) error {
			<-ctx.Done()
			time.Sleep(time.Minute) // a source that takes its time
			ended.Store(true)
			return context.Cause(ctx)
		}))
		a, b := w.begin(0, 100, fetch.Mirror), w.begin(50, 1, fetch.Demand)
		w.Close()
		if !ended.Load() {
			t.Error("Close has returned, and a source runs")
		}
		for _, s := range []*started{a, b} {
			if err := s.end(); !errors.Is(err, fetch.ErrClosed) {
				t.Errorf("Fetch = %v", err)
			}
		}
		if err := w.fetch(0, 1, fetch.Demand); !errors.Is(err, fetch.ErrClosed) {
			t.Errorf("Fetch after Close = %v", err)
		}
		w.Close()
	})
}

func TestARangeThatCannotBeIsAnErrorAtOnce(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		for _, r := range []struct {
			first, n int
			class    fetch.Class
		}{{-1, 1, fetch.Demand}, {0, 0, fetch.Demand}, {0, -1, fetch.Demand}, {0, 1, fetch.Mirror + 1}} {
			if err := w.fetch(r.first, r.n, r.class); err == nil {
				t.Errorf("%+v was fetched", r)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := w.Fetch(ctx, obj, 0, 1, fetch.Demand, w.shelf.take); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

func TestAnObserverIsToldOfEachRequest(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		w.add(newPlace("a", takes(3*time.Millisecond)))
		w.must(7, 1, fetch.Ahead)
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.events) != 1 {
			t.Fatalf("%d events", len(w.events))
		}
		e := w.events[0]
		e.Started = time.Time{}
		want := fetch.Event{
			Object: obj, Source: "a", Class: fetch.Ahead, First: 7, Frames: 1, Taken: 1, Bytes: frameSize, FirstFrame: 3 * time.Millisecond, Took: 3 * time.Millisecond,
		}
		if e != want {
			t.Errorf("event %+v, want %+v", e, want)
		}
		s := w.of("a")
		c := s.Classes[fetch.Ahead]
		w.equal("requests, frames, bytes", []any{c.Requests, c.Frames, c.Bytes}, []any{1, 1, frameSize})
		w.equal("the bucket up to 5 ms", c.FirstFrame.Counts[4], 1)
		w.equal("sum, typical", []any{c.FirstFrame.Sum, s.Typical}, "[3ms 3ms]")
	})
}

func TestObjectsThatNobodyWantsAreForgottenSomeTime(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		w.add(newPlace("a", nil))
		for n := range uint64(2000) {
			if err := w.Fetch(context.Background(), key(n%700), 0, 1, fetch.Demand, func(int, []byte) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if n := fetch.Objects(w.Fetcher); n > 300 {
			t.Errorf("%d objects are remembered", n)
		}
	})
}

func TestCloseBesideCallsThatAreBeingEntered(t *testing.T) {
	for range 50 {
		sources := []fetch.Source{quick{make([]byte, frameSize)}}
		f := fetch.New(fetch.Options{}, func(fetch.Object) []fetch.Source { return sources })
		var calls sync.WaitGroup
		for i := range 4 {
			calls.Go(func() {
				if err := f.Fetch(context.Background(), obj, 700*i, 3000, fetch.Mirror, nowhere); err != nil && !errors.Is(err, fetch.ErrClosed) {
					t.Errorf("Fetch = %v", err)
				}
			})
		}
		f.Close()
		calls.Wait()
		if s := f.Stats(); s.Flights != 0 {
			t.Fatalf("%d flights are left", s.Flights)
		}
	}
}
