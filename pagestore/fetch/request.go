package fetch

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"
)

// request asks a source for a range. A goroutine runs it; it may be given up (settled) before its source returns, and then only keeps the
// connection.
type request struct {
	f       *Fetcher // immutable, as all up to started
	ob      *object
	source  *source
	impl    Source
	class   Class
	cause   Cause
	first   int
	flights []*flight
	cancel  context.CancelCauseFunc
	look    bool // where the object can be had from is to be asked at the end, whatever has become of it
	started time.Time

	// Protected by Fetcher.mu.

	next    int       // the frame that is due
	wanted  int       // flights that are not over
	waiting time.Time // since when it waits for the source; zero: a call takes a frame
	hedgeAt time.Time // when to ask another source; zero: never
	settled bool
	err     error // why it failed, as far as it is known before the source returns
	again   bool  // the source delivers anew what was wrong

	taken      int
	bytes      int64
	firstFrame time.Duration
	lie        *lie // that it delivered wrong bytes; nil: it did not
}

// startLocked starts a request for a range.
func (f *Fetcher) startLocked(flights []*flight, c *candidate, class Class, why Cause, now time.Time) {
	ctx, cancel := context.WithCancelCause(f.ctx)
	r := &request{
		f: f, ob: flights[0].ob, source: c.source, impl: c.impl, class: class, cause: why, first: flights[0].frame, flights: flights,
		cancel: cancel, look: now.Sub(flights[0].ob.looked) > fresh, started: now, next: flights[0].frame, wanted: len(flights), waiting: now,
	}
	one := []*request{r} // which they share, until one gets a second request
	for _, fl := range flights {
		fl.ready = false
		if len(fl.requests) == 0 {
			fl.requests = one[:1:1]
		} else {
			fl.requests = append(fl.requests, r)
		}
	}
	f.running[r] = struct{}{}
	c.running++
	if class.bulk() {
		c.bulk++
	}
	s := &c.stats[class]
	s.Requests++
	switch why {
	case Retry:
		s.Retries++
	case Hedge:
		s.Hedges++
	case Overtake:
		s.Overtakes++
	}
	f.alarmLocked(now.Add(f.opts.Stall))
	if class == Demand && why != Hedge {
		f.hedges.earn()
		f.watchLocked(r, now)
	}
	f.goroutines.Go(func() { r.run(ctx) })
}

func (r *request) end() int { return r.first + len(r.flights) }

func (r *request) run(ctx context.Context) {
	err := r.impl.Frames(ctx, r.ob.name, r.first, len(r.flights), r.take)
	var sources []found
	if ctx.Err() == nil && (err != nil || r.look) {
		sources = r.f.look(r.ob.name)
	}
	r.cancel(nil)
	e := r.finish(err, sources)
	if r.lie != nil {
		r.f.logLie(r.lie, slog.Int("first", r.first), slog.Int("frames", len(r.flights)))
	}
	if errors.Is(r.err, ErrDiffers) {
		r.f.opts.Log.Warn("a source has another object by the same name and is not asked for it for a while",
			slog.String("source", r.source.name), slog.String("object", r.ob.name.String()), slog.Duration("for", r.f.opts.Aside), slog.Any("err", r.err))
	}
	if r.f.opts.Observe != nil {
		r.f.opts.Observe(e)
	}
}

// finish notes that the source has returned.
func (r *request) finish(err error, sources []found) Event {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	switch {
	case errors.Is(r.err, ErrWrong) && errors.Is(err, ErrDiffers) && !r.settled:
		r.err = err
	case r.err != nil:
		err = r.err // it is what the source was told, or has run into before
	case r.next == r.end():
		err = nil
	case err == nil:
		err = errShort
	}
	if sources != nil {
		r.ob.setCandidates(f, sources, now)
	}
	f.settleLocked(r, err, now)
	r.source.running--
	if r.class.bulk() {
		r.source.bulk--
	}
	f.dispatchLocked(now)
	e := Event{
		Object: r.ob.name, Source: r.source.name, Class: r.class, Cause: r.cause,
		First: r.first, Frames: len(r.flights), Taken: r.taken, Bytes: r.bytes,
		Started: r.started, FirstFrame: r.firstFrame, Took: now.Sub(r.started),
	}
	if !errors.Is(r.err, errUnwanted) {
		e.Err = r.err
	}
	return e
}

// take is what the source delivers to.
func (r *request) take(frame int, content []byte) error {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	fl, err := r.arriveLocked(frame, len(content), now)
	if err != nil {
		r.wasteLocked(len(content))
		return err
	}
	for fl.taking { // another source's bytes
		r.awaitTurnLocked(fl)
	}
	if fl.over {
		r.wasteLocked(len(content))
	} else if taken, _ := r.offerLocked(fl, content); !taken {
		r.wasteLocked(len(content))
	}
	r.waiting = time.Now()
	f.alarmLocked(r.waiting.Add(f.opts.Stall))
	return r.err // it may have been given up meanwhile
}

// arriveLocked notes that a frame has come, and returns its flight. The error says that nobody wants to hear of it.
func (r *request) arriveLocked(frame, size int, now time.Time) (*flight, error) {
	if errors.Is(r.err, ErrWrong) && frame == r.next && !r.again && !r.settled {
		r.err, r.again = nil, true // it had looked in the wrong place
	}
	if r.err != nil {
		return nil, r.err
	}
	if frame != r.next || frame >= r.end() {
		r.err = errOrder
		return nil, r.err
	}
	r.next++
	if frame == r.first && !r.again {
		r.firstFrame = now.Sub(r.started)
		r.source.answered(r.class, r.firstFrame, now)
	} else {
		r.source.perFrame.add(now.Sub(r.waiting).Seconds())
	}
	r.waiting = time.Time{}
	if !r.hedgeAt.IsZero() {
		r.hedgeAt = now.Add(r.source.hedgeAfter(&r.f.opts))
	}
	return r.flights[frame-r.first], nil
}

