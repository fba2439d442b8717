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
	}{
		"all here":       {&session{origin: &origin{}}, opts.Hold},
		"partly here":    {&session{origin: &origin{partly: true}}, opts.HoldFar},
		"recorded":       {&session{origin: &origin{}, record: &recording{}}, recordHold},
		"recorded, stub": {&session{origin: &origin{partly: true}, record: &recording{}}, recordHold},
	} {
		if got := c.s.hold(&opts); got != c.want {
			t.Errorf("%s: held for %v at most, want %v", name, got, c.want)
		}
	}
}
