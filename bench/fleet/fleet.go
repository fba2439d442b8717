package fleet

import (
	"math/rand/v2"
	"slices"
	"sort"
)

// A class says who waits for a chunk.
type class uint8

const (
	demand class = iota // a boot, before its first response
	mirror              // nobody: the rest of a snapshot that runs
	duty                // others, whom this node fetches it for as its home
	classes
)

// A tier is where a chunk came from.
type tier uint8

const (
	local   tier = iota // the node's own store
	peer                // a peer that had it, or was already getting it
	through             // a peer that had to read it from the object store for this request
	object              // the object store
	tiers
)

// A node has a store and links, and boots snapshots.
type node struct {
	f              *fleet
	id, zone       int
	store          *store
	up, down, disk link
	cpu            link
	flights        map[chunk]*flight
	boots          map[*boot]struct{} // that have not answered yet
	streams        int                // that it serves
	budget         float64            // hedges that it may make
	dead           bool
	gone           bool // the others know that it is dead
}

// A fleet is all nodes, the object store, and what is known to everybody.
type fleet struct {
	clock
	in      *Inputs
	nodes   []*node // whoever ever joined
	living  []*node
	members members
	plans   []*plan
	hints   [][]hint // by snapshot, the oldest first
	object  link
	nextAsk float64 // when the object store serves another request

	peerLatency, objectLatency latency
	// chance decides about latencies and choices; load about what is booted where, which is the same for all tiers.
	chance, load *rand.Rand
	stats        stats
	from         float64 // boots before this time do not count
}

// A hint says that a node has begun to hold a snapshot.
type hint struct {
	node *node
	at   float64 // when others know
}

func newFleet(in *Inputs, nodes int, seed uint64) *fleet {
	f := &fleet{
		in:            in,
		peerLatency:   newLatency(in.Peer.P50.Value, in.Peer.P99.Value),
		objectLatency: newLatency(in.Object.P50.Value, in.Object.P99.Value),
		chance:        rand.New(rand.NewPCG(seed, 1)),
		load:          rand.New(rand.NewPCG(seed, 2)),
		object:        link{capacity: in.Object.Bandwidth.Value},
	}
	f.plans = catalog(in, rand.New(rand.NewPCG(seed, 3)))
	f.hints = make([][]hint, len(f.plans))
	f.members.homes = make(map[chunk]*homes)
	f.stats.reads = make(map[chunk]int64)
	f.object.carried = f.stats.sent
	for range nodes {
		f.join(len(f.nodes) % int(in.Load.Zones.Value))
	}
	return f
}

// join adds an empty node.
func (f *fleet) join(zone int) {
	n := &node{
		f: f, id: len(f.nodes), zone: zone,
		store:   newStore(int64(f.in.Node.Quota.Value)),
		up:      link{capacity: f.in.Node.Link.Value},
		down:    link{capacity: f.in.Node.Link.Value},
		disk:    link{capacity: f.in.Node.Disk.Value},
		cpu:     link{capacity: f.in.Node.Cores.Value, exact: true},
		flights: make(map[chunk]*flight),
		boots:   make(map[*boot]struct{}),
	}
	f.nodes = append(f.nodes, n)
	f.living = append(f.living, n)
	f.members.all = append(f.members.all, n)
}

// die ends a node with all that it did. The others find out by themselves, those that had asked it by their timeouts.
func (f *fleet) die(n *node) {
	n.dead = true
	f.living = slices.DeleteFunc(f.living, func(other *node) bool { return other == n })
	f.stats.Lost += n.lose()
	n.cpu.fail()
	n.disk.fail()
	n.drop()
	n.up.fail()
	f.after(f.in.Placement.DeadAfter.Value, func() { n.gone = true })
}

// lose takes note of the boots that die with the node, and returns how many of them would have counted.
func (n *node) lose() (counted int) {
	for b := range n.boots {
		if b.at >= n.f.from {
			counted++
		}
	}
	clear(n.boots)
	return counted
}

// announce lets the others know, after a while, that a node has begun to hold a snapshot.
func (f *fleet) announce(n *node, snapshot int) {
	f.hints[snapshot] = append(f.hints[snapshot], hint{n, f.now + f.in.Placement.HintDelay.Value})
}

// hinted returns nodes other than n that are said to hold a snapshot, some of the zone of n first.
func (f *fleet) hinted(n *node, snapshot int) []*node {
	tries := int(f.in.Placement.Tries.Value)
	all := f.hints[snapshot]
	end := sort.Search(len(all), func(i int) bool { return all[i].at > f.now })
	known := all[max(0, end-int(f.in.Placement.Hints.Value)):end]
	if tries == 0 || len(known) == 0 {
		return nil
	}
	var near, far []*node
	// Twice as many as are asked are looked at, so that there is a choice of the zone.
	for range 2 * tries {
		h := known[f.chance.IntN(len(known))].node
		switch {
		case h == n || h.gone || slices.Contains(near, h) || slices.Contains(far, h):
		case h.zone == n.zone:
			near = append(near, h)
		default:
			far = append(far, h)
		}
	}
	near = append(near, far...)
	return near[:min(tries, len(near))]
}
