package fleet

import (
	"math"

	"thaw/bench/result"
)

// Bytes counts bytes by tier.
type Bytes struct {
	// Local came from the node's own store, Peer from one that had it or was getting it, Through from one that had to read it from the
	// object store for this request, Object from the object store.
	Local   int64 `json:"local"`
	Peer    int64 `json:"peer"`
	Through int64 `json:"peer_that_fetched_it"`
	Object  int64 `json:"object_store"`
}

// Total returns the sum of all tiers.
func (b *Bytes) Total() int64 { return b.Local + b.Peer + b.Through + b.Object }

// Shares returns the parts of all bytes that were local, came from a peer that had them, and were read from the object store for who needed them.
func (b *Bytes) Shares() (local, peer, object float64) {
	total := max(1, float64(b.Total()))
	return float64(b.Local) / total, float64(b.Peer) / total, float64(b.Through+b.Object) / total
}

func (b *Bytes) of(t tier) *int64 {
	return [tiers]*int64{&b.Local, &b.Peer, &b.Through, &b.Object}[t]
}

// binSeconds is the resolution of curves.
const binSeconds = 1.0

// stats is what a run counts.
type stats struct {
	Boots, Answered, Lost int
	// Needed is what was needed of each class. It came from a tier (Served), or a flight brought it that was on its way already (Joined), or
	// its node died before it came (Abandoned).
	Needed, Joined, Abandoned [classes]int64
	Served                    [classes]Bytes

	Requests                         int // of the object store
	Hedges, HedgesWon, Busy, NotHere int
	Timeouts                         int
	CrossZone                        int64 // bytes between zones
	from                             float64
	counted                          Bytes // of boots' needs, from then on
	countedObject, countedRequests   int64
	reads                            map[chunk]int64 // bytes that the object store sent
	responses                        []float64       // seconds
	served                           [tiers][]int64  // all classes, in each bin
	requests                         []int64
	objectSent                       []float64 // bytes of the object store, in each bin
}

func (s *stats) needed(k class, bytes int64) { s.Needed[k] += bytes }

// count counts bytes of a class that came from a tier between two times.
func (s *stats) count(since, now float64, k class, t tier, bytes int64) {
	*s.Served[k].of(t) += bytes
	if k == demand && now >= s.from {
		*s.counted.of(t) += bytes
	}
	spread(&s.served[t], since, now, bytes)
}

// arrived counts bytes that an attempt has brought.
func (s *stats) arrived(a *attempt, bytes int64) {
	f := a.f
	t := object
	switch from := a.from.node; {
	case from == nil:
		s.reads[f.c] += bytes
		if f.n.f.now >= s.from {
			s.countedObject += bytes
		}
	case a.through:
		t = through
	default:
		t = peer
	}
	if from := a.from.node; from != nil && from.zone != f.n.zone {
		s.CrossZone += bytes
	}
	s.count(a.since, f.n.f.now, f.class, t, bytes)
}

// sent notes what the object store has sent between two times at a steady rate.
func (s *stats) sent(since, now, bytes float64) {
	last := int(now / binSeconds)
	for len(s.objectSent) <= last {
		s.objectSent = append(s.objectSent, 0)
	}
	for i := int(since / binSeconds); i <= last; i++ {
		from, to := max(since, float64(i)*binSeconds), min(now, float64(i+1)*binSeconds)
		s.objectSent[i] += bytes * (to - from) / (now - since)
	}
}

// asked counts requests of the object store, at the time when it serves them.
func (s *stats) asked(now float64, requests int) {
	s.Requests += requests
	if now >= s.from {
		s.countedRequests += int64(requests)
	}
	spread(&s.requests, now, now, int64(requests))
}

// spread adds n to the bins between two times, evenly.
func spread(bins *[]int64, since, now float64, n int64) {
	first, last := int(since/binSeconds), int(now/binSeconds)
	for len(*bins) <= last {
		*bins = append(*bins, 0)
	}
	done := int64(0)
	for i := first; i <= last; i++ {
		upTo := n
		if i < last {
			upTo = int64(float64(n) * (float64(i+1)*binSeconds - since) / (now - since))
		}
		(*bins)[i] += upTo - done
		done = upTo
	}
}

