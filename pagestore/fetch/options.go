package fetch

import (
	"log/slog"
	"math/rand/v2"
	"time"
)

// Options are how a [Fetcher] works. The zero value is of use.
type Options struct {
	// Connections is how many requests one source gets at the same time. Default 4.
	Connections int
	// Kept is how many of them bulk leaves to demand, at most all but one. Default 1; negative: none.
	Kept int
	// MaxFrames is the longest range. Default 32: 4 MiB of frames of 128 KiB.
	MaxFrames int
	// MaxDemandFrames is the longest range of demand. Default 8: what waits behind it is a process, too.
	MaxDemandFrames int
	// Near is how many frames may lie between the next that a range on its way will bring and one that a process waits for; if there are
	// more, that frame is asked for by itself. Default 4; negative: none.
	Near int

	// Stall is how long a source may take for a frame, the first or the next, before its request is given up. Default 5 s. It is for
	// sources that have died; the slow are left behind by hedges long before.
	Stall time.Duration
	// Hedge is after what time a second source is asked for a frame that a process waits for, as long as nothing is known of the first one.
	// Default 50 ms. Later it is the 95th percentile of that source's own times to the first frame, and an eighth more.
	Hedge time.Duration
	// HedgeShare is how many hedges there may be for each request of demand. Default 0.1; negative: none.
	HedgeShare float64
	// RetryShare is how many requests may be repeated for each that succeeds. Default 0.2. Besides, there may be some each second: without
	// them nobody would notice that a place is back.
	RetryShare float64

	// Backoff is for how long a frame rests that all sources have failed to bring, the first time; it doubles each time, up to MaxBackoff.
	// Defaults 50 ms and 2 s.
	Backoff, MaxBackoff time.Duration
	// Aside is for how long a source is not asked for an object that has delivered wrong bytes of it, or for anything if they were of several objects, the
	// first time; it doubles each time, up to MaxAside, and is forgotten after as long without another. It also is for how long one is not asked for
	// an object of which it has another. Defaults 1 min and 1 h.
	Aside, MaxAside time.Duration
	// Forget is for how long a source is not asked for an object that it does not have, and the most for one of which it does not have the frames
	// that it is asked for, time and again. Default 5 s.
	Forget time.Duration

	// Observe, if it is set, is told of each request when it has ended. It may be called by several goroutines at the same time, and Close
	// waits for it.
	Observe func(Event)
	// Log is told of sources that deliver wrong bytes; nil: nobody is.
	Log *slog.Logger
	// Random returns numbers in [0, 1), for jitter; nil: those of math/rand. It is called by one goroutine at a time, with the Fetcher's
	// lock held.
	Random func() float64
}

func (o *Options) setDefaults() {
	setDefault(&o.Connections, 4)
	setDefault(&o.Kept, 1)
	o.Kept = max(o.Kept, 0)
	setDefault(&o.MaxFrames, 32)
	setDefault(&o.MaxDemandFrames, 8)
	setDefault(&o.Near, 4)
	setDefault(&o.Stall, 5*time.Second)
	setDefault(&o.Hedge, 50*time.Millisecond)
	setDefault(&o.HedgeShare, 0.1)
	o.HedgeShare = max(o.HedgeShare, 0)
	setDefault(&o.RetryShare, 0.2)
	setDefault(&o.Backoff, 50*time.Millisecond)
	setDefault(&o.MaxBackoff, 2*time.Second)
	setDefault(&o.Aside, time.Minute)
	setDefault(&o.MaxAside, time.Hour)
	setDefault(&o.Forget, 5*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// doubled returns base, doubled times-1 times, but at most limit.
func doubled(base, limit time.Duration, times int) time.Duration {
	for ; times > 1 && base < limit; times-- {
		base *= 2
	}
	return min(base, limit)
}

// jittered returns between a half of d and d, so that those who failed together do not come back together.
func (o *Options) jittered(d time.Duration) time.Duration {
	return d/2 + time.Duration(o.Random()*float64(d)/2)
}
