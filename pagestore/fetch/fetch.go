package fetch

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

const (
	// fresh is for how long the list of an object's sources is used without asking for it again, if none fails.
	fresh = time.Second
	// idleObjects is how many objects are remembered that nobody wants anything of.
	idleObjects = 256
	// joinAtOnce is how many frames of a call are entered before others get the lock.
	joinAtOnce = 512
	// retryBurst and retryRate are the retries there may be at once, and for each second whatever else happens.
	retryBurst, retryRate = 32, 10
	// hedgeBurst is the hedges there may be at once.
	hedgeBurst = 8
)

// A Fetcher brings frames. It is safe for concurrent use.
type Fetcher struct {
	opts   Options                 // immutable
	lookup func(o Object) []Source // immutable
	ctx    context.Context         // ends with Close; immutable
	end    context.CancelFunc      // immutable

	goroutines sync.WaitGroup
	wake       chan struct{} // tells the clock that nextAlarm has changed; has room for one

	mu sync.Mutex
	// protected by mu
	closed    bool
	objects   map[Object]*object
	idle      []*object // those without flights, the longest first
	sources   map[string]*source
	ready     [classes][]*object // those with ready flights of a class, in turn
	resting   []*flight
	running   map[*request]struct{} // those that have not been given up
	hedges    budget
	retries   budget
	nextAlarm time.Time // when the clock goroutine wakes up; zero: it does not
	flights   int
	calls     [classes]uint64
	joined    uint64
}

// New returns a Fetcher, to be closed. sources says where an object can be had from; the order counts as long as nothing has been measured.
// It is called by several goroutines at the same time, about once a second for an object in use and after failures, and must not wait.
func New(opts Options, sources func(o Object) []Source) *Fetcher {
	opts.setDefaults()
	now := time.Now()
	f := &Fetcher{
		opts:    opts,
		lookup:  sources,
		wake:    make(chan struct{}, 1),
		objects: make(map[Object]*object),
		sources: make(map[string]*source),
		running: make(map[*request]struct{}),
		hedges:  newBudget(opts.HedgeShare, hedgeBurst, 0, now),
		retries: newBudget(opts.RetryShare, retryBurst, retryRate, now),
	}
	if opts.HedgeShare == 0 {
		f.hedges.tokens, f.hedges.most = 0, 0
	}
	f.ctx, f.end = context.WithCancel(context.Background())
	f.goroutines.Go(f.watchClock)
	return f
}

// Fetch brings n >= 1 frames of an object from first on and has deliver take them, in any order, several at the same time, each
// successfully at most once. It returns nil when all have been taken. All calls for one object must take frames to the same place: of
// several that want one frame, one is asked to take it, and that is enough for all. deliver may not wait for the Fetcher: neither for a
// Fetch of the same frame, nor for Close.
//
// If deliver cannot take a frame, Fetch returns its error. Sources that fail are no reason to return: Fetch goes on until ctx ends, and
// then returns an [*Error]. So ctx should have a deadline, unless waiting for ever is what is wanted. After Fetch has returned deliver is
// not called, and does not run.
func (f *Fetcher) Fetch(ctx context.Context, o Object, first, n int, class Class, deliver Deliver) error {
	if first < 0 || n < 1 || class >= classes {
		return fmt.Errorf("fetch %d frames of %s from %d on, %v: no such range", n, o, first, class)
	}
	if ctx.Err() != nil {
		return &Error{Object: o, Frame: first, Missing: n, Cause: context.Cause(ctx)}
	}
	c := &call{first: first, n: n, class: class, deliver: deliver, done: make(chan struct{}), missing: n}
	if err := f.start(c, o); err != nil {
		return err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		f.leave(c, context.Cause(ctx))
		<-c.done
	}
	return c.err
}

