package fetch

import (
	"slices"
	"strings"
	"time"
)

// buckets are the upper bounds of [Histogram], and fit for a Prometheus histogram: from what a peer beside us takes to what is wrong anywhere.
var buckets = [...]time.Duration{
	200 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second,
}

// Buckets returns the upper bounds of the buckets of a [Histogram], ascending; the last bucket, which has all that is above, is not among
// them.
func Buckets() []time.Duration { return slices.Clone(buckets[:]) }

// A Histogram counts durations.
type Histogram struct {
	Counts [len(buckets) + 1]uint64 // by bucket: those at most Buckets()[i], and above the bound before
	Sum    time.Duration
}

func (h *Histogram) add(d time.Duration) {
	i, _ := slices.BinarySearch(buckets[:], d)
	h.Counts[i]++
	h.Sum += d
}

// ClassStats is what one source did for one class. All but the histogram are counters that only grow, for Prometheus: const metrics with
// the labels source and class, of errors kind, too. Sources are as many as the fleet has nodes.
type ClassStats struct {
	// Requests that were started. Retries, Hedges and Overtakes are those of them that were not for frames asked for the first time.
	Requests, Retries, Hedges, Overtakes uint64
	// HedgesWon are those that delivered a frame before the request that they were started for; HedgesWasted the others that have ended.
	HedgesWon, HedgesWasted uint64
	// Frames that were delivered and taken, and their content's Bytes. How many bytes that is on the wire, the source knows.
	Frames, Bytes uint64
	// WastedFrames were delivered and not taken, because another request had brought them, nobody wanted them any more, or they were wrong.
	WastedFrames, WastedBytes uint64
	// Errors that requests ended with, by kind.
	Errors [kinds]uint64
	// FirstFrame is the time from the start of a request to its first frame, of those that delivered one.
	FirstFrame Histogram
}

// SourceStats is what is known of a source.
type SourceStats struct {
	Source  string
	Classes [classes]ClassStats
	// Running requests. Those that were given up count until the source has returned.
	Running int
	// Typical is the smoothed time to the first frame, Slow its 95th percentile over the last requests; 0 if nothing is known.
	Typical, Slow time.Duration
	// Lies is how often it delivered wrong bytes. SetAside is until when it is not asked for anything, as long as there is another to ask, because they
	// were of several objects; zero if they never were.
	Lies     uint64
	SetAside time.Time
	// LastError is what a request ended with last, of those that failed.
	LastError error
}

// Stats is what a Fetcher has done and is doing.
type Stats struct {
	Sources []SourceStats // by name; all that were named since New
	// Calls is how many calls of Fetch there were, by class; Joined how many of their frames were in flight already.
	Calls  [classes]uint64
	Joined uint64
	// Flights is how many frames are waited for now.
	Flights int
}

// Stats returns what has happened so far.
func (f *Fetcher) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Stats{Calls: f.calls, Joined: f.joined, Flights: f.flights}
	for _, src := range f.sources {
		s.Sources = append(s.Sources, SourceStats{
			Source: src.name, Classes: src.stats, Running: src.running, Typical: src.latency.duration(), Slow: src.slow(),
			Lies: src.lies, SetAside: src.aside.until, LastError: src.lastErr,
		})
	}
	slices.SortFunc(s.Sources, func(a, b SourceStats) int { return strings.Compare(a.Source, b.Source) })
	return s
}

// A Cause says why a request was started.
type Cause uint8

// The causes.
const (
	First    Cause = iota // its frames had not been asked for
	Retry                 // a request for them had failed
	Hedge                 // a request for them takes longer than usual
	Overtake              // a process waits for a frame that a range will reach much later
)

var causeNames = [...]string{"first", "retry", "hedge", "overtake"}

func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return "unknown cause"
}

// An Event is a request that has ended.
type Event struct {
	Object Object
	Source string
	Class  Class
	Cause  Cause
	// First and Frames say what was asked for, Taken and Bytes how many frames, with how much content, were delivered and taken.
	First, Frames, Taken int
	Bytes                int64
	// Started is when it was, FirstFrame how long after that the first frame came, 0 if none did, Took how long it took in all.
	Started          time.Time
	FirstFrame, Took time.Duration
	// Err is why it failed; nil also if it was cancelled because nobody wanted the rest.
	Err error
}
