package fleet

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// Random events are made, moved and cancelled, beside a list that is sorted.
func TestClockRunsEventsInOrderAndCancelledOnesNever(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var c clock
	type expected struct {
		at float64
		n  int
	}
	var want []expected
	var got []int
	events := make(map[int]*event)
	for n := range 5000 {
		at := float64(r.IntN(500))
		want = append(want, expected{at, n})
		events[n] = c.after(at, func() { got = append(got, n) })
		if victim := r.IntN(n + 1); events[victim] != nil && r.IntN(4) == 0 {
			i := slices.IndexFunc(want, func(e expected) bool { return e.n == victim })
			if r.IntN(2) == 0 {
				c.cancel(events[victim])
				c.cancel(events[victim]) // twice does no harm
				want = slices.Delete(want, i, i+1)
				delete(events, victim)
			} else {
				want[i].at = float64(r.IntN(500))
				c.move(events[victim], want[i].at)
			}
		}
	}
	slices.SortFunc(want, func(a, b expected) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n)) })
	for c.step() {
	}
	if len(got) != len(want) {
		t.Fatalf("%d events ran, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i].n {
			t.Fatalf("event %d ran as number %d, want %d", got[i], i, want[i].n)
		}
	}
}
