package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore/fetch"
)

func TestWhenOneSourceFailsAnotherIsAsked(t *testing.T) {
	for name, bad := range map[string]struct {
		frame  func(context.Context, int) error
		change func(int, []byte) []byte
		kind   fetch.Kind
	}{
		"it refuses":              {frame: says(errRefused), kind: fetch.Other},
		"it does not have it":     {frame: says(fmt.Errorf("404: %w", fetch.ErrNotHere)), kind: fetch.NotHere},
		"it is busy":              {frame: says(fmt.Errorf("503: %w", fetch.ErrBusy)), kind: fetch.Busy},
		"it says nothing":         {frame: hangs, kind: fetch.Stalled},
		"it lies":                 {change: wrong, kind: fetch.Wrong},
		"it knows that it lied":   {frame: says(fetch.ErrWrong), kind: fetch.Wrong},
		"its own deadline passes": {frame: says(context.DeadlineExceeded), kind: fetch.Other},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, fetch.Options{Stall: time.Second, HedgeShare: -1}, func(w *world) {
				a, b := newPlace("a", bad.frame), newPlace("b", nil)
				a.change = bad.change
				w.add(a, b)
				w.must(0, 1, fetch.Demand)
				c := w.of("a").Classes[fetch.Demand]
				w.equal("errors of this kind", c.Errors[bad.kind], 1)
				w.equal("retries at b", w.of("b").Classes[fetch.Demand].Retries, 1)
				w.equal("requests", []int{a.asks(), b.asks()}, "[1 1]")
			})
		})
	}
}

// short is a source that delivers less than asked for, and says nothing; or what was not asked for.
type short struct {
	*place
	deliver []int
}

func (s *short) Frames(_ context.Context, o fetch.Object, _, _ int, deliver func(int, []byte) error) error {
	for _, f := range s.deliver {
		_ = deliver(f, content(o, f)) // it does not care
	}
	return nil
}

func TestFramesOutOfTurnOrTooFewAreAnError(t *testing.T) {
	for name, frames := range map[string][]int{
		"none": {}, "one twice": {1, 1}, "another": {2}, "the second first": {2, 1}, "negative": {-1}, "more": {1, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := &short{newPlace("a", nil), frames}, newPlace("b", nil)
				f := fetch.New(fetch.Options{}, func(fetch.Object) []fetch.Source { return []fetch.Source{a, b} })
				defer f.Close()
				s := newShelf(t, obj)
				if err := f.Fetch(context.Background(), obj, 0, 1, fetch.Mirror, s.take); err != nil {
					t.Fatal(err)
				}
				if err := f.Fetch(context.Background(), obj, 1, 2, fetch.Mirror, s.take); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				var errs, bad uint64
				for _, src := range f.Stats().Sources {
					if c := src.Classes[fetch.Mirror]; src.Source == "a" {
						errs = c.Errors[fetch.Short]
						bad = c.WastedFrames
					}
				}
				if errs == 0 {
					t.Errorf("no error was counted; %d frames wasted", bad)
				}
			})
		})
	}
}

func TestARangeThatBreaksGoesOnWhereItBroke(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 1}, func(w *world) {
		a := newPlace("a", func(ctx context.Context, f int) error {
			if f == 5 {
				return errRefused
			}
			return pause(ctx, time.Millisecond)
		})
		b := newPlace("b", nil)
		w.add(a, b)
		a.profile.Tier, b.profile.Tier = 0, 1
		w.must(0, 7, fetch.Mirror)
		w.equal("requests at a", a.ranges()[:1], "[0+7]")
		w.equal("requests at b", b.ranges()[0], "5+2")
		w.equal("frames delivered", a.frames()+b.frames(), 7)
	})
}

