package fleet

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Scenario is what happens to a fleet.
type Scenario string

// The scenarios.
const (
	// Burst boots one snapshot on all nodes at once. Nobody holds it.
	Burst Scenario = "burst"
	// Poisson boots snapshots at a steady rate, independent of each other, on any node.
	Poisson Scenario = "poisson"
	// Diurnal is Poisson with a rate that swings, from its least to its most and back.
	Diurnal Scenario = "diurnal"
	// Churn is Poisson while nodes die, each replaced by an empty one.
	Churn Scenario = "churn"
	// Zone is Poisson, and in the middle of it a whole zone dies for good.
	Zone Scenario = "zone"
)

// Scenarios returns all of them.
func Scenarios() []Scenario { return []Scenario{Burst, Poisson, Diurnal, Churn, Zone} }

// Question says what a scenario asks.
func (s Scenario) Question() string {
	switch s {
	case Burst:
		return "All nodes boot one snapshot at once, which none of them holds."
	case Poisson:
		return "Snapshots boot at a steady rate on any node, popular ones more often. What counts begins after a third of the time."
	case Diurnal:
		return "Snapshots boot on any node at a rate that swings as that of a day. What counts begins after a third of the time."
	case Churn:
		return "Snapshots boot at a steady rate while nodes die, and empty ones take their places. What counts begins after a third of the time."
	case Zone:
		return "Snapshots boot at a steady rate, and in the middle a zone dies with all of its nodes. What counts begins there, with as many boots on fewer nodes."
	}
	return ""
}

// ParseScenarios reads names that are separated by commas.
func ParseScenarios(list string) ([]Scenario, error) {
	var out []Scenario
	for name := range strings.SplitSeq(list, ",") {
		s := Scenario(strings.TrimSpace(name))
		if !slices.Contains(Scenarios(), s) {
			return nil, fmt.Errorf("no scenario of a fleet is called %.40q; there are %v", name, Scenarios())
		}
		out = append(out, s)
	}
	return out, nil
}

// MaxNodes is the most nodes that are simulated.
const MaxNodes = 20000

// Options say what to simulate.
type Options struct {
	Scenario Scenario
	Nodes    int // 1 to MaxNodes
	Seed     uint64
	// Alone leaves the peers out.
	Alone bool
}

// Simulate runs one simulation until all that began has ended, and returns what it came to. in is not changed. Returns ctx's error if ctx ends first.
func Simulate(ctx context.Context, in *Inputs, opts Options) (*Run, error) {
	f, err := simulate(ctx, in, opts)
	if err != nil {
		return nil, err
	}
	r := f.run()
	r.Scenario, r.Nodes, r.Alone, r.Seed = opts.Scenario, opts.Nodes, opts.Alone, opts.Seed
	return r, nil
}

func simulate(ctx context.Context, in *Inputs, opts Options) (*fleet, error) {
	if opts.Nodes < 1 || opts.Nodes > MaxNodes {
		return nil, fmt.Errorf("%d nodes, want 1 to %d", opts.Nodes, MaxNodes)
	}
	if opts.Alone {
		alone := *in
		alone.Placement.Homes.Value, alone.Placement.Tries.Value = 0, 0
		in = &alone
	}
	f := newFleet(in, opts.Nodes, opts.Seed)
	switch opts.Scenario {
	case Burst:
		for _, n := range f.nodes {
			f.after(f.load.Float64()*in.Load.Spread.Value, func() { f.boot(n, 0) })
		}
	case Poisson:
		f.count(in.Load.Seconds.Value / 3)
		f.arrivals(nil)
	case Diurnal:
		f.count(in.Load.Seconds.Value / 3)
		f.arrivals(func(t float64) float64 {
			return 1 - in.Load.Swing.Value*math.Cos(2*math.Pi*t/in.Load.Seconds.Value)
		})
	case Churn:
		f.count(in.Load.Seconds.Value / 3)
		f.arrivals(nil)
		f.deaths()
	case Zone:
		half := in.Load.Seconds.Value / 2
		f.count(half)
		f.after(half, f.loseZone)
		f.arrivals(nil)
	default:
		return nil, fmt.Errorf("no scenario of a fleet is called %.40q", opts.Scenario)
	}
	for i := 0; f.step(); i++ {
		if i%(1<<14) == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return f, nil
}

// count sets when the time that counts begins.
func (f *fleet) count(from float64) { f.from, f.stats.from = from, from }

// arrivals boots snapshots at random. swing multiplies the rate at a time; nil is 1.
func (f *fleet) arrivals(swing func(t float64) float64) {
	popular := newZipf(len(f.plans), f.in.Load.Zipf.Value)
	most := 1.0
	if swing != nil {
		most += f.in.Load.Swing.Value
	}
	// The load stays what it was when nodes are lost: those that are left take it.
	rate := f.in.Load.Rate.Value * float64(len(f.nodes)) * most
	var next func()
	wait := func() float64 { return f.load.ExpFloat64() / rate }
	next = func() {
		if f.now >= f.in.Load.Seconds.Value {
			return
		}
		f.after(wait(), next)
		// Thinning: of arrivals at the highest rate only so many count.
		if swing != nil && f.load.Float64()*most > swing(f.now) {
			return
		}
		// Both are drawn in any case, so that what comes later does not depend on it.
		snapshot, at := popular.draw(f.load), f.load.Float64()
		if len(f.living) > 0 {
			f.boot(f.living[int(at*float64(len(f.living)))], snapshot)
		}
	}
	f.after(wait(), next)
}

// deaths ends nodes at random, and starts others.
func (f *fleet) deaths() {
	rate := float64(len(f.nodes)) / f.in.Load.Life.Value
	var next func()
	next = func() {
		if f.now >= f.in.Load.Seconds.Value {
			return
		}
		f.after(f.load.ExpFloat64()/rate, next)
		at := f.load.Float64()
		if len(f.living) > 0 {
			n := f.living[int(at*float64(len(f.living)))]
			f.die(n)
			f.after(f.in.Load.Rejoin.Value, func() { f.join(n.zone) })
		}
	}
	f.after(f.load.ExpFloat64()/rate, next)
}

// loseZone ends all nodes of the first zone, unless it is the only one.
func (f *fleet) loseZone() {
	for _, n := range slices.Clone(f.living) {
		if n.zone == 0 && int(f.in.Load.Zones.Value) > 1 {
			f.die(n)
		}
	}
}