// A Run is what one simulation came to.
type Run struct {
	Scenario Scenario `json:"scenario"`
	Nodes    int      `json:"nodes"`
	// Alone says that there were no peers: what a node does not hold it reads from the object store. It is the baseline.
	Alone bool   `json:"object_store_alone"`
	Seed  uint64 `json:"seed"`
	// Seconds is how long it went on, in simulated time, and From where the time that counts begins: boots that started earlier
	// found nothing anywhere, and would tell of that only.
	Seconds float64 `json:"seconds"`
	From    float64 `json:"counted_from_s"`

	// Boots that counted: begun, answered, and lost because their node died.
	Boots    int `json:"boots"`
	Answered int `json:"answered"`
	Lost     int `json:"lost"`
	// FirstResponse is in seconds, of the answered ones.
	FirstResponse result.Quantiles `json:"first_response_s"`
	// Served is what boots needed before their first response, in the time that counts; a chunk that another boot of the node was
	// bringing already is left out.
	Served Bytes  `json:"served_before_first_response_bytes"`
	Object Origin `json:"object_store"`
	// AllServed is what came in the whole run, also for the rest of snapshots and for others.
	AllServed Bytes `json:"served_in_all_bytes"`
	CrossZone int64 `json:"between_zones_bytes"`
	Hedges    int   `json:"hedges"`
	HedgesWon int   `json:"hedges_won"`
	Busy      int   `json:"busy_answers"`
	NotHere   int   `json:"not_here_answers"`
	Timeouts  int   `json:"timeouts"`
	// Curve is the bytes that came from each tier until the end of each second.
	Curve []Second `json:"curve"`

	responses []float64
}

// Origin is what the object store had to do.
type Origin struct {
	// Bytes and Requests are those in the time that counts.
	Bytes    int64 `json:"bytes"`
	Requests int64 `json:"requests"`
	// AllRequests are those of the whole run; Peaks are of any second of it.
	AllRequests  int   `json:"requests_in_all"`
	PeakBytes    int64 `json:"peak_bytes_per_s"`
	PeakRequests int64 `json:"peak_requests_per_s"`
	// Reads is how many times a chunk was read, over the whole run: on average of those that were read at all, and at most.
	Reads     float64 `json:"reads_of_a_chunk"`
	MostReads float64 `json:"most_reads_of_a_chunk"`
}

// A Second is the state of the fleet at a time.
type Second struct {
	At     float64 `json:"t"`
	Served Bytes   `json:"served_bytes"`
}

// run returns what a simulation came to.
func (f *fleet) run() *Run {
	s := &f.stats
	r := &Run{
		Seconds: f.now, From: f.from, Boots: s.Boots, Answered: s.Answered, Lost: s.Lost,
		FirstResponse: result.QuantilesOf(s.responses), Served: s.counted, CrossZone: s.CrossZone,
		Object: Origin{Bytes: s.countedObject, Requests: s.countedRequests, AllRequests: s.Requests},
		Hedges: s.Hedges, HedgesWon: s.HedgesWon, Busy: s.Busy, NotHere: s.NotHere, Timeouts: s.Timeouts,
		responses: s.responses,
	}
	for k := range classes {
		for t := range tiers {
			*r.AllServed.of(t) += *s.Served[k].of(t)
		}
	}
	for _, n := range s.objectSent {
		r.Object.PeakBytes = max(r.Object.PeakBytes, int64(n/binSeconds))
	}
	for _, n := range s.requests {
		r.Object.PeakRequests = max(r.Object.PeakRequests, int64(float64(n)/binSeconds))
	}
	var read, whole float64
	for c, n := range s.reads {
		size := f.plans[c.snapshot].parts[c.part].bytes
		read += float64(n)
		whole += float64(size)
		r.Object.MostReads = max(r.Object.MostReads, float64(n)/float64(size))
	}
	if whole > 0 {
		// The sums are of whole numbers below 2^53, so that the order in which a map is walked does not show.
		r.Object.Reads = read / whole
	}
	bins := 0
	for t := range tiers {
		bins = max(bins, len(s.served[t]))
	}
	// At most so many points, however long the run was.
	const points = 120
	step := int(math.Ceil(float64(bins) / points))
	var sum Bytes
	for i := range bins {
		for t := range tiers {
			if i < len(s.served[t]) {
				*sum.of(t) += s.served[t][i]
			}
		}
		if (i+1)%step == 0 || i == bins-1 {
			r.Curve = append(r.Curve, Second{float64(i+1) * binSeconds, sum})
		}
	}
	return r
}
