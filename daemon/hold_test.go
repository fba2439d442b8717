package daemon

import (
	"testing"
	"time"
)

func TestHoldDependsOnWherePagesAre(t *testing.T) {
	opts := Options{Hold: 30 * time.Millisecond, HoldFar: time.Second}
	for name, c := range map[string]struct {
		s    *session
		want time.Duration
		on   bool // longer, while pages come
	}{
		"all here":       {&session{origin: &origin{}}, opts.Hold, false},
		"partly here":    {&session{origin: &origin{partly: true}}, opts.HoldFar, true},
		"recorded":       {&session{origin: &origin{}, record: &recording{}}, recordHold, false},
		"recorded, stub": {&session{origin: &origin{partly: true}, record: &recording{}}, recordHold, false},
	} {
		if got := c.s.holdRate() > 0; got != c.on {
			t.Errorf("%s: held on while pages come: %v, want %v", name, got, c.on)
		}
		if got := c.s.hold(&opts); got != c.want {
			t.Errorf("%s: held for %v at most, want %v", name, got, c.want)
		}
	}
}