func TestWhenAllHaveFailedTheyAreAskedAgainUntilOneIsBack(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a, b := newPlace("a", says(errRefused)), newPlace("b", says(fetch.ErrNotHere))
		w.add(a, b)
		s := w.begin(0, 1, fetch.Demand)
		time.Sleep(time.Minute)
		if !s.running() {
			t.Fatal("Fetch has returned")
		}
		if n := a.asks(); n < 10 || n > 100 {
			t.Errorf("in a minute the source that refuses was asked %d times", n)
		}
		if n := b.asks(); n < 5 || n > 13 {
			t.Errorf("in a minute the source that has it not was asked %d times", n)
		}
		a.becomes(nil)
		s.must()
	})
}

func TestASourceThatAppearsIsAsked(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		s := w.begin(0, 1, fetch.Demand)
		time.Sleep(10 * time.Second)
		w.add(newPlace("a", nil))
		s.must()
	})
}

func TestTheErrorSaysWhatEachSourceSaid(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		liar := newPlace("liar", nil)
		liar.change = wrong
		w.add(newPlace("refuser", says(errRefused)), newPlace("empty", says(fetch.ErrNotHere)), newPlace("busy", says(fetch.ErrBusy)), liar, newPlace("deaf", hangs))
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
		defer cancel()
		err := w.Fetch(ctx, obj, 4, 3, fetch.Demand, w.shelf.take)
		var e *fetch.Error
		if !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errRefused) || !errors.Is(err, fetch.ErrWrong) {
			t.Fatalf("Fetch = %v", err)
		}
		if e.Frame != 4 || e.Missing != 3 || e.Object != obj {
			t.Errorf("the error is of frame %d of %v, and %d are missing", e.Frame, e.Object, e.Missing)
		}
		for _, want := range []string{
			"fetch frame 4 of ns/pack and 2 more", "refuser: connection refused (", "empty: not here", "busy: busy", "; liar: ", ": wrong bytes", "deaf: no frame came in time (",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	})
}

func TestTheErrorSaysThatThereIsNoSource(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := w.Fetch(ctx, obj, 0, 1, fetch.Demand, w.shelf.take)
		if want := "fetch frame 0 of ns/pack: context deadline exceeded; no source is known"; err == nil || err.Error() != want {
			t.Errorf("Fetch = %v, want %s", err, want)
		}
	})
}

func TestTheErrorSaysWhoHasNotAnswered(t *testing.T) {
	inWorld(t, fetch.Options{Stall: time.Hour}, func(w *world) {
		liar := newPlace("liar", nil)
		liar.change = wrong
		w.add(liar)
		s := w.begin(0, 1, fetch.Mirror)
		time.Sleep(time.Second)
		s.cancel(nil)
		_ = s.end()
		w.add(newPlace("deaf", hangs))
		s = w.begin(1, 1, fetch.Mirror)
		time.Sleep(3 * time.Second)
		s.cancel(nil)
		if err := s.end(); err == nil || !strings.Contains(err.Error(), "deaf: has not answered yet") || !strings.Contains(err.Error(), "liar: set aside for ") {
			t.Errorf("Fetch = %v", err)
		}
	})
}

func TestASourceThatLiesIsNotAskedForTheObjectForLongerEachTime(t *testing.T) {
	var log bytes.Buffer
	inWorld(t, fetch.Options{Aside: time.Minute, MaxAside: 3 * time.Minute, Log: slog.New(slog.NewTextHandler(&log, nil))}, func(w *world) {
		a := newPlace("a", nil)
		a.change = wrong
		w.add(a)
		s := w.begin(0, 1, fetch.Mirror)
		for range 5 {
			time.Sleep(3 * time.Minute)
		}
		var at []time.Duration
		for _, r := range a.log() {
			at = append(at, r.at.Round(10*time.Second))
		}
		w.equal("asked at", at, "[0s 1m0s 3m0s 6m0s 9m0s 12m0s]")
		src := w.of("a")
		w.equal("lies", src.Lies, 6)
		if !src.SetAside.IsZero() {
			t.Errorf("one object has it set aside for %v", time.Until(src.SetAside))
		}
		a.repents()
		s.must()
		w.equal("taken", w.shelf.frames(), "[0]")
	})
	if !strings.Contains(log.String(), "source=a object=ns/pack first=0") {
		t.Errorf("log: %s", log.String())
	}
}

