package fleet

import (
	"cmp"
	"slices"
)

// maxPause is how often the pause between two rounds of asking busy peers doubles.
const maxPause = 4

// A flight is one chunk on its way to one node.
type flight struct {
	n     *node
	c     chunk
	part  part
	class class // that its bytes are counted for
	// urgent says that a boot waits for it, here or elsewhere.
	urgent bool
	since  float64
	left   int64 // bytes that have not arrived

	waiters []func()   // of this node
	remote  []*attempt // of nodes that asked this one as the chunk's home

	sources  []source // to ask next
	drawn    bool     // sources was filled in this round
	busy     bool     // one of the round said so
	rounds   int
	attempts []*attempt
	hedge    *event
	pause    *event
}

// A source is whom a chunk may be asked of: the object store if it has no node.
type source struct {
	*node
	home bool // asked as the chunk's home: it gets what it does not have
}

// An attempt is one source that was asked.
type attempt struct {
	f       *flight
	from    source
	wait    *event
	job     *job
	since   float64 // when the job began
	at      *flight // of the home, that it waits for
	begun   bool    // the first byte has come
	through bool    // its home fetches it for this attempt
	second  bool    // it is a hedge
}

// need has done called once the node has a chunk: at once if nobody waits for it and it is there.
func (n *node) need(c chunk, k class, done func()) {
	p := n.f.plans[c.snapshot].parts[c.part]
	s := &n.f.stats
	s.needed(k, p.bytes)
	if n.store.has(c) {
		n.store.use(c.snapshot)
		s.count(n.f.now, n.f.now, k, local, p.bytes)
		if k == demand {
			share(&n.f.clock, float64(p.bytes), n.disk.capacity, 1, &n.disk, nil, done)
		} else {
			done()
		}
		return
	}
	fl := n.flights[c]
	if fl != nil {
		s.Joined[k] += p.bytes
	} else {
		fl = n.fly(c, k)
	}
	fl.waiters = append(fl.waiters, done)
	fl.urgent = fl.urgent || k == demand
	fl.start()
}

// fly makes the flight of a chunk, which start starts.
func (n *node) fly(c chunk, k class) *flight {
	p := n.f.plans[c.snapshot].parts[c.part]
	fl := &flight{n: n, c: c, part: p, class: k, since: n.f.now, left: p.bytes}
	n.flights[c] = fl
	n.budget = min(n.budget+n.f.in.Fetch.Hedge.Value, 5)
	return fl
}

// start asks the first source, if nobody has been asked.
func (f *flight) start() {
	if len(f.attempts) == 0 && f.pause == nil {
		f.ask()
	}
}

// draw lists whom to ask: nodes that are said to have restored the snapshot, then the chunk's homes. A home asks only homes that are ahead
// of it; so whoever waits for a home waits for one ahead of it, and nobody waits in a circle.
func (f *flight) draw() {
	fl := f.n.f
	f.sources, f.drawn = f.sources[:0], true
	homes := fl.members.of(f.c, int(fl.in.Placement.Homes.Value))
	if i := slices.Index(homes, f.n); i >= 0 {
		homes = homes[:i]
	}
	for _, n := range fl.hinted(f.n, f.c.snapshot) {
		if !slices.Contains(homes, n) {
			f.sources = append(f.sources, source{n, false})
		}
	}
	for _, n := range homes {
		f.sources = append(f.sources, source{n, true})
	}
}

// next returns whom to ask. ok is false if all are busy, and it is too early for the object store.
func (f *flight) next() (s source, ok bool) {
	if !f.drawn {
		f.draw()
	}
	if len(f.sources) > 0 {
		s, f.sources = f.sources[0], f.sources[1:]
		return s, true
	}
	return source{}, !f.busy || f.n.f.now-f.since >= f.n.f.in.Fetch.Patience.Value
}

