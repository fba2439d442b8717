package restore

import "time"

const (
	// patienceFor is how long a reader asks for the next fault without sleeping. A thread that walks through missing pages
	// faults again some 5 us after it got the last one.
	patienceFor = 50 * time.Microsecond
	// patienceLost is after how many vain waits in a row a reader sleeps at once, and patienceRest for how many faults then: where
	// faults are rare, or the CPU is needed by the very thread that would fault, not to sleep only costs.
	patienceLost = 3
	patienceRest = 64
)

// patience decides whether a reader waits awake.
type patience struct {
	policy WaitPolicy
	until  time.Time // awake, if adaptive; zero: asleep
	vain   int       // waits in a row that found nothing
	rest   int       // faults until the next try
}

func newPatience(p WaitPolicy) patience { return patience{policy: p} }

// awake reports whether the next wait should not sleep.
func (p *patience) awake(now time.Time) bool {
	if p.policy != WaitAdaptive {
		return p.policy == WaitSpin
	}
	if p.until.IsZero() || now.Before(p.until) {
		return !p.until.IsZero()
	}
	p.until = time.Time{}
	if p.vain++; p.vain == patienceLost {
		p.vain, p.rest = 0, patienceRest
	}
	return false
}

// found says that faults were served at now.
func (p *patience) found(now time.Time) {
	if !p.until.IsZero() {
		p.vain = 0
	}
	if p.rest > 0 {
		p.rest--
		return
	}
	p.until = now.Add(patienceFor)
}