func TestLiesThatWereOnTheirWayCountOnce(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 8, HedgeShare: -1}, func(w *world) {
		a := newPlace("a", nil)
		a.change = wrong
		w.add(a)
		var all []*started
		for i := range 5 {
			all = append(all, w.begin(10*i, 1, fetch.Demand))
		}
		time.Sleep(30 * time.Second)
		w.equal("lies", w.of("a").Lies, 5)
		time.Sleep(31 * time.Second)
		w.equal("asked again after a minute", a.asks() > 5, true)
		for _, s := range all {
			s.cancel(nil)
		}
	})
}

func TestABusySourceIsLeftAlone(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a, b := newPlace("a", says(fetch.ErrBusy)), newPlace("b", nil)
		w.add(a, b)
		for i := range 50 {
			w.must(2*i, 1, fetch.Demand) // 50 ms in all
		}
		w.equal("the busy one was asked", a.asks(), 1)
	})
}

func TestRetriesHaveABudget(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 100, Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, HedgeShare: -1}, func(w *world) {
		a := newPlace("a", func(context.Context, int) error { return errRefused })
		w.add(a)
		for i := range 50 {
			w.begin(10*i, 1, fetch.Demand)
		}
		time.Sleep(10 * time.Second)
		c := w.of("a").Classes[fetch.Demand]
		if c.Retries > 32+10*10+2 || c.Retries < 50 {
			t.Errorf("%d retries in 10 s", c.Retries)
		}
		w.equal("requests of the source", a.asks(), c.Requests)
		w.equal("all others are first requests", c.Requests-c.Retries, uint64(50))
		w.equal("errors", c.Errors[fetch.Other], c.Requests)
	})
}

func TestASourceWithOneByteASecondIsLeftBehind(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 2}, func(w *world) {
		a, b := newPlace("a", takes(frameSize*time.Second)), newPlace("b", nil)
		w.add(a, b)
		w.must(0, 32, fetch.Mirror)
		w.equal("taken from a", w.of("a").Classes[fetch.Mirror].Frames, 0)
		w.must(100, 1, fetch.Demand)
	})
}

func TestASourceThatIgnoresItsContextKeepsOnlyItsConnection(t *testing.T) {
	inWorld(t, fetch.Options{Stall: time.Second}, func(w *world) {
		let := make(chan struct{})
		a := newPlace("a", func(context.Context, int) error { <-let; return nil })
		b := newPlace("b", nil)
		w.add(a, b)
		w.must(0, 1, fetch.Mirror)
		w.equal("running at a", w.of("a").Running, 1)
		close(let)
		synctest.Wait()
		w.equal("running at a", w.of("a").Running, 0)
		w.equal("wasted", w.of("a").Classes[fetch.Mirror].WastedFrames, 1)
	})
}

func TestTheFasterSourceIsPreferred(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a, b := newPlace("a", takes(20*time.Millisecond)), newPlace("b", takes(time.Millisecond))
		w.add(a, b)
		for i := range 4 { // both at the same time, so that both are measured
			x, y := w.begin(100*i, 1, fetch.Demand), w.begin(100*i+50, 1, fetch.Demand)
			x.must()
			y.must()
		}
		before := a.asks()
		for i := range 20 {
			w.must(1000+2*i, 1, fetch.Demand)
		}
		w.equal("the slower one was asked", a.asks()-before, 0)
	})
}

func TestWhatWasSlowLongAgoGetsAnotherChance(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		a, b := newPlace("a", takes(40*time.Millisecond)), newPlace("b", takes(time.Millisecond))
		w.add(a, b)
		x, y := w.begin(0, 1, fetch.Demand), w.begin(50, 1, fetch.Demand)
		x.must()
		y.must()
		before := a.asks()
		time.Sleep(time.Hour)
		w.must(100, 1, fetch.Demand)
		w.equal("the first to be named was asked", a.asks()-before, 1)
	})
}

