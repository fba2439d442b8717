package fleet

import (
	"math"
	"math/rand/v2"
)

const (
	// frameBytes is the least that is fetched.
	frameBytes = 128 << 10
	// maxParts bounds the parts of a working set, and those of the rest. With the others they fit into the 64 bits of an entry.
	maxParts = 24
)

// A chunk is one part of one snapshot.
type chunk struct {
	snapshot, part int
}

// A part is what is fetched in one go.
type part struct {
	bytes    int64
	rounds   int // answers that are waited for, one after the other
	requests int // of an object store
}

// A plan is how a kind of snapshot is cut into parts: first meta, then the working set, what is missed, the rest.
type plan struct {
	kind  *Kind
	parts []part
	// set, missed and rest are where those begin.
	set, missed, rest int
}

func newPlan(in *Inputs, k *Kind) *plan {
	p := &plan{kind: k, set: 1}
	add := func(total float64, n, rounds int) {
		done := int64(0)
		for i := range n {
			upTo := int64(total * float64(i+1) / float64(n))
			bytes := upTo - done
			p.parts = append(p.parts, part{bytes, rounds, max(rounds, int(math.Ceil(float64(bytes)/in.Fetch.Range.Value)))})
			done = upTo
		}
	}
	pieces := func(bytes float64) int { return min(maxParts, int(math.Ceil(bytes/in.Chunk.Value))) }
	// The name, the descriptor, then the rest of meta.
	add(k.MetaBytes.Value, 1, 3)
	add(k.SetBytes.Value, pieces(k.SetBytes.Value), 1)
	p.missed = len(p.parts)
	missed := k.Missed.Value * frameBytes
	if missed >= 1 {
		add(missed, 1, max(1, int(k.Missed.Value)))
	}
	p.rest = len(p.parts)
	rest := k.Bytes.Value - k.SetBytes.Value - missed
	add(rest, pieces(rest), 1)
	return p
}

// catalog returns the plan of each snapshot. The first one is of the first kind; the others are mixed by weight.
func catalog(in *Inputs, r *rand.Rand) []*plan {
	var plans []*plan
	var sums []float64
	sum := 0.0
	for i := range in.Kinds {
		plans = append(plans, newPlan(in, &in.Kinds[i]))
		sum += in.Kinds[i].Weight.Value
		sums = append(sums, sum)
	}
	snapshots := make([]*plan, int(in.Load.Snapshots.Value))
	for i := range snapshots {
		snapshots[i] = plans[0]
		if i > 0 {
			snapshots[i] = plans[zipf(sums).draw(r)]
		}
	}
	return snapshots
}
