package fetch

import (
	"slices"
	"time"
)

const (
	// scanObjects and scanFlights bound how many are looked at that cannot start.
	scanObjects, scanFlights = 64, 32
	// bulkGuess is the range that bulk is ranked by: there, throughput counts more than the first frame.
	bulkGuess = 16
	// bulkBegin is the range that bulk begins with: 1 MiB. Who asks for bulk wants all of it, so that nothing is brought in vain; and of short runs, which began
	// with one frame, a restore from a peer had 600 requests for its first 1,500 frames, with half a millisecond of a CPU for each.
	bulkBegin = 8
)

// outcome is what became of trying to start something.
type outcome int

const (
	nothing outcome = iota // is ready
	started
	blocked // by connections that are in use
	parked  // no source can be asked for a while
	tired   // this frame has to rest: those that can be asked have failed
)

// dispatchLocked starts what can start, by class. Nothing of a class starts while something of a faster one waits for a connection.
func (f *Fetcher) dispatchLocked(now time.Time) {
	if f.closed {
		return
	}
	for class := range classes {
		if f.startClassLocked(class, now) == blocked {
			return
		}
	}
}

// startClassLocked starts what can start of a class. Objects take turns.
func (f *Fetcher) startClassLocked(class Class, now time.Time) outcome {
	ring := f.ready[class]
	if len(ring) == 0 {
		return nothing
	}
	var kept []*object
	result, looks := nothing, 0
	for len(ring) > 0 && looks < scanObjects {
		ob := ring[0]
		n := copy(ring, ring[1:])
		ring[n] = nil
		ring = ring[:n]
		switch f.startOneLocked(ob, class, now) {
		case started:
			ring = append(ring, ob)
		case nothing:
			ob.listed[class] = false
		case blocked:
			result = blocked
			fallthrough
		default:
			looks++
			kept = append(kept, ob)
		}
	}
	f.ready[class] = append(ring, kept...) // those that were not looked at come first the next time
	return result
}

// startOneLocked starts one range of an object.
func (f *Fetcher) startOneLocked(ob *object, class Class, now time.Time) outcome {
	q := &ob.ready[class]
	q.trim(class)
	if q.head == len(q.flights) {
		return nothing
	}
	if now.Before(ob.parked) {
		f.alarmLocked(ob.parked)
		return parked
	}
	result, looks := nothing, 0
	for i := q.head; i < len(q.flights) && looks < scanFlights; i++ {
		fl := q.flights[i]
		if fl == nil || !fl.readyIn(class) {
			continue
		}
		where, what := f.pickLocked(fl, class, nil, now)
		switch what {
		case started:
			if wait := f.payLocked(fl, now); wait > 0 {
				f.restLocked(fl, now.Add(wait))
				continue
			}
			f.startLocked(f.rangeLocked(fl, where.source), where, class, cause(fl), now)
			return started
		case blocked:
			result = blocked
			looks++
		case parked:
			return parked
		case tired:
			fl.round++
			f.restLocked(fl, now.Add(f.backoff(fl)))
		}
	}
	return result
}

// cause says why a flight that is ready is asked for.
func cause(fl *flight) Cause {
	switch {
	case len(fl.requests) > 0:
		return Overtake
	case fl.again:
		return Retry
	default:
		return First
	}
}

// payLocked takes a retry out of the budget, or returns how long there is none.
func (f *Fetcher) payLocked(fl *flight, now time.Time) time.Duration {
	if !fl.paid {
		return 0
	}
	return f.retries.take(now)
}

// restLocked has a flight rest. It is not ready then.
func (f *Fetcher) restLocked(fl *flight, until time.Time) {
	fl.ready, fl.rests = false, until
	if len(fl.requests) > 0 {
		fl.rests = time.Time{} // it was to overtake a request that still runs
		return
	}
	f.resting = append(f.resting, fl)
	f.alarmLocked(until)
}

func (f *Fetcher) backoff(fl *flight) time.Duration {
	return f.opts.jittered(doubled(f.opts.Backoff, f.opts.MaxBackoff, fl.round))
}