func TestAHigherTierIsForWhenTheLowerCannot(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 2, HedgeShare: -1}, func(w *world) {
		origin, peer := newPlace("origin", takes(3*time.Millisecond)), newPlace("peer", takes(10*time.Millisecond))
		origin.profile.Tier = 1
		w.add(origin, peer)
		w.must(0, 200, fetch.Mirror)
		w.equal("bulk of the origin while the peer is busy", origin.asks(), 0)
		bulk := w.begin(200, 200, fetch.Mirror)
		x, y := w.begin(1000, 1, fetch.Demand), w.begin(1010, 1, fetch.Demand)
		x.must()
		y.must()
		w.equal("demand of the origin when the peer has no connection", origin.ranges(), "[1010+1]")
		peer.becomes(says(errRefused))
		bulk.must()
		if origin.frames() < 100 {
			t.Errorf("%d frames came from the origin after the peer had died", origin.frames())
		}
	})
}

func TestAHigherTierThatIsMuchFasterIsAsked(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		origin, peer := newPlace("origin", takes(10*time.Millisecond)), newPlace("peer", takes(3*time.Second))
		origin.profile.Tier = 1
		w.add(peer, origin)
		for i := range 10 {
			w.must(2*i, 1, fetch.Demand)
		}
		if peer.asks() > 2 {
			t.Errorf("the peer was asked %d times", peer.asks())
		}
	})
}

func TestASourceHasTheConnectionsThatItSays(t *testing.T) {
	inWorld(t, fetch.Options{Connections: 2}, func(w *world) {
		a := newPlace("a", takes(time.Second))
		a.profile.Connections = 9
		w.add(a)
		w.must(0, 400, fetch.Mirror)
		w.equal("at the same time", a.peak(), 8)
	})
}

func TestSuccessPaysForRetries(t *testing.T) {
	took := func(share float64) (d time.Duration) {
		inWorld(t, fetch.Options{RetryShare: share, HedgeShare: -1, Backoff: time.Millisecond}, func(w *world) {
			tries := make(map[int]int)
			w.add(newPlace("a", func(_ context.Context, f int) error { // one demand at a time
				if tries[f]++; tries[f] == 1 {
					return errRefused
				}
				return nil
			}))
			start := time.Now()
			for i := range 200 {
				w.must(2*i, 1, fetch.Demand)
			}
			d = time.Since(start)
		})
		return d
	}
	if rich, poor := took(1), took(0.01); rich*2 > poor {
		t.Errorf("with a retry for each success it took %v, with almost none %v", rich, poor)
	}
}

func TestACallThatComesWhileAnObjectIsParkedIsNotForgotten(t *testing.T) {
	inWorld(t, fetch.Options{}, func(w *world) {
		first := w.begin(0, 1, fetch.Demand) // there is no source: until 2 s nothing is tried
		time.Sleep(100 * time.Millisecond)
		first.cancel(nil)
		_ = first.end()
		w.add(newPlace("a", hangs))
		ctx, cancel := context.WithCancel(context.Background())
		w.calls.Go(func() { _ = w.Fetch(ctx, key(1), 0, 1, fetch.Demand, w.shelf.take) }) // the clock is set for its hedge
		time.Sleep(400 * time.Millisecond)
		second := w.begin(0, 1, fetch.Demand)
		w.places[0].becomes(nil)
		second.must()
		if at := time.Since(w.places[0].born); at > 2*time.Second {
			t.Errorf("it was tried after %v", at)
		}
		cancel()
	})
}

func TestWhoLeavesWhileSourcesAreLookedForAsksForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newPlace("a", says(errRefused))
		var slow atomic.Bool
		f := fetch.New(fetch.Options{}, func(fetch.Object) []fetch.Source {
			if slow.Load() {
				time.Sleep(time.Second)
			}
			return []fetch.Source{a}
		})
		defer f.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- f.Fetch(ctx, obj, 0, 1, fetch.Demand, func(int, []byte) error { return nil }) }()
		synctest.Wait()
		slow.Store(true)
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Fetch = %v", err)
		}
		time.Sleep(time.Minute)
		if n := a.asks(); n != 1 {
			t.Errorf("the source was asked %d times", n)
		}
	})
}