func (r *request) wasteLocked(size int) {
	s := &r.source.stats[r.class]
	s.WastedFrames++
	s.WastedBytes += uint64(size)
}

// awaitTurnLocked waits, without the lock, until a call is through with the frame that another source has delivered.
func (r *request) awaitTurnLocked(fl *flight) {
	if fl.turn == nil {
		fl.turn = make(chan struct{})
	}
	turn := fl.turn
	r.f.mu.Unlock()
	<-turn
	r.f.mu.Lock()
}

// offerLocked offers a frame to the calls that wait for it, one after the other until one has taken it: without the lock meanwhile. The
// error says that it is wrong.
func (r *request) offerLocked(fl *flight, content []byte) (taken bool, err error) {
	f := r.f
	for !fl.over && len(fl.calls) > 0 {
		c := fl.calls[0]
		err := r.askLocked(c, fl, content)
		now := time.Now()
		switch {
		case err == nil:
			r.takenLocked(fl, len(content), now)
		case errors.Is(err, ErrWrong):
			r.err, r.next = err, fl.frame // the source may say more of it, or deliver it anew
		case !c.over:
			f.endLocked(c, err, now)
		}
		if !fl.over && len(fl.calls) == 0 {
			f.dropLocked(fl, now) // its calls have left while one was asked
		}
		if c.taking--; c.over && c.taking == 0 {
			close(c.done)
		}
		switch {
		case err == nil:
			return true, nil
		case r.err != nil:
			return false, r.err
		}
	}
	return false, nil
}

// askLocked has a call take a frame, without the lock. Its end is the caller's to note.
func (r *request) askLocked(c *call, fl *flight, content []byte) error {
	fl.taking = true
	c.taking++
	r.f.mu.Unlock()
	err := c.deliver(fl.frame, content)
	r.f.mu.Lock()
	fl.taking = false
	if fl.turn != nil {
		close(fl.turn)
		fl.turn = nil
	}
	return err
}

// takenLocked ends a flight: a call has taken its frame.
func (r *request) takenLocked(fl *flight, size int, now time.Time) {
	s := &r.source.stats[r.class]
	s.Frames++
	s.Bytes += uint64(size)
	if r.taken == 0 {
		r.f.retries.earn()
	}
	r.taken++
	r.bytes += int64(size)
	r.ob.delivered(r.source)
	for _, c := range fl.calls {
		if c.missing--; c.missing == 0 {
			c.close(nil)
		}
	}
	fl.calls, fl.taken = nil, true
	if !fl.over {
		r.f.dropLocked(fl, now)
	}
}

// settleLocked gives a request up, or notes its end: it is of no use to its flights any more. nil: it has brought all.
func (f *Fetcher) settleLocked(r *request, err error, now time.Time) {
	if r.settled {
		return
	}
	r.settled = true
	delete(f.running, r)
	if r.err == nil {
		r.err = err
	}
	r.cancel(r.err)
	s := &r.source.stats[r.class]
	if r.cause == Hedge {
		if r.taken > 0 {
			s.HedgesWon++
		} else {
			s.HedgesWasted++
		}
	}
	unwanted := errors.Is(r.err, errUnwanted)
	if r.next == r.first && (unwanted && r.overtaken() || errors.Is(r.err, errStalled)) {
		r.source.silent(now.Sub(r.started), now)
	}
	if r.err == nil || unwanted || f.closed {
		return
	}
	kind := kindOf(r.err)
	s.Errors[kind]++
	r.source.failed(kind, r.err, &f.opts, now)
	switch kind {
	case NotHere:
		r.ob.missed(r.source, r.err, &f.opts, now)
	case Differs:
		r.ob.differs(r.source, &f.opts, now)
	case Wrong:
		r.lie = f.liedLocked(r.ob, r.source, r.err, now)
	}
	f.againLocked(r, kind, now)
}

// overtaken reports whether another request has brought what this one was to bring, sooner.
func (r *request) overtaken() bool {
	return r.cause != Hedge && slices.ContainsFunc(r.flights, func(fl *flight) bool { return fl.taken && fl.hedged })
}

// againLocked has the flights of a request that failed asked for again: at once if there is a source that has not failed as often, else
// when they have rested.
func (f *Fetcher) againLocked(r *request, kind Kind, now time.Time) {
	var until time.Time // the same for all, so that they stay together
	for _, fl := range r.flights {
		if fl.over {
			continue
		}
		fl.requests = without(fl.requests, r)
		fl.note(r.source, r.err)
		fl.again, fl.paid = true, kind != NotHere
		if len(fl.requests) > 0 && r.cause == Hedge {
			fl.hedged = false // it may have another
			f.watchLocked(fl.requests[0], now)
		}
		if len(fl.requests) > 0 || fl.ready {
			continue
		}
		fl.hedged = false
		if fl.ob.hasAnother(fl, now) {
			f.readyLocked(fl)
			continue
		}
		fl.round++
		if until.IsZero() {
			until = now.Add(f.backoff(fl))
		}
		f.restLocked(fl, until)
	}
}

// hasAnother reports whether a source can be asked that has not failed as often as others.
func (ob *object) hasAnother(fl *flight, now time.Time) bool {
	for _, c := range ob.candidates {
		if !now.Before(ob.barred(c.source, now)) && fl.fails(c.source) <= fl.round {
			return true
		}
	}
	return false
}
