package fleet

// slackFrom is the weight from which a link's rates are left as they are while its weight changes little, and slack is how
// little: else each of n streams that begin or end on one link would change the rates of n others.
const (
	slackFrom = 16
	slack     = 0.05
)

// A link is something that the jobs on it share equally, by their weights: a cable, a disk, the cores of a machine.
type link struct {
	capacity float64 // in what jobs are measured in, per second
	exact    bool    // never use slack
	weight   float64 // of all jobs
	used     float64 // the weight that the rates were computed for; never less than weight
	jobs     []*job
	// carried is told what a job has moved between two times; nil for most links.
	carried func(since, now, amount float64)
}

// A job is something that takes a share of up to two links until it is done.
type job struct {
	clock  *clock
	left   float64 // when the rate was last changed, at time since
	since  float64
	rate   float64
	limit  float64 // that the rate never exceeds
	weight float64
	links  [2]*link
	slots  [2]int // in the links' jobs
	end    *event
	broken func() // called if a link ends before the job does; may be nil
}

// share starts a job of a size on one or two links; b may be nil. done is called when it is done.
func share(c *clock, size, limit, weight float64, a, b *link, done func()) *job {
	j := &job{clock: c, left: size, since: c.now, limit: limit, weight: weight, links: [2]*link{a, b}}
	j.end = c.after(0, func() {
		j.settle()
		j.leave()
		done()
	})
	for i, l := range j.links {
		if l != nil {
			j.slots[i] = len(l.jobs)
			l.jobs = append(l.jobs, j)
			l.weight += weight
		}
	}
	j.retimeLinks()
	return j
}

// stop ends a job early and returns what was left of it. done is not called.
func (j *job) stop() (left float64) {
	j.settle()
	j.clock.cancel(j.end)
	j.leave()
	return j.left
}

// leave takes the job off its links, whose other jobs become faster.
func (j *job) leave() {
	for i, l := range j.links {
		if l == nil {
			continue
		}
		last := l.jobs[len(l.jobs)-1]
		l.jobs[j.slots[i]] = last
		for k := range last.links {
			if last.links[k] == l {
				last.slots[k] = j.slots[i]
			}
		}
		l.jobs[len(l.jobs)-1] = nil
		l.jobs = l.jobs[:len(l.jobs)-1]
		if l.weight -= j.weight; len(l.jobs) == 0 {
			l.weight = 0
		}
	}
	for _, l := range j.links {
		if l != nil {
			l.settleWeight()
		}
	}
}

// retimeLinks gives the jobs on the links of a new one their new rates, and the new one its first.
func (j *job) retimeLinks() {
	for _, l := range j.links {
		if l != nil {
			l.settleWeight()
		}
	}
	j.retime()
}

// settleWeight computes the rates of the link's jobs anew if its weight is no longer near to what they were computed for.
func (l *link) settleWeight() {
	switch {
	case l.weight == l.used:
		return
	case l.exact || l.weight < slackFrom:
		l.used = l.weight
	case l.weight > l.used:
		l.used = l.weight * (1 + slack)
	case l.weight < l.used*(1-2*slack):
		l.used = l.weight
	default:
		return
	}
	for _, j := range l.jobs {
		j.retime()
	}
}

// settle takes what was done since the last time off what is left.
func (j *job) settle() {
	now, moved := j.clock.now, min(j.left, j.rate*(j.clock.now-j.since))
	if moved > 0 {
		for _, l := range j.links {
			if l != nil && l.carried != nil {
				l.carried(j.since, now, moved)
			}
		}
	}
	j.left -= moved
	j.since = now
}

// retime computes the job's rate anew, and with it when it will be done.
func (j *job) retime() {
	rate := j.limit
	for _, l := range j.links {
		if l != nil {
			rate = min(rate, l.capacity*j.weight/l.used)
		}
	}
	if rate == j.rate {
		return
	}
	j.settle()
	j.rate = rate
	j.clock.move(j.end, j.left/rate)
}

// fail ends all jobs of the link, and says so to those that want to know.
func (l *link) fail() {
	for len(l.jobs) > 0 {
		j := l.jobs[len(l.jobs)-1]
		j.stop()
		if j.broken != nil {
			j.broken()
		}
	}
}