// ask asks the next source, or pauses.
func (f *flight) ask() {
	fl := f.n.f
	s, ok := f.next()
	if ok {
		f.try(&attempt{f: f, from: s})
		return
	}
	d := fl.in.Fetch.Pause.Value * float64(int(1)<<min(f.rounds, maxPause)) * (0.5 + fl.chance.Float64())
	f.rounds++
	f.pause = fl.after(d, func() {
		f.pause, f.drawn, f.busy = nil, false, false
		f.ask()
	})
}

// try asks a source.
func (f *flight) try(a *attempt) {
	fl := f.n.f
	f.attempts = append(f.attempts, a)
	late := fl.peerLatency.p95()
	if a.from.node == nil {
		late = fl.objectLatency.p95()
		a.wait = fl.after(fl.slot(f.requests())+fl.objectLatency.draw(fl.chance), a.begin)
	} else {
		a.wait = fl.after(fl.peerLatency.draw(fl.chance), a.arrive)
	}
	if !a.second {
		fl.cancel(f.hedge)
		f.hedge = fl.after(late, f.late)
	}
}

// late asks a second source, since the first has not begun within its p95.
func (f *flight) late() {
	f.hedge = nil
	if len(f.attempts) != 1 || f.attempts[0].begun || f.n.budget < 1 {
		return
	}
	// If all others are busy it stays with the first.
	if s, ok := f.next(); ok {
		f.n.budget--
		f.n.f.stats.Hedges++
		f.try(&attempt{f: f, from: s, second: true})
	}
}

// requests returns how many requests the object store gets for what is left.
func (f *flight) requests() int {
	if f.left == f.part.bytes {
		return f.part.requests
	}
	return max(1, int(float64(f.left)/f.n.f.in.Fetch.Range.Value+1))
}

// slot takes the next turns of the object store for so many requests, and returns how long it is until the first of them.
func (f *fleet) slot(requests int) (wait float64) {
	f.nextAsk = max(f.nextAsk, f.now)
	wait = f.nextAsk - f.now
	f.nextAsk += float64(requests) / f.in.Object.Requests.Value
	f.stats.asked(f.now+wait, requests)
	return wait
}

// arrive is when a peer has read the question.
func (a *attempt) arrive() {
	f, p := a.f, a.from.node
	s := &f.n.f.stats
	a.wait = nil
	switch {
	case p.dead:
		s.Timeouts++
		a.wait = f.n.f.after(f.n.f.in.Fetch.Timeout.Value, a.fail)
	case p.store.has(f.c):
		p.store.use(f.c.snapshot)
		a.serve()
	case a.from.home:
		a.at = p.flights[f.c]
		if a.at == nil {
			a.at, a.through = p.fly(f.c, duty), true
			s.needed(duty, f.part.bytes)
		}
		a.at.remote = append(a.at.remote, a)
		a.at.urgent = a.at.urgent || f.urgent
		a.at.start()
	default:
		s.NotHere++
		a.fail()
	}
}

// serve begins to send, unless the peer has too much to do.
func (a *attempt) serve() {
	if a.from.streams >= int(a.f.n.f.in.Peer.Streams.Value) {
		a.f.n.f.stats.Busy++
		a.f.busy = true
		a.fail()
		return
	}
	a.begin()
}

// begin is when the first byte comes: the other attempts are not needed any more.
func (a *attempt) begin() {
	f, fl := a.f, a.f.n.f
	for len(f.attempts) > 1 {
		for _, other := range f.attempts {
			if other != a {
				other.leave()
				break
			}
		}
	}
	fl.cancel(f.hedge)
	f.hedge = nil
	if a.second {
		fl.stats.HedgesWon++
	}
	a.begun = true
	l, more := fl.objectLatency, 0.0
	if a.from.node != nil {
		a.from.streams++
		l = fl.peerLatency
	}
	for range f.part.rounds - 1 {
		more += l.draw(fl.chance)
	}
	a.wait = fl.after(more, a.send)
}

