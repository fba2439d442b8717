package tier

import (
	"errors"
	"fmt"
	"time"
)

// Errors of [Shelf.Prepare].
var (
	// ErrRoom: ShelfOptions.MadeBytes has no room for it as long as what is there stays.
	ErrRoom = errors.New("no room among what is made for peers")
	// ErrTooLarge: it would take more than MadeBytes by itself. It is an ErrRoom.
	ErrTooLarge = fmt.Errorf("%w: it is more than all of that", ErrRoom)
)

// askedAgain is for how long what was asked for is not given up for what is prepared: others are likely to ask for it, too. Not measured: most of a
// fleet that restores one snapshot does so within an hour.
const askedAgain = time.Hour

// last is when an offer was used last, as far as that says how likely it is to be asked for. The caller holds Shelf.mu.
func (o *offer) last() time.Time {
	if o.asked.IsZero() || o.since.After(o.asked) {
		return o.since
	}
	return o.asked
}

// idle reports whether an offer may go. The caller holds Shelf.mu.
func (o *offer) idle() bool { return o.users == 0 && o.bytes > 0 }

// before reports whether an offer goes before another one that may. The caller holds Shelf.mu.
func (o *offer) before(other *offer) bool {
	if prepared := o.asked.IsZero(); prepared != other.asked.IsZero() {
		return prepared
	}
	return o.last().Before(other.last())
}

// yieldsLocked reports whether an offer may go for one that is prepared.
func (s *Shelf) yieldsLocked(o, to *offer) bool {
	return o != to && o.idle() && o.last().Before(to.last()) && s.now().Sub(o.asked) > askedAgain
}

// grow counts what was made for an offer, with which it may be whole, and drops others if it is too much. If these are not enough, what was
// prepared, and nobody asks for, has to go itself: that is an [ErrRoom].
func (s *Shelf) grow(o *offer, n int64, whole, prepared bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.bytes += n
	o.whole = whole
	s.made += n
	if !prepared || o.urgent.Load() {
		s.shrinkLocked(s.opts.MadeBytes, (*offer).idle)
		return nil
	}
	if !s.shrinkLocked(s.opts.MadeBytes, func(other *offer) bool { return s.yieldsLocked(other, o) }) {
		s.dropLocked(o)
		return ErrRoom
	}
	return nil
}

// shrinkLocked drops offers until what was made takes so many bytes, and reports whether it does. Which may go says may.
func (s *Shelf) shrinkLocked(limit int64, may func(*offer) bool) bool {
	for s.made > limit {
		var first *offer
		for _, o := range s.offers {
			if may(o) && (first == nil || o.before(first)) {
				first = o
			}
		}
		if first == nil {
			return false
		}
		s.pushed++
		s.dropLocked(first)
	}
	return true
}
