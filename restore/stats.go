package restore

import (
	"fmt"
	"sync/atomic"
	"time"
)

// An outcome is how one attempt to resolve a fault ended.
type outcome uint8

const (
	// installed: the page is there because of this attempt.
	installed outcome = iota
	// alreadyPresent: another attempt, or the process itself, was first. The waiting threads have been woken.
	alreadyPresent
	// deferred: the address space is changing; the fault is kept and looked up anew.
	deferred
	// loading: the page has to come from storage first.
	loading
	// unmapped: nothing is registered at the address any more. The waiting threads have been woken to see that.
	unmapped
	// targetGone: the process does not exist any more.
	targetGone
	// failed: the content cannot be had; the failure policy applies.
	failed

	outcomes = int(failed) + 1
)

var outcomeNames = [outcomes]string{"installed", "already_present", "deferred", "loading", "unmapped", "target_gone", "failed"}

func (o outcome) String() string {
	if int(o) < outcomes {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// A class says why bytes were installed.
type class uint8

const (
	classDemand  class = iota // content that a thread waited for, with its neighbors in the same call
	classStream               // content that nobody had asked for yet
	classZero                 // zeros that a thread waited for
	classPreload              // content that earlier restores needed soon

	classes = int(classPreload) + 1
)

var classNames = [classes]string{"demand", "stream", "zero", "preload"}

// Stats is what a session has done so far. Byte counts are of memory installed in the processes.
type Stats struct {
	State string `json:"state"` // waiting, registering, running, draining, ended

	Processes int `json:"processes"` // ever added, forked children included
	Live      int `json:"live"`      // still served

	Faults map[string]uint64 `json:"faults"` // attempts to resolve a fault, by outcome

	BytesDemand uint64 `json:"bytes_demand"`
	BytesStream uint64 `json:"bytes_stream"`
	BytesZero   uint64 `json:"bytes_zero"`

	BytesPreload   uint64 `json:"bytes_preload"`    // all of them, and
	BytesBeforeRun uint64 `json:"bytes_before_run"` // those of them that were there before Registered

	// Pages with content that a thread waited for, the first of each fault: those that a preload had not brought yet, and those that
	// were in none. And how long threads waited, from the reading of a fault to its end, all together.
	DemandLate   uint64        `json:"demand_late"`
	DemandMissed uint64        `json:"demand_missed"`
	Waited       time.Duration `json:"waited_ns"`

	// FaultsHeld counts faults of the restorer that were not answered before the processes had what they must have, or the time was over.
	// Held is how long the processes were held for what they must have; HeldInVain says that not all of it was there then.
	FaultsHeld uint64        `json:"faults_held"`
	Held       time.Duration `json:"held_ns"`
	HeldInVain bool          `json:"held_in_vain"`

	PagesTotal   uint64 `json:"pages_total"`   // with content, in all processes that were added
	PagesSettled uint64 `json:"pages_settled"` // of those: the stream is done with them
	PagesFailed  uint64 `json:"pages_failed"`  // of those: their content could not be had

	BytesUnregistered uint64 `json:"bytes_unregistered"` // empty memory given back to the kernel before the start

	LastError string `json:"last_error,omitempty"` // of the page that failed last
}

// counters is Stats while it happens.
type counters struct {
	faults       [outcomes]atomic.Uint64
	bytes        [classes]atomic.Uint64
	processes    atomic.Int64
	live         atomic.Int64
	pagesTotal   atomic.Uint64
	pagesSettled atomic.Uint64
	pagesFailed  atomic.Uint64
	unregistered atomic.Uint64
	beforeRun    atomic.Uint64
	late, missed atomic.Uint64
	waited       atomic.Int64
}

// Stats returns a copy of the session's counters. It may be called at any time.
func (s *Session) Stats() Stats {
	c := &s.count
	st := Stats{
		Processes:         int(c.processes.Load()),
		Live:              int(c.live.Load()),
		Faults:            make(map[string]uint64, outcomes),
		BytesDemand:       c.bytes[classDemand].Load(),
		BytesStream:       c.bytes[classStream].Load(),
		BytesZero:         c.bytes[classZero].Load(),
		BytesPreload:      c.bytes[classPreload].Load(),
		BytesBeforeRun:    c.beforeRun.Load(),
		DemandLate:        c.late.Load(),
		DemandMissed:      c.missed.Load(),
		Waited:            time.Duration(c.waited.Load()),
		FaultsHeld:        uint64(s.gate.held.Load()),
		Held:              time.Duration(s.gate.took.Load()),
		HeldInVain:        s.gate.late.Load(),
		PagesTotal:        c.pagesTotal.Load(),
		PagesSettled:      c.pagesSettled.Load(),
		PagesFailed:       c.pagesFailed.Load(),
		BytesUnregistered: c.unregistered.Load(),
	}
	for o := range outcomes {
		st.Faults[outcomeNames[o]] = c.faults[o].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.State = s.stateLocked()
	if s.failures.last != nil {
		st.LastError = s.failures.last.Error()
	}
	return st
}

func (s *Session) countFault(o outcome) {
	s.count.faults[o].Add(1)
	s.opts.Metrics.faults[o].Inc()
}

func (s *Session) countBytes(c class, n uint64) {
	s.count.bytes[c].Add(n)
	s.opts.Metrics.bytes[c].Add(float64(n))
	if c == classPreload && !s.isRegistered() {
		s.count.beforeRun.Add(n)
	}
}

// countDemand counts a page with content that somebody waited for.
func (a *addressSpace) countDemand(image uint64) {
	if a.stream.layout.Preload.has(image) {
		a.s.count.late.Add(1)
	} else {
		a.s.count.missed.Add(1)
	}
}

// countWait counts a fault that has been resolved.
func (s *Session) countWait(d time.Duration) {
	s.opts.Metrics.latency.Observe(d.Seconds())
	s.count.waited.Add(int64(d))
}
