package pagestore

import "sync"

// line is chunks that wait for a step which is done one at a time and in image order. The zero line is empty.
type line struct {
	mu      sync.Mutex
	waiting map[uint64]*chunk // by number; protected by mu
	next    uint64            // number of the chunk whose turn it is; protected by mu
	served  bool              // somebody does the step, or has failed to; protected by mu
}

// add puts a chunk into the line. The caller sees to it that somebody calls serve after that.
func (l *line) add(c *chunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		l.waiting = make(map[uint64]*chunk)
	}
	l.waiting[c.number] = c
}

// serve does the step for each chunk whose turn comes while it does, unless somebody else is about that: then they see to the chunks that
// the caller has added. After an error no chunk has its turn any more.
func (l *line) serve(step func(*chunk) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.served {
		return nil
	}
	l.served = true
	for c := l.pop(); c != nil; c = l.pop() {
		l.mu.Unlock()
		err := step(c)
		l.mu.Lock()
		if err != nil {
			return err
		}
	}
	l.served = false
	return nil
}

// pop returns the chunk whose turn it is, nil if it has not come yet. l.mu is held.
func (l *line) pop() *chunk {
	c := l.waiting[l.next]
	if c != nil {
		delete(l.waiting, l.next)
		l.next++
	}
	return c
}
