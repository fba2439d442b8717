package fetch

import (
	"errors"
	"slices"
	"time"
)

// streamCount is how many streams of an object are told apart: restores of one snapshot that are at different places.
const streamCount = 8

// object is what is known of an Object. All of it is protected by Fetcher.mu.
type object struct {
	name       Object
	candidates []candidate
	looked     time.Time           // when candidates were asked for
	absent     map[*source]absence // sources that do not have it, or not all of it, or have it wrong

	flights map[int]*flight
	ready   [classes]queue
	listed  [classes]bool // in Fetcher.ready
	parked  time.Time     // no source can be asked before

	streams [streamCount]stream
	oldest  int

	idle     int // times it is in Fetcher.idle
	entering int // calls that are being entered
}

// absence is what is known of a source that does not have an object, or not all of it, or has it wrong.
type absence struct {
	until  time.Time // it is not asked for any of it
	misses int       // in a row: requests for frames that it did not have
	wrong  distrust  // it is not asked for any of it, either
}

// freeMisses is how many misses in a row cost a source nothing: who holds parts of an object often does not hold the one that is asked for.
const freeMisses = 3

// missed notes that a source did not have what it was asked for.
func (ob *object) missed(s *source, err error, o *Options, now time.Time) {
	a := ob.absent[s]
	if errors.Is(err, ErrNotYet) {
		if a.misses++; a.misses > freeMisses {
			a.until = now.Add(doubled(o.Backoff, o.Forget, a.misses-freeMisses))
		}
	} else {
		a.until = now.Add(o.Forget)
	}
	ob.absent[s] = a
}

// differs notes that a source has another object by that name.
func (ob *object) differs(s *source, o *Options, now time.Time) {
	a := ob.absent[s]
	a.until = now.Add(o.Aside)
	ob.absent[s] = a
}

// lied notes that a source has delivered wrong bytes of it.
func (ob *object) lied(s *source, o *Options, now time.Time) {
	a := ob.absent[s]
	a.wrong.add(o, now)
	ob.absent[s] = a
}

// delivered notes that a source has some of it. That other bytes of it were wrong still counts.
func (ob *object) delivered(s *source) {
	if a := ob.absent[s]; a.wrong.times > 0 {
		ob.absent[s] = absence{wrong: a.wrong}
	} else {
		delete(ob.absent, s)
	}
}

// candidate is a source that an object can be had from.
type candidate struct {
	*source
	impl Source
	tier int
}

func (ob *object) candidate(s *source) *candidate {
	for i := range ob.candidates {
		if ob.candidates[i].source == s {
			return &ob.candidates[i]
		}
	}
	return nil
}

// stream is where a range has ended, and how long it was.
type stream struct{ next, size int }

// rangeSize returns how long a range may be that begins with a frame: begin frames, or twice what the one had that it goes on from.
func (ob *object) rangeSize(first, begin, limit int) int {
	for _, s := range ob.streams {
		if s.size > 0 && s.next == first {
			return min(2*s.size, limit)
		}
	}
	return min(begin, limit)
}

// noteRange notes that a range is asked for, which could have had size frames.
func (ob *object) noteRange(first, n, size int) {
	i := slices.IndexFunc(ob.streams[:], func(s stream) bool { return s.size > 0 && s.next == first })
	if i < 0 {
		i = ob.oldest
		ob.oldest = (ob.oldest + 1) % streamCount
	}
	ob.streams[i] = stream{next: first + n, size: size}
}

// flight is a frame that somebody waits for. All of it is protected by Fetcher.mu.
//
// INVARIANT: unless it is over, it is in its object's flights, and one of these holds: it is ready (in the queue of its class), it is asked
// for (requests is not empty), it rests (in Fetcher.resting).
type flight struct {
	ob    *object
	frame int
	class Class // the most urgent of its calls
	over  bool  // taken, or nobody waits any more
	taken bool  // by a call
	ready bool
	rests time.Time // until when; zero: it does not

	calls    []*call
	requests []*request
	hedged   bool

	taking bool          // a call is taking it
	turn   chan struct{} // closed when that has ended; nil: nobody waits for that

	tries []try
	round int  // how often all sources have failed
	again bool // a request has failed: the next one is a retry
	paid  bool // which the budget has to allow
}

// try is what became of asking a source for a frame.
type try struct {
	source *source
	fails  int
	err    error // the last
}

func (fl *flight) tried(s *source) *try {
	for i := range fl.tries {
		if fl.tries[i].source == s {
			return &fl.tries[i]
		}
	}
	return nil
}

func (fl *flight) fails(s *source) int {
	if t := fl.tried(s); t != nil {
		return t.fails
	}
	return 0
}

func (fl *flight) note(s *source, err error) {
	t := fl.tried(s)
	if t == nil {
		fl.tries = append(fl.tries, try{source: s})
		t = &fl.tries[len(fl.tries)-1]
	}
	t.fails++
	t.err = err
}

func (fl *flight) waitsFor(c *call) bool { return slices.Contains(fl.calls, c) }

func (fl *flight) askedOf(s *source) bool {
	return slices.ContainsFunc(fl.requests, func(r *request) bool { return r.source == s })
}

// call is one call of Fetch.
type call struct {
	ob       *object // immutable, as the next four
	first, n int
	class    Class
	deliver  Deliver
	done     chan struct{} // closed when the call is over and its function does not run

	// Protected by Fetcher.mu.

	missing int // frames
	taking  int // its function runs as often
	over    bool
	err     error // set when it is over
}

// close ends a call. Its flights have forgotten it, or do so now.
func (c *call) close(err error) {
	c.over, c.err = true, err
	if c.taking == 0 {
		close(c.done)
	}
}

// queue has flights, the first to come first. One that is raised, dropped or asked for in the course of a range stays where it is, and is
// passed over later.
type queue struct {
	flights []*flight
	head    int
}

func (q *queue) push(fl *flight) {
	if q.head > 0 && q.head*2 >= len(q.flights) {
		n := copy(q.flights, q.flights[q.head:])
		clear(q.flights[n:])
		q.flights, q.head = q.flights[:n], 0
	}
	q.flights = append(q.flights, fl)
}

// trim passes over what is not ready, in this class, at the beginning.
func (q *queue) trim(class Class) {
	for q.head < len(q.flights) && !q.flights[q.head].readyIn(class) {
		q.flights[q.head] = nil
		q.head++
	}
}

func (fl *flight) readyIn(class Class) bool { return fl.ready && fl.class == class }

// without returns a list without one of its elements. The list stays as it is: others may share it.
func without[T comparable](list []T, v T) []T {
	if len(list) == 1 && list[0] == v {
		return nil
	}
	shorter := make([]T, 0, len(list))
	for _, w := range list {
		if w != v {
			shorter = append(shorter, w)
		}
	}
	return shorter
}