// rangeLocked returns the flights of a range that begins with one and is asked of a source: those that follow, are ready in the same class,
// and have fared alike.
func (f *Fetcher) rangeLocked(fl *flight, s *source) []*flight {
	begin, limit := bulkBegin, f.opts.MaxFrames
	if fl.class == Demand {
		begin, limit = 1, f.opts.MaxDemandFrames
	}
	size := fl.ob.rangeSize(fl.frame, begin, limit)
	all := append(make([]*flight, 0, size), fl)
	for len(all) < size {
		next := fl.ob.flights[fl.frame+len(all)]
		if next == nil || !next.readyIn(fl.class) || cause(next) != cause(fl) || next.fails(s) != fl.fails(s) {
			break
		}
		all = append(all, next)
	}
	fl.ob.noteRange(fl.frame, len(all), size)
	return all
}

// pickLocked returns the source to ask for a flight, but for those that without says.
func (f *Fetcher) pickLocked(fl *flight, class Class, without func(*source) bool, now time.Time) (*candidate, outcome) {
	frames := 1
	if class.bulk() {
		frames = bulkGuess
	}
	var (
		guess  = fl.ob.guess(frames, now)
		best   choice // of all
		within choice // of those of its tier that have a connection, by what runs there, too
		beyond choice // of those of other tiers
		failed bool
		until  = now.Add(f.opts.MaxBackoff)
		usable [maxUsable]choice
		n      int
	)
	for i := range fl.ob.candidates {
		c := &fl.ob.candidates[i]
		if t := fl.ob.barred(c.source, now); now.Before(t) {
			until = earlier(until, t)
			continue
		}
		if fl.fails(c.source) > fl.round {
			failed = true
			continue
		}
		if n == maxUsable || without != nil && without(c.source) {
			continue
		}
		usable[n] = choice{c, c.score(frames, guess, now)}
		best.improve(usable[n])
		n++
	}
	for _, u := range usable[:n] {
		u.score *= float64(1 + u.running)
		switch {
		case !u.room(class):
		case u.tier == best.tier:
			within.improve(u)
		case class == Demand:
			beyond.improve(u)
		}
	}
	switch {
	case within.candidate != nil:
		return within.candidate, started
	case beyond.candidate != nil:
		return beyond.candidate, started
	case best.candidate != nil:
		return nil, blocked
	case failed:
		return nil, tired
	case without != nil:
		return nil, nothing
	}
	fl.ob.parked = until
	f.alarmLocked(until)
	return nil, parked
}

// maxUsable bounds the sources that are weighed for one request: the first to be named.
const maxUsable = 16

// choice is a candidate and how good it is: less is better.
type choice struct {
	*candidate
	score float64
}

func (c *choice) improve(by choice) {
	if c.candidate == nil || by.score < c.score {
		*c = by
	}
}

// barred returns until when a source is not to be asked for the object, for whatever reason. One that is set aside is asked when all others are barred: what it
// delivers is checked, and it may be the only one that has the object.
func (ob *object) barred(s *source, now time.Time) time.Time {
	until := ob.unable(s)
	if now.Before(s.aside.until) && slices.ContainsFunc(ob.candidates, func(c candidate) bool {
		return !now.Before(c.aside.until) && !now.Before(ob.unable(c.source))
	}) {
		return later(until, s.aside.until)
	}
	return until
}

// distrusted returns until when wrong bytes of a source count, whether they were of this object or of others.
func (ob *object) distrusted(s *source) time.Time {
	return later(s.aside.until, ob.absent[s].wrong.until)
}

// unable is barred but for what is thought of the source because of other objects.
func (ob *object) unable(s *source) time.Time {
	a := ob.absent[s]
	return later(s.restUntil, later(a.until, a.wrong.until))
}

// guess is what sources are taken to be of which nothing is known: as good as the best of the others, so that they are asked when it has
// something to do.
type guess struct{ cost, each float64 }

func (ob *object) guess(frames int, now time.Time) guess {
	const unknown = 1e-3
	var each, cost average
	for _, c := range ob.candidates {
		if c.perFrame.any && (!each.any || c.perFrame.value < each.value) {
			each = c.perFrame
		}
	}
	for _, c := range ob.candidates {
		if v, ok := c.cost(frames, each.value, now); ok && (!cost.any || v < cost.value) {
			cost = average{v, true}
		}
	}
	if !cost.any {
		cost.value = unknown
	}
	return guess{cost.value, each.value}
}

// score ranks a candidate, without what runs there: less is better.
func (c *candidate) score(frames int, g guess, now time.Time) float64 {
	v, ok := c.cost(frames, g.each, now)
	if !ok {
		v = g.cost
	}
	for range c.tier {
		v *= tierWeight
	}
	return v * c.unreliable(now)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
