package fleet

// An event is something that happens at a time. It belongs to one clock, which runs it once at most.
type event struct {
	at    float64 // seconds
	seq   uint64  // of two at the same time the one that was made first happens first: so a run can be repeated
	index int     // in the clock's heap; -1 if it is not in it
	run   func()
}

// A clock is simulated time: a heap of what is to happen.
type clock struct {
	now  float64 // seconds
	seq  uint64
	heap []*event
}

// after has run called once d seconds have passed.
func (c *clock) after(d float64, run func()) *event {
	c.seq++
	e := &event{at: c.now + d, seq: c.seq, index: len(c.heap), run: run}
	c.heap = append(c.heap, e)
	c.up(e.index)
	return e
}

// move has an event that has not happened yet happen d seconds from now instead.
func (c *clock) move(e *event, d float64) {
	e.at = c.now + d
	c.up(e.index)
	c.down(e.index)
}

// cancel takes an event away. Of nil, and of one that has happened, it does nothing.
func (c *clock) cancel(e *event) {
	if e == nil || e.index < 0 {
		return
	}
	i, last := e.index, len(c.heap)-1
	c.swap(i, last)
	c.heap[last] = nil
	c.heap = c.heap[:last]
	e.index = -1
	if i < last {
		c.up(i)
		c.down(i)
	}
}

// step lets the next event happen. It returns false if there is none.
func (c *clock) step() bool {
	if len(c.heap) == 0 {
		return false
	}
	e := c.heap[0]
	c.cancel(e)
	c.now = e.at
	e.run()
	return true
}

func (c *clock) before(i, j int) bool {
	a, b := c.heap[i], c.heap[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (c *clock) swap(i, j int) {
	c.heap[i], c.heap[j] = c.heap[j], c.heap[i]
	c.heap[i].index, c.heap[j].index = i, j
}

func (c *clock) up(i int) {
	for i > 0 && c.before(i, (i-1)/2) {
		c.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (c *clock) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(c.heap); child++ {
			if c.before(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		c.swap(i, least)
		i = least
	}
}
