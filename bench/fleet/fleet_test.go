package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
)

// small are inputs of fleets that are simulated in no time, and whose nodes have to evict.
func small() *Inputs {
	in := Default()
	in.Load.Snapshots.Value = 60
	in.Load.Seconds.Value = 200
	in.Load.Rate.Value = 0.05
	in.Load.Life.Value = 300
	in.Node.Quota.Value = 3e9
	return in
}

// Whatever is needed comes from a tier, or with another flight, or its node dies; and in the end nothing is under way.
func TestWhatIsNeededIsServedByTheTiers(t *testing.T) {
	for _, s := range Scenarios() {
		for _, alone := range []bool{false, true} {
			for seed := range uint64(3) {
				t.Run(fmt.Sprintf("%s, alone %v, seed %d", s, alone, seed), func(t *testing.T) {
					f, err := simulate(t.Context(), small(), Options{Scenario: s, Nodes: 40, Seed: seed, Alone: alone})
					if err != nil {
						t.Fatal(err)
					}
					st := &f.stats
					for k := range classes {
						if came := st.Served[k].Total() + st.Joined[k] + st.Abandoned[k]; st.Needed[k] != came {
							t.Errorf("class %d: %d bytes were needed, and %d came, were joined or abandoned", k, st.Needed[k], came)
						}
					}
					if st.Served[demand].Total() == 0 {
						t.Error("nothing was served")
					}
					var reads, objects, binned int64
					for _, n := range st.reads {
						reads += n
					}
					for k := range classes {
						objects += st.Served[k].Object
					}
					for _, n := range st.served[object] {
						binned += n
					}
					if reads != objects || binned != objects {
						t.Errorf("the object store sent %d bytes: %d by chunk, %d by second", objects, reads, binned)
					}
					if st.Boots != st.Answered+st.Lost {
						t.Errorf("of %d boots %d were answered and %d lost", st.Boots, st.Answered, st.Lost)
					}
					if alone && (st.Served[demand].Peer != 0 || st.Served[demand].Through != 0) {
						t.Error("peers have served that are not there")
					}
					checkIdle(t, f)
				})
			}
		}
	}
}

func checkIdle(t *testing.T, f *fleet) {
	t.Helper()
	for _, n := range f.nodes {
		if len(n.flights) != 0 || len(n.boots) != 0 {
			t.Errorf("node %d still has %d flights and %d boots", n.id, len(n.flights), len(n.boots))
		}
		if n.streams != 0 {
			t.Errorf("node %d still has %d streams", n.id, n.streams)
		}
		if len(n.up.jobs)+len(n.down.jobs)+len(n.disk.jobs)+len(n.cpu.jobs) != 0 {
			t.Errorf("node %d has jobs", n.id)
		}
		for _, e := range n.store.entries {
			if e.pins != 0 && !n.dead {
				t.Errorf("node %d: snapshot %d is pinned", n.id, e.snapshot)
			}
		}
	}
	if len(f.object.jobs) != 0 {
		t.Error("the object store has jobs")
	}
}

