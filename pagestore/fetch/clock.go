package fetch

import "time"

// watchClock is the goroutine that does what is due at some time: stalls, hedges, the end of rests.
func (f *Fetcher) watchClock() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-f.wake:
		case <-timer.C:
		}
		if next := f.tick(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// alarmLocked has the clock look at what is due at t.
func (f *Fetcher) alarmLocked(t time.Time) {
	if !f.nextAlarm.IsZero() && !t.Before(f.nextAlarm) {
		return
	}
	f.nextAlarm = t
	select {
	case f.wake <- struct{}{}:
	default: // it has been told, and has not looked yet
	}
}

// tick does what is due, and returns when it is to be called again.
func (f *Fetcher) tick() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.closed || f.nextAlarm.IsZero() || now.Before(f.nextAlarm) {
		return f.nextAlarm
	}
	for r := range f.running {
		if !r.waiting.IsZero() && now.Sub(r.waiting) >= f.opts.Stall {
			f.settleLocked(r, errStalled, now)
		}
	}
	rested, objects := f.restedLocked(now)
	f.lookAgainLocked(objects)
	now = time.Now()
	for _, fl := range rested {
		if !fl.over && !fl.ready && len(fl.requests) == 0 {
			f.readyLocked(fl)
		}
	}
	for r := range f.running {
		if !r.hedgeAt.IsZero() && !now.Before(r.hedgeAt) {
			f.hedgeLocked(r, now)
		}
	}
	f.dispatchLocked(now)
	f.nextAlarm = f.nextLocked()
	return f.nextAlarm
}

// restedLocked takes the flights that have rested enough, and returns the objects whose sources may have changed meanwhile, too.
func (f *Fetcher) restedLocked(now time.Time) (rested []*flight, objects map[*object]bool) {
	objects = make(map[*object]bool)
	resting := f.resting[:0]
	for _, fl := range f.resting {
		switch {
		case fl.over:
		case now.Before(fl.rests):
			resting = append(resting, fl)
		default:
			rested = append(rested, fl)
			objects[fl.ob] = true
		}
	}
	clear(f.resting[len(resting):])
	f.resting = resting
	for _, ring := range f.ready {
		for _, ob := range ring {
			if !ob.parked.IsZero() && !now.Before(ob.parked) {
				objects[ob] = true
			}
		}
	}
	return rested, objects
}

// lookAgainLocked asks where objects can be had from, without the lock meanwhile.
func (f *Fetcher) lookAgainLocked(objects map[*object]bool) {
	for ob := range objects {
		f.mu.Unlock()
		found := f.look(ob.name)
		f.mu.Lock()
		ob.setCandidates(f, found, time.Now())
	}
}

// hedgeLocked asks another source for frames that a process waits for, if there is one and the budget allows it, else later.
func (f *Fetcher) hedgeLocked(r *request, now time.Time) {
	r.hedgeAt = time.Time{}
	late := f.lateLocked(r)
	if len(late) == 0 {
		return
	}
	// Later each time: a source that stalls would have us look every millisecond.
	again := now.Add(max(r.source.hedgeAfter(&f.opts), now.Sub(r.started)))
	if r.waiting.IsZero() {
		r.hedgeAt = again // it is not the source that takes so long
		return
	}
	c, what := f.pickLocked(late[0], Demand, late[0].askedOf, now)
	if what == nothing { // there is no other: another connection may do better
		c, what = f.pickLocked(late[0], Demand, func(*source) bool { return false }, now)
	}
	if what != started || f.hedges.take(now) > 0 {
		r.hedgeAt = again
		return
	}
	for _, fl := range late {
		fl.hedged = true
	}
	f.startLocked(late, c, Demand, Hedge, now)
}

// lateLocked returns the next frames of a request that processes wait for and that nobody else has been asked for.
func (f *Fetcher) lateLocked(r *request) []*flight {
	var late []*flight
	for _, fl := range r.flights[r.next-r.first:] {
		switch wanted := !fl.over && fl.class == Demand && !fl.hedged && !fl.ready; {
		case wanted && len(late) < f.opts.MaxDemandFrames:
			late = append(late, fl)
		case len(late) > 0:
			return late
		}
	}
	return late
}

// watchLocked has a request hedged if it takes too long.
func (f *Fetcher) watchLocked(r *request, now time.Time) {
	if !r.hedgeAt.IsZero() {
		return
	}
	r.hedgeAt = now.Add(r.source.hedgeAfter(&f.opts))
	f.alarmLocked(r.hedgeAt)
}

// nextLocked returns when something is due next.
func (f *Fetcher) nextLocked() time.Time {
	var next time.Time
	due := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for r := range f.running {
		due(r.hedgeAt)
		if !r.waiting.IsZero() {
			due(r.waiting.Add(f.opts.Stall))
		}
	}
	for _, fl := range f.resting {
		due(fl.rests)
	}
	for _, ring := range f.ready {
		for _, ob := range ring {
			due(ob.parked)
		}
	}
	return next
}
