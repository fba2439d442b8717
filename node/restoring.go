package node

import (
	"context"
	"sync"
	"time"
)

// restoringPatience is for how long a restore puts off what nobody waits for: there may always be one. Not measured.
const restoringPatience = 10 * time.Second

// restoring is how many restores run.
type restoring struct {
	mu   sync.Mutex
	n    int           // protected by mu
	over chan struct{} // closed when n becomes 0; nil if it is; protected by mu
}

// begin counts a restore, until done is called, which may be called again.
func (r *restoring) begin() (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == 0 {
		r.over = make(chan struct{})
	}
	r.n++
	return sync.OnceFunc(r.end)
}

func (r *restoring) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 {
		close(r.over)
		r.over = nil
	}
}

// none waits until no restore runs, for a while at most.
func (r *restoring) none(ctx context.Context) {
	r.mu.Lock()
	over := r.over
	r.mu.Unlock()
	if over == nil {
		return
	}
	patience := time.NewTimer(restoringPatience)
	defer patience.Stop()
	select {
	case <-over:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// Restoring says that a restore has begun on this machine; done, that it is over, or needs little any more. Meanwhile the node puts off what nobody
// waits for. done may be called more than once.
func (n *Node) Restoring() (done func()) { return n.restores.begin() }
