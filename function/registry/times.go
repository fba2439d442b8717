package registry

import (
	"fmt"
	"slices"
	"time"
)

// keepTimes is how many of the last times are kept: enough for a median that one slow disk does not move, and few enough to be written
// with each boot. Part of the format: a file with more is refused.
const keepTimes = 63

// Times are how long boots took. The zero value is none.
type Times struct {
	Count  uint64          `json:"count"`            // all that there were
	Recent []time.Duration `json:"recent,omitempty"` // the last ones, in nanoseconds, the oldest first
}

// Add notes one more.
func (t *Times) Add(d time.Duration) {
	t.Count++
	t.Recent = append(t.Recent, max(d, 0))
	if n := len(t.Recent) - keepTimes; n > 0 {
		t.Recent = slices.Delete(t.Recent, 0, n)
	}
}

// Median returns the median of the last ones: the lower one of two. ok is false if there is none. t may be nil.
func (t *Times) Median() (d time.Duration, ok bool) {
	if t == nil || len(t.Recent) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(t.Recent))
	return sorted[(len(sorted)-1)/2], true
}

func (t *Times) check() error {
	if len(t.Recent) > keepTimes || uint64(len(t.Recent)) > t.Count {
		return fmt.Errorf("%d times of %d", len(t.Recent), t.Count)
	}
	for _, d := range t.Recent {
		if d < 0 {
			return fmt.Errorf("time of %v", d)
		}
	}
	return nil
}
