package pagestore

import (
	"math"
	"sync/atomic"
)

// gate keeps memory mapped while calls use it, without a lock: callers enter and leave, close waits for the last of
// them and turns away all that follow. Make one with newGate.
type gate struct {
	// users counts the calls inside; math.MinInt64 is added once the gate is closed, so a negative value means closed.
	users atomic.Int64
	// idle has room for one message: a closed gate came to zero users.
	idle chan struct{}
}

func newGate() *gate { return &gate{idle: make(chan struct{}, 1)} }

// enter reports whether the gate is open; if so the caller must leave.
func (g *gate) enter() bool {
	if g.users.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.users.Add(-1) == math.MinInt64 {
		select {
		case g.idle <- struct{}{}:
		default: // close has been told, by somebody before us who found the gate closed
		}
	}
}

// close must be called once.
func (g *gate) close() {
	if g.users.Add(math.MinInt64) != math.MinInt64 {
		<-g.idle
	}
}