func TestSameSeedGivesTheSameReportAndAnotherSeedAnother(t *testing.T) {
	report := func(seed uint64) string {
		r, err := SimulateAll(t.Context(), small(), Scenarios(), []int{20, 30}, seed, nil)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := r.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	a, b, c := report(1), report(1), report(2)
	if a != b {
		t.Error("two reports of one seed differ")
	}
	if a == c {
		t.Error("reports of two seeds are the same")
	}
}

// With hints that are known at once, no hedging and endless patience the object store is asked once for each chunk, however many nodes boot.
func TestBurstReadsEachChunkOnceFromTheObjectStore(t *testing.T) {
	for _, nodes := range []int{2, 7, 100, 1000} {
		in := Default()
		in.Fetch.Hedge.Value = 0
		in.Fetch.Patience.Value = 1e6
		in.Placement.HintDelay.Value = 0
		r, err := Simulate(t.Context(), in, Options{Scenario: Burst, Nodes: nodes, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		if r.Object.MostReads != 1 || r.Object.Reads != 1 {
			t.Errorf("%d nodes: a chunk was read %g times, and on average %g", nodes, r.Object.MostReads, r.Object.Reads)
		}
		if r.Answered != nodes {
			t.Errorf("%d nodes: %d answered", nodes, r.Answered)
		}
		// All of the snapshot, and nothing else.
		if want := int64(in.Kinds[0].Bytes.Value + in.Kinds[0].MetaBytes.Value); r.AllServed.Object > want || r.AllServed.Object < want-100 {
			t.Errorf("%d nodes: the object store sent %d bytes, want %d", nodes, r.AllServed.Object, want)
		}
	}
}

// Only so many hedges are made as the budget has, so that a burst does not become one of the object store.
func TestHedgesStayWithinTheirBudget(t *testing.T) {
	for _, s := range Scenarios() {
		f, err := simulate(t.Context(), small(), Options{Scenario: s, Nodes: 40, Seed: 4})
		if err != nil {
			t.Fatal(err)
		}
		// Each flight brings a twentieth of a hedge; a chunk that is needed is at most one flight, of at least 128 KiB.
		var flights int64
		for k := range classes {
			flights += f.stats.Needed[k] / frameBytes
		}
		if f.stats.Hedges == 0 || float64(f.stats.Hedges) > 0.05*float64(flights) {
			t.Errorf("%s: %d hedges, for at most %d flights", s, f.stats.Hedges, flights)
		}
	}
}

func TestNodesOfALostZoneLoseTheirBootsAndTheOthersAreServed(t *testing.T) {
	in := small()
	f, err := simulate(t.Context(), in, Options{Scenario: Zone, Nodes: 30, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range f.nodes {
		if n.dead != (n.zone == 0) {
			t.Errorf("node %d of zone %d is dead: %v", n.id, n.zone, n.dead)
		}
	}
	if f.stats.Timeouts == 0 {
		t.Error("nobody ever waited for a node of the lost zone: the test shows nothing")
	}
	// What counts begins with the loss: all those boots are on other nodes.
	if f.stats.Boots == 0 || f.stats.Answered != f.stats.Boots {
		t.Errorf("of %d boots after the loss %d were answered", f.stats.Boots, f.stats.Answered)
	}
}

func TestFleetWhoseNodesAllDieEnds(t *testing.T) {
	in := small()
	in.Load.Life.Value, in.Load.Rejoin.Value, in.Load.Rate.Value = 5, 30, 2
	f, err := simulate(t.Context(), in, Options{Scenario: Churn, Nodes: 4, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if f.stats.Lost == 0 {
		t.Error("no boot was lost")
	}
	checkIdle(t, f)
}

func TestNoNodeHoldsMoreThanItsQuotaAtAnyTime(t *testing.T) {
	in := small()
	f := newFleet(in, 20, 1)
	f.arrivals(nil)
	f.deaths()
	fullest := int64(0)
	for f.step() {
		for _, n := range f.nodes {
			if n.store.used > int64(in.Node.Quota.Value) {
				t.Fatalf("node %d holds %d bytes", n.id, n.store.used)
			}
			fullest = max(fullest, n.store.used)
		}
	}
	if float64(fullest) < 0.9*in.Node.Quota.Value {
		t.Errorf("no node was ever full: at most %d bytes", fullest)
	}
}

func TestNodesWithoutRoomServeThroughAllTheSame(t *testing.T) {
	in := small()
	in.Node.Quota.Value = 0
	r, err := Simulate(t.Context(), in, Options{Scenario: Poisson, Nodes: 10, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Answered != r.Boots || r.Answered == 0 {
		t.Errorf("of %d boots %d were answered", r.Boots, r.Answered)
	}
	if r.Served.Local != 0 {
		t.Errorf("%d bytes were local", r.Served.Local)
	}
}

func TestObjectStoreServesNoMoreThanItCan(t *testing.T) {
	in := small()
	in.Object.Requests.Value = 100
	in.Object.Bandwidth.Value = 2e8
	r, err := Simulate(t.Context(), in, Options{Scenario: Burst, Nodes: 50, Seed: 1, Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	// A chunk's requests are counted in the second in which the first of them is served.
	if most := int64(100 + maxRequests(in)); r.Object.PeakRequests > most {
		t.Errorf("%d requests in a second, at most %d can be served", r.Object.PeakRequests, most)
	}
	if r.Object.PeakBytes > 2e8+1 || r.Object.PeakBytes < 19e7 {
		t.Errorf("%d bytes in a second", r.Object.PeakBytes)
	}
	if float64(r.AllServed.Object)/r.Seconds > 2e8 {
		t.Errorf("%d bytes in %g seconds", r.AllServed.Object, r.Seconds)
	}
}

func maxRequests(in *Inputs) (most int) {
	for _, p := range newPlan(in, &in.Kinds[0]).parts {
		most = max(most, p.requests)
	}
	return most
}

// One node, latencies that do not vary, one chunk at a time: the first response can be computed by hand.
func TestFirstResponseOfOneNodeIsTheSumOfItsParts(t *testing.T) {
	in := Default()
	in.Object.P50.Value, in.Object.P99.Value = 0.03, 0.03
	in.Fetch.Hedge.Value, in.Fetch.Window.Value, in.Load.Spread.Value = 0, 1, 0
	in.Object.Requests.Value = 1e7
	r, err := Simulate(t.Context(), in, Options{Scenario: Burst, Nodes: 1, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	k := &in.Kinds[0]
	stream := in.Object.Stream.Value
	set := math.Ceil(k.SetBytes.Value/in.Chunk.Value)*0.03 + k.SetBytes.Value/stream
	want := 3*0.03 + k.MetaBytes.Value/stream + // meta: three answers one after the other
		max(k.Running.Value, set) +
		k.Missed.Value*0.03 + k.Missed.Value*frameBytes/stream +
		k.Overhead.Value + k.Call.Value
	if math.Abs(r.FirstResponse.P50-want) > 1e-3 {
		t.Errorf("the first response takes %.4f s, want %.4f", r.FirstResponse.P50, want)
	}
}

// A second boot on the same node finds all there, and takes what a local restore was measured to take.
func TestLocalBootTakesWhatWasMeasured(t *testing.T) {
	in := Default()
	f := newFleet(in, 1, 1)
	f.boot(f.nodes[0], 0)
	f.after(100, func() { f.boot(f.nodes[0], 0) })
	for f.step() {
	}
	if len(f.stats.responses) != 2 {
		t.Fatalf("%d responses", len(f.stats.responses))
	}
	k := &in.Kinds[0]
	measured := k.Running.Value + k.Overhead.Value + k.Call.Value
	// Meta and what is missed are read from the disk besides.
	if got := f.stats.responses[1]; got < measured || got > 1.05*measured {
		t.Errorf("the second boot takes %.4f s, want %.4f or a little more", got, measured)
	}
}

func TestPeersRelieveTheObjectStore(t *testing.T) {
	for _, s := range Scenarios() {
		var read [2]int64
		for i, alone := range []bool{false, true} {
			r, err := Simulate(t.Context(), small(), Options{Scenario: s, Nodes: 60, Seed: 2, Alone: alone})
			if err != nil {
				t.Fatal(err)
			}
			read[i] = r.AllServed.Object
		}
		if read[0]*2 > read[1] {
			t.Errorf("%s: with peers %d bytes are read from the object store, without %d", s, read[0], read[1])
		}
	}
}

func TestOptionsThatMakeNoSenseAreErrors(t *testing.T) {
	for _, o := range []Options{{Scenario: Burst}, {Scenario: Burst, Nodes: MaxNodes + 1}, {Scenario: "nosuch", Nodes: 1}} {
		if _, err := Simulate(t.Context(), Default(), o); err == nil {
			t.Errorf("%+v is simulated", o)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Simulate(ctx, Default(), Options{Scenario: Burst, Nodes: 10}); !errors.Is(err, context.Canceled) {
		t.Errorf("a simulation that is not wanted any more ends with %v", err)
	}
}

// What came from a peer before it died is kept, and only the rest is fetched again, from elsewhere.
func TestPeerThatDiesOnTheWayHasServedWhatCameBefore(t *testing.T) {
	in := Default()
	in.Peer.Stream.Value = 1e6
	in.Load.Zones.Value = 1
	f := newFleet(in, 2, 1)
	c := chunk{0, 1}
	size := f.plans[0].parts[1].bytes
	holder, asker := f.nodes[0], f.nodes[1]
	f.announce(holder, 0)
	holder.store.admit(c, size)
	f.now = 1 // the hint is known
	arrived := false
	asker.need(c, demand, func() { arrived = true })
	f.after(2, func() { f.die(holder) })
	for f.step() {
	}
	if !arrived {
		t.Fatal("the chunk never arrived")
	}
	// For two seconds, less the first byte's, 1 MB/s came.
	s := f.stats.Served[demand]
	if s.Peer < 18e5 || s.Peer > 2e6 || s.Peer+s.Object != size || f.stats.Timeouts == 0 {
		t.Errorf("of %d bytes the peer has served %d and the object store %d, with %d timeouts", size, s.Peer, s.Object, f.stats.Timeouts)
	}
	checkIdle(t, f)
}
