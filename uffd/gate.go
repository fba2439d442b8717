package uffd

import (
	"math"
	"sync/atomic"
)

// gate counts the users of a descriptor, so that closing it can wait for them: a number that is closed under
// a system call may be given to another file before the call begins.
//
// state is the number of users, plus shut once close has been called.
//
// INVARIANT: after shut was added, the count only falls.
type gate struct {
	state   atomic.Int64
	drained chan struct{} // closed by whoever brings state down to shut
}

const shut = math.MinInt64

func newGate() gate { return gate{drained: make(chan struct{})} }

// enter returns false if the gate is shut; else leave must follow.
func (g *gate) enter() bool {
	for {
		n := g.state.Load()
		if n < 0 {
			return false
		}
		if g.state.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *gate) leave() {
	if g.state.Add(-1) == shut {
		close(g.drained)
	}
}

// shutAndWait closes the gate and waits until all users have left. first is true for one caller only.
func (g *gate) shutAndWait() (first bool) {
	for {
		n := g.state.Load()
		if n < 0 {
			<-g.drained
			return false
		}
		if !g.state.CompareAndSwap(n, n+shut) {
			continue
		}
		if n == 0 {
			close(g.drained)
		}
		<-g.drained
		return true
	}
}