// start enters a call.
func (f *Fetcher) start(c *call, o Object) error {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if ob := f.objects[o]; ob == nil || now.Sub(ob.looked) > fresh {
		f.mu.Unlock()
		found := f.look(o)
		f.mu.Lock()
		f.objectLocked(o).setCandidates(f, found, now)
	}
	if f.closed {
		return &Error{Object: o, Frame: c.first, Missing: c.n, Cause: ErrClosed}
	}
	f.calls[c.class]++
	c.ob = f.objectLocked(o)
	c.ob.entering++
	for from := c.first; from < c.first+c.n && !c.over; from += joinAtOnce {
		if from > c.first {
			f.mu.Unlock()
			runtime.Gosched() // others want the lock, too
			f.mu.Lock()
		}
		if !c.over && f.closed {
			c.close(&Error{Object: o, Frame: from, Missing: c.missing, Cause: ErrClosed})
		}
		if !c.over {
			f.joinLocked(c, from, min(joinAtOnce, c.first+c.n-from), now)
			f.dispatchLocked(now)
		}
	}
	if c.ob.entering--; len(c.ob.flights) == 0 && c.ob.idle == 0 {
		f.idleLocked(c.ob)
	}
	return nil
}

// leave ends a call whose caller does not wait any more.
func (f *Fetcher) leave(c *call, cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if c.over {
		return
	}
	f.endLocked(c, f.errorLocked(c, cause, now), now)
	f.dispatchLocked(now)
}

// Close ends all calls with ErrClosed, cancels what runs, and waits for it: for the sources, too. It may be called more than once.
func (f *Fetcher) Close() {
	f.mu.Lock()
	now := time.Now()
	f.closed = true
	for _, ob := range f.objects {
		for len(ob.flights) > 0 {
			for _, fl := range ob.flights {
				if len(fl.calls) == 0 { // it is being taken for a call that has left
					f.dropLocked(fl, now)
					break
				}
				f.endLocked(fl.calls[0], f.errorLocked(fl.calls[0], ErrClosed, now), now)
				break
			}
		}
	}
	f.end()
	f.mu.Unlock()
	f.goroutines.Wait()
}

// found is a source as it was named: what it says of itself, so that it need not be asked with the lock held.
type found struct {
	impl    Source
	name    string
	profile Profile
}

// look asks where an object can be had from. It is called without the lock.
func (f *Fetcher) look(o Object) []found {
	list := f.lookup(o)
	all := make([]found, len(list))
	for i, s := range list {
		all[i] = named(s)
	}
	return all
}

func named(s Source) found {
	a := found{impl: s, name: s.String()}
	if p, ok := s.(Profiler); ok {
		a.profile = p.Profile()
	}
	return a
}

// objectLocked returns an object, which may be new.
func (f *Fetcher) objectLocked(o Object) *object {
	ob := f.objects[o]
	if ob == nil {
		ob = &object{name: o, flights: make(map[int]*flight), absent: make(map[*source]absence)}
		f.objects[o] = ob
		f.idleLocked(ob)
	}
	return ob
}

// idleLocked puts an object without flights at the end of those, and forgets others if there are too many.
func (f *Fetcher) idleLocked(ob *object) {
	ob.ready = [classes]queue{}
	ob.idle++
	f.idle = append(f.idle, ob)
	for len(f.idle) > idleObjects {
		old := f.idle[0]
		f.idle[0] = nil
		f.idle = f.idle[1:]
		// It may be there again, further behind, or be in use.
		if old.idle--; old.idle == 0 && len(old.flights) == 0 && old.entering == 0 {
			delete(f.objects, old.name)
		}
	}
}

// setCandidates notes where an object can be had from. A place that is named twice counts once.
func (ob *object) setCandidates(f *Fetcher, all []found, now time.Time) {
	ob.looked = now
	ob.candidates = ob.candidates[:0]
	for _, a := range all {
		s := f.sourceLocked(a)
		if ob.candidate(s) == nil {
			ob.candidates = append(ob.candidates, candidate{source: s, impl: a.impl, tier: a.profile.Tier})
		}
	}
	for s, a := range ob.absent {
		if ob.candidate(s) == nil && !now.Before(a.wrong.until) {
			delete(ob.absent, s)
		}
	}
	ob.parked = time.Time{} // there may be one that can be asked at once
}

