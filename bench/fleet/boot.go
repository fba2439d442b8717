package fleet

// A boot is one start of a snapshot on a node.
type boot struct {
	n        *node
	snapshot int
	plan     *plan
	at       float64
	pinned   *entry
	open     int // what has to be there before the process can go on to its request
}

// boot starts a snapshot on a node: meta, then the runtime beside the working set, then the request, which waits for what is missed.
func (f *fleet) boot(n *node, snapshot int) {
	b := &boot{n: n, snapshot: snapshot, plan: f.plans[snapshot], at: f.now, pinned: n.store.use(snapshot)}
	b.pinned.pins++
	n.boots[b] = struct{}{}
	if b.at >= f.from {
		f.stats.Boots++
	}
	n.need(chunk{snapshot, 0}, demand, b.start)
}

func (b *boot) start() {
	b.open = 2
	k := b.plan.kind
	b.work(k.Running.Value, b.ready)
	b.stream(b.plan.set, b.plan.missed, demand, b.ready)
}

// work takes a core for so many seconds, or longer if there are too few.
func (b *boot) work(seconds float64, done func()) {
	share(&b.n.f.clock, seconds, 1, 1, &b.n.cpu, nil, done)
}

func (b *boot) ready() {
	if b.open--; b.open == 0 {
		b.stream(b.plan.missed, b.plan.rest, demand, func() {
			b.work(b.plan.kind.Overhead.Value+b.plan.kind.Call.Value, b.respond)
		})
	}
}

// respond is the first response. The rest follows, and the snapshot stays as long as the process runs.
func (b *boot) respond() {
	f := b.n.f
	delete(b.n.boots, b)
	if b.at >= f.from {
		f.stats.Answered++
		f.stats.responses = append(f.stats.responses, f.now-b.at)
	}
	f.after(f.in.Load.Runs.Value, func() { b.pinned.pins-- })
	if f.in.Fetch.MirrorWindow.Value >= 1 {
		b.stream(b.plan.rest, len(b.plan.parts), mirror, func() {})
	}
}

// stream needs the parts [from, to) in order, a window of them at a time.
func (b *boot) stream(from, to int, k class, done func()) {
	window := int(b.n.f.in.Fetch.Window.Value)
	if k == mirror {
		window = int(b.n.f.in.Fetch.MirrorWindow.Value)
	}
	left := to - from
	if left == 0 {
		done()
		return
	}
	var one func()
	one = func() {
		if from == to {
			return
		}
		part := from
		from++
		b.n.need(chunk{b.snapshot, part}, k, func() {
			if left--; left == 0 {
				done()
				return
			}
			one()
		})
	}
	for range window {
		one()
	}
}
