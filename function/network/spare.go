package network

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// spareDelay is how long after the last one that was taken others are made: to make one takes the kernel's lock of all networks, and a CPU, which
// whoever has just been started needs.
const spareDelay = time.Second

// spares are namespaces that are attached before somebody wants them.
type spares struct {
	want int

	mu     sync.Mutex
	ready  []*Namespace   // protected by mu
	made   int            // protected by mu; ever
	timer  *time.Timer    // protected by mu; makes more
	closed bool           // protected by mu
	making sync.WaitGroup // goroutines that make more; Add only with mu held and closed not set
}

// NewAttached returns a namespace that is attached: one that was made ahead, if there is one (Options.Spares), whose name is not the given one.
func (n *Network) NewAttached(name string) (*Namespace, error) {
	if ns := n.spares.take(n); ns != nil {
		return ns, nil
	}
	ns, err := n.New(name)
	if err != nil {
		return nil, err
	}
	if err := ns.Attach(); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// take returns a spare, nil if there is none, and has others made after a while.
func (s *spares) take(n *Network) *Namespace {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.want == 0 || s.closed {
		return nil
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(spareDelay, func() { s.fill(n) })
	} else {
		s.timer.Reset(spareDelay)
	}
	if len(s.ready) == 0 {
		return nil
	}
	ns := s.ready[0]
	s.ready = s.ready[1:]
	return ns
}

// fill makes spares until there are enough, or one cannot be made: whoever wants one then learns why.
func (s *spares) fill(n *Network) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && len(s.ready) < s.want {
		s.made++
		name := fmt.Sprintf("spare-%d", s.made)
		s.making.Add(1)
		s.mu.Unlock()
		ns, err := n.New(name)
		if err == nil {
			if err = ns.Attach(); err != nil {
				err = errors.Join(err, ns.Close())
			}
		}
		s.mu.Lock()
		s.making.Done()
		if err != nil {
			n.options.Logger.Debug("no spare network namespace", "err", err)
			return
		}
		s.ready = append(s.ready, ns)
	}
}

// close makes no more. What is there is closed with the network.
func (s *spares) close() {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.making.Wait()
}
