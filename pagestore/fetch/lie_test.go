package fetch_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore/fetch"
)

// spoiled is a place where some objects are damaged.
type spoiled struct {
	*place
	bad map[fetch.Object]bool
}

func (s *spoiled) Frames(ctx context.Context, o fetch.Object, first, n int, deliver func(int, []byte) error) error {
	return s.place.Frames(ctx, o, first, n, func(frame int, b []byte) error {
		if s.bad[o] {
			b = wrong(frame, b)
		}
		return deliver(frame, b)
	})
}

func newSpoiled(name string, bad ...fetch.Object) *spoiled {
	s := &spoiled{newPlace(name, nil), make(map[fetch.Object]bool)}
	for _, o := range bad {
		s.bad[o] = true
	}
	return s
}

// amidst runs a test with a Fetcher over sources that have all objects. get fetches a frame, and gives up after ten seconds.
func amidst(t *testing.T, opts fetch.Options, f func(t *testing.T, f *fetch.Fetcher, get func(o fetch.Object, frame int) error), sources ...fetch.Source) {
	t.Helper()
	f1 := fetch.New(opts, func(fetch.Object) []fetch.Source { return sources })
	defer f1.Close()
	f(t, f1, func(o fetch.Object, frame int) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return f1.Fetch(ctx, o, frame, 1, fetch.Demand, newShelf(t, o).take)
	})
}

func setAside(f *fetch.Fetcher, name string) (lies uint64, left time.Duration) {
	for _, s := range f.Stats().Sources {
		if s.Source == name && !s.SetAside.IsZero() {
			return s.Lies, time.Until(s.SetAside)
		} else if s.Source == name {
			return s.Lies, 0
		}
	}
	return 0, 0
}

func TestDamagedObjectsInTheOnlyPlaceCostOthersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSpoiled("a", key(1), key(2), key(3))
		amidst(t, fetch.Options{}, func(t *testing.T, f *fetch.Fetcher, get func(fetch.Object, int) error) {
			for n := range uint64(3) {
				if err := get(key(n+1), 0); !errors.Is(err, fetch.ErrWrong) {
					t.Errorf("a damaged object: %v", err)
				}
				before := time.Now()
				if err := get(key(n+100), 0); err != nil {
					t.Errorf("another object, after %d damaged ones: %v", n+1, err)
				}
				if took := time.Since(before); took > time.Second {
					t.Errorf("another object came after %v", took)
				}
			}
			if lies, _ := setAside(f, "a"); lies != 3 {
				t.Errorf("%d lies are counted, want 3", lies)
			}
		}, a)
	})
}

func TestASourceThatLiesAboutSeveralObjectsIsSetAsideWhileThereIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		liar, other := newSpoiled("liar", key(1), key(2)), newPlace("other", nil)
		other.profile.Tier = 1
		amidst(t, fetch.Options{}, func(t *testing.T, f *fetch.Fetcher, get func(fetch.Object, int) error) {
			must := func(n uint64) {
				t.Helper()
				if err := get(key(n), 0); err != nil {
					t.Fatal(err)
				}
			}
			must(1)
			must(100)
			if _, left := setAside(f, "liar"); left != 0 || liar.asks() != 2 {
				t.Errorf("after one object it is set aside for %v, and was asked %d times", left, liar.asks())
			}
			must(2)
			if lies, left := setAside(f, "liar"); lies != 2 || left <= 0 || left > time.Minute {
				t.Errorf("after %d lies it is set aside for %v", lies, left)
			}
			must(101)
			if liar.asks() != 3 {
				t.Errorf("it was asked %d times although it is set aside", liar.asks())
			}
			other.becomes(says(fetch.ErrNotHere))
			must(102) // which nobody else has
			time.Sleep(time.Minute)
			other.becomes(nil)
			must(103)
			if liar.asks() != 5 {
				t.Errorf("after its time it was asked %d times, want 5", liar.asks())
			}
		}, liar, other)
	})
}

func TestLiesOfLongAgoAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		liar, other := newSpoiled("liar", key(1), key(2), key(3), key(4), key(5), key(6)), newPlace("other", nil)
		other.profile.Tier = 1
		amidst(t, fetch.Options{}, func(t *testing.T, f *fetch.Fetcher, get func(fetch.Object, int) error) {
			lie := func(n uint64) time.Duration {
				t.Helper()
				if err := get(key(n), 0); err != nil {
					t.Fatal(err)
				}
				_, left := setAside(f, "liar")
				return left.Round(time.Minute)
			}
			got := []time.Duration{lie(1), lie(2)}
			time.Sleep(2 * time.Minute)
			got = append(got, lie(3))
			time.Sleep(3 * time.Hour)
			got = append(got, max(0, lie(4)), lie(5))
			want := []time.Duration{0, time.Minute, 2 * time.Minute, 0, time.Minute}
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("set aside for %v, want %v", got, want)
				}
			}
		}, liar, other)
	})
}

// mistaken is a place that looks in the wrong place first, and finds that out when it is told that the bytes are wrong.
type mistaken struct {
	*place
	times int // that it looks in the wrong place
}

func (m *mistaken) Frames(ctx context.Context, o fetch.Object, first, n int, deliver func(int, []byte) error) error {
	for range m.times {
		if err := deliver(first, wrong(first, make([]byte, frameSize))); err == nil {
			return nil
		}
	}
	return m.place.Frames(ctx, o, first, n, deliver)
}

func TestASourceMayDeliverAnewWhatWasWrongOnce(t *testing.T) {
	for times, good := range map[int]bool{1: true, 2: false} {
		synctest.Test(t, func(t *testing.T) {
			m := &mistaken{newPlace("a", nil), times}
			amidst(t, fetch.Options{}, func(t *testing.T, f *fetch.Fetcher, get func(fetch.Object, int) error) {
				err := get(obj, 3)
				synctest.Wait()
				lies, _ := setAside(f, "a")
				if good && (err != nil || lies != 0) || !good && (!errors.Is(err, fetch.ErrWrong) || lies != 1) {
					t.Errorf("wrong %d times: %v, %d lies", times, err, lies)
				}
			}, m)
		})
	}
}

func TestLiesToOthersCountAndSayWhomToAsk(t *testing.T) {
	liar, other := newPlace("liar", nil), newPlace("other", nil)
	amidst(t, fetch.Options{}, func(t *testing.T, f *fetch.Fetcher, _ func(fetch.Object, int) error) {
		trusted := func(n uint64, sources ...fetch.Source) (names string) {
			for _, s := range f.Trusted(key(n), sources) {
				names += s.String() + " "
			}
			return names
		}
		want := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s: asks %q, want %q", what, got, want)
			}
		}
		want("nothing is known", trusted(1, liar, other), "liar other ")
		f.Lied(liar, key(1), fetch.ErrWrong)
		want("the object of the lie", trusted(1, liar, other), "other ")
		want("another object", trusted(2, liar, other), "liar other ")
		f.Lied(liar, key(2), fetch.ErrWrong)
		want("after lies about two, a third", trusted(3, liar, other), "other ")
		want("a third that nobody else has", trusted(3, liar), "liar ")
		want("the first that nobody else has", trusted(1, liar), "")
		if lies, aside := setAside(f, "liar"); lies != 2 || aside <= 0 {
			t.Errorf("%d lies, set aside for %v", lies, aside)
		}
	})
}