func (f *Fetcher) sourceLocked(a found) *source {
	s := f.sources[a.name]
	if s == nil {
		s = &source{name: a.name, connections: a.profile.Connections}
		if s.connections <= 0 {
			s.connections = f.opts.Connections
		}
		s.kept = min(f.opts.Kept, s.connections-1)
		f.sources[a.name] = s
	}
	return s
}

// joinLocked has a call wait for n of its frames.
func (f *Fetcher) joinLocked(c *call, first, n int, now time.Time) {
	var unused []flight // for frames that nobody waits for yet; one allocation for all
	one := []*call{c}   // which they share, until one gets a second call
	for i := range n {
		if fl := c.ob.flights[first+i]; fl != nil {
			f.joined++
			fl.calls = append(fl.calls, c)
			f.raiseLocked(fl, c.class, now)
			continue
		}
		if len(unused) == 0 {
			unused = make([]flight, n-i)
		}
		fl := &unused[0]
		unused = unused[1:]
		*fl = flight{ob: c.ob, frame: first + i, class: c.class, calls: one[:1:1]}
		c.ob.flights[first+i] = fl
		f.flights++
		f.readyLocked(fl)
	}
}

// raiseLocked makes a flight at least as urgent as class.
func (f *Fetcher) raiseLocked(fl *flight, class Class, now time.Time) {
	if fl.class <= class {
		return
	}
	fl.class = class
	switch {
	case fl.ready:
		f.readyLocked(fl)
	case class == Demand && len(fl.requests) > 0:
		for _, r := range fl.requests {
			if fl.frame-r.next <= f.opts.Near {
				f.watchLocked(r, now)
				return
			}
		}
		f.readyLocked(fl)
	}
}

// readyLocked puts a flight into the queue of its class.
func (f *Fetcher) readyLocked(fl *flight) {
	fl.ready, fl.rests = true, time.Time{}
	ob := fl.ob
	ob.ready[fl.class].push(fl)
	if !ob.listed[fl.class] {
		ob.listed[fl.class] = true
		f.ready[fl.class] = append(f.ready[fl.class], ob)
	}
}

// endLocked ends a call: nobody waits for its flights on its behalf any more.
func (f *Fetcher) endLocked(c *call, err error, now time.Time) {
	for frame := c.first; frame < c.first+c.n; frame++ {
		fl := c.ob.flights[frame]
		if fl == nil || !fl.waitsFor(c) {
			continue
		}
		fl.calls = without(fl.calls, c)
		switch {
		case len(fl.calls) > 0:
			f.lowerLocked(fl)
		case !fl.taking:
			f.dropLocked(fl, now)
		}
	}
	c.close(err)
}

// lowerLocked makes a flight as urgent as its calls are.
func (f *Fetcher) lowerLocked(fl *flight) {
	class := classes
	for _, c := range fl.calls {
		class = min(class, c.class)
	}
	if class == fl.class {
		return
	}
	fl.class = class
	switch {
	case fl.ready && len(fl.requests) > 0: // it was to overtake
		fl.ready = false
	case fl.ready:
		f.readyLocked(fl)
	}
}

// dropLocked ends a flight, which was taken or is not wanted. Requests that bring nothing else are cancelled, unless they are at their end
// anyway.
func (f *Fetcher) dropLocked(fl *flight, now time.Time) {
	fl.over, fl.ready = true, false
	delete(fl.ob.flights, fl.frame)
	f.flights--
	for _, r := range fl.requests {
		r.wanted--
		if r.wanted == 0 && r.next < r.first+len(r.flights) {
			f.settleLocked(r, errUnwanted, now)
		}
	}
	fl.requests = nil
	if len(fl.ob.flights) == 0 {
		f.idleLocked(fl.ob)
	}
}
