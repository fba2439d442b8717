package fetch

import (
	"math"
	"slices"
	"time"
)

const (
	// sampleCount is over how many requests the 95th percentile is taken: few enough that a source which has become slow is noticed.
	sampleCount = 64
	// enoughSamples is how many there must be for a percentile that means something.
	enoughSamples = 8
	// smoothing is the weight of a new value in averages.
	smoothing = 0.2
	// stale is when what was measured does not count any more: a source that was slow once gets another chance.
	stale = 30 * time.Second
	// errorLife is in what time the memory of failures halves.
	errorLife = 10 * time.Second
	// errorWeight is how many times longer a source that always fails is taken to take.
	errorWeight = 8
	// tierWeight is how many times faster a source of the next tier has to be.
	tierWeight = 4
	// shortestHedge is the least time that a source is given before another is asked: below it the scheduler of this machine is what is
	// measured.
	shortestHedge = time.Millisecond
)

// source is what is known of a place. All fields but those of the first group are protected by Fetcher.mu.
type source struct {
	name        string
	connections int
	kept        int // of them, for demand

	running, bulk int // requests; those of bulk classes

	latency   average // to the first frame, in seconds
	perFrame  average // from one frame to the next
	measured  time.Time
	samples   []time.Duration // of the last requests; a ring
	oldest    int
	slowValue time.Duration // the 95th percentile, unless dirty
	dirty     bool

	errors   float64 // share of requests that failed, halved every errorLife
	errorsAt time.Time
	lastErr  error

	failures  int // in a row, not counting those that came while it rested
	restUntil time.Time

	lies  uint64
	lie   error  // the last
	lieOf Object // which that was about
	lieAt time.Time
	aside distrust // after lies about several objects

	stats [classes]ClassStats
}

// An average is exponentially weighted. The zero value has seen nothing.
type average struct {
	value float64
	any   bool
}

func (a *average) add(v float64) {
	if !a.any {
		a.value, a.any = v, true
		return
	}
	a.value += smoothing * (v - a.value)
}

func (a *average) duration() time.Duration { return time.Duration(a.value * float64(time.Second)) }

// room reports whether a request of a class may start.
func (s *source) room(class Class) bool {
	if s.running >= s.connections {
		return false
	}
	return class == Demand || s.bulk < s.connections-s.kept
}

// answered notes that a request has brought its first frame.
func (s *source) answered(class Class, took time.Duration, now time.Time) {
	s.stats[class].FirstFrame.add(took)
	s.sample(took, now)
	s.failures = 0
	s.decay(now)
	s.errors *= 1 - smoothing
}

// silent notes that a request has not brought a frame in that time, and that nobody waits for it any more: another source was faster. It
// counts as a failure, too: the average would take long to notice a source that has died, and each look at it costs a hedge.
func (s *source) silent(took time.Duration, now time.Time) {
	s.blame(now)
	if took > s.latency.duration() {
		s.sample(took, now)
	}
}

func (s *source) sample(took time.Duration, now time.Time) {
	s.latency.add(took.Seconds())
	s.measured, s.dirty = now, true
	if len(s.samples) < sampleCount {
		s.samples = append(s.samples, took)
		return
	}
	s.samples[s.oldest] = took
	s.oldest = (s.oldest + 1) % sampleCount
}

// slow returns the 95th percentile of the time to the first frame; 0 if too little is known.
func (s *source) slow() time.Duration {
	if len(s.samples) < enoughSamples {
		return 0
	}
	if s.dirty {
		var buf [sampleCount]time.Duration
		sorted := append(buf[:0], s.samples...)
		slices.Sort(sorted)
		s.slowValue, s.dirty = sorted[len(sorted)*95/100], false
	}
	return s.slowValue
}

// hedgeAfter returns how long to wait for a frame before another source is asked.
func (s *source) hedgeAfter(o *Options) time.Duration {
	d := s.slow()
	if d == 0 {
		return o.Hedge
	}
	// Times of a quiet source lie so close together that many would come just after the percentile: an eighth more spares their hedges.
	return min(max(d+d/8, shortestHedge), o.Stall/2)
}

func (s *source) blame(now time.Time) {
	s.decay(now)
	s.errors += smoothing * (1 - s.errors)
}

func (s *source) decay(now time.Time) {
	s.errors *= math.Exp2(-now.Sub(s.errorsAt).Seconds() / errorLife.Seconds())
	s.errorsAt = now
}

// failed notes that a request has failed.
func (s *source) failed(kind Kind, err error, o *Options, now time.Time) {
	s.lastErr = err
	if kind == NotHere || kind == Differs {
		return
	}
	s.blame(now)
	if now.Before(s.restUntil) {
		return // it failed together with others, once
	}
	s.failures++
	rests := s.failures - 1
	if kind == Busy {
		rests++ // it has said what it wants
	}
	if rests > 0 {
		s.restUntil = now.Add(o.jittered(doubled(2*o.Backoff, o.MaxBackoff, rests)))
	}
}

// cost returns how long frames are expected to take in seconds, without what runs. each is for how long a further frame is taken to take if
// that is not known of this source. ok is false if nothing is known.
func (s *source) cost(frames int, each float64, now time.Time) (seconds float64, ok bool) {
	if !s.latency.any || now.Sub(s.measured) > stale {
		return 0, false
	}
	if s.perFrame.any {
		each = s.perFrame.value
	}
	return s.latency.value + float64(frames-1)*each, true
}

// unreliable is by how much failures of late make it worse.
func (s *source) unreliable(now time.Time) float64 {
	return 1 + errorWeight*s.errors*math.Exp2(-now.Sub(s.errorsAt).Seconds()/errorLife.Seconds())
}