// send is when the bytes begin to flow.
func (a *attempt) send() {
	f, fl := a.f, a.f.n.f
	up, limit := &fl.object, fl.in.Object.Stream.Value
	a.wait, a.since = nil, fl.now
	if p := a.from.node; p != nil {
		if p.dead {
			a.broken()
			return
		}
		up, limit = &p.up, fl.in.Peer.Stream.Value
	}
	weight := 1.0
	if !f.urgent {
		weight = fl.in.Fetch.MirrorWeight.Value
	}
	a.job = share(&fl.clock, float64(f.left), limit, weight, up, &f.n.down, a.done)
	a.job.broken = a.broken
}

// broken is when the source has died. It is noticed when nothing has come for a while.
func (a *attempt) broken() {
	a.settle(a.job.leftover())
	a.job, a.f.drawn = nil, false
	a.f.n.f.stats.Timeouts++
	a.wait = a.f.n.f.after(a.f.n.f.in.Fetch.Timeout.Value, a.fail)
}

// leftover returns what a stopped job has left, of nil all that there is.
func (j *job) leftover() float64 {
	if j == nil {
		return -1
	}
	return j.left
}

// settle counts what has come, if left bytes have not; all of the flight's have not if left is negative.
func (a *attempt) settle(left float64) {
	if left < 0 {
		return
	}
	came := max(0, a.f.left-int64(left))
	a.f.left -= came
	a.f.n.f.stats.arrived(a, came)
}

// done is when all has come.
func (a *attempt) done() {
	a.job = nil
	a.settle(0)
	a.leave()
	a.f.land()
}

// leave takes the attempt out of its flight.
func (a *attempt) leave() {
	f := a.f
	f.n.f.cancel(a.wait)
	if a.job != nil {
		a.settle(a.job.stop())
		a.job = nil
	}
	if a.begun && a.from.node != nil {
		a.from.streams--
	}
	if a.at != nil {
		// If it is being served or refused it is there no longer.
		a.at.remote = slices.DeleteFunc(a.at.remote, func(b *attempt) bool { return a == b })
	}
	f.attempts = slices.DeleteFunc(f.attempts, func(b *attempt) bool { return a == b })
}

// fail is when the source has refused, or is given up.
func (a *attempt) fail() {
	a.wait = nil
	a.leave()
	if len(a.f.attempts) == 0 && !a.f.n.dead {
		a.f.ask()
	}
}

// land is when the chunk is there: it is kept, and whoever waits for it gets it.
func (f *flight) land() {
	n := f.n
	delete(n.flights, f.c)
	n.f.cancel(f.hedge)
	if e := n.store.admit(f.c, f.part.bytes); e != nil && !e.announced {
		e.announced = true
		n.f.announce(n, f.c.snapshot)
	}
	remote := f.remote
	f.remote = nil
	for _, a := range remote {
		a.at = nil
		a.serve()
	}
	for _, done := range f.waiters {
		done()
	}
}

// drop ends all flights of a node that has died, and those that wait for them time out.
func (n *node) drop() {
	flights := make([]*flight, 0, len(n.flights))
	for _, f := range n.flights {
		flights = append(flights, f)
	}
	slices.SortFunc(flights, func(a, b *flight) int {
		return cmp.Or(cmp.Compare(a.c.snapshot, b.c.snapshot), cmp.Compare(a.c.part, b.c.part))
	})
	clear(n.flights)
	for _, f := range flights {
		n.f.cancel(f.hedge)
		n.f.cancel(f.pause)
		for len(f.attempts) > 0 {
			f.attempts[0].leave()
		}
		n.f.stats.Abandoned[f.class] += f.left
		for _, a := range f.remote {
			a.at = nil
			n.f.stats.Timeouts++
			a.wait = n.f.after(n.f.in.Fetch.Timeout.Value, a.fail)
		}
		f.remote = nil
	}
}
