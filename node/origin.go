package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/tier"
)

// ErrDeadline: a page did not come within Config.PageDeadline.
var ErrDeadline = errors.New("page did not come in time")

// origin is the node's tier.Origin with the failure policy's deadline.
type origin struct {
	node     *Node
	inner    pagestore.Origin
	deadline time.Duration
}

var _ pagestore.Origin = (*origin)(nil)

// Fetch implements [pagestore.Origin]. A page that a process waits for has the deadline. Of what is brought in bulk there must come a frame
// within it: who waits is a stream, which may be long.
func (o *origin) Fetch(ctx context.Context, p *pagestore.RemotePack, first, n int, class pagestore.Class) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var left int
	if class != pagestore.Demand {
		left = missing(p, first, n)
	}
	var timer *time.Timer
	mu.Lock()
	timer = time.AfterFunc(o.deadline, func() {
		mu.Lock()
		defer mu.Unlock()
		if class != pagestore.Demand && ctx.Err() == nil {
			if now := missing(p, first, n); now < left {
				left = now
				timer.Reset(o.deadline)
				return
			}
		}
		cancel(fmt.Errorf("%w: %v", ErrDeadline, o.deadline))
	})
	mu.Unlock()
	defer func() {
		mu.Lock() // p must not be looked at when this has returned
		defer mu.Unlock()
		timer.Stop()
		cancel(nil)
	}()
	err := o.inner.Fetch(ctx, p, first, n, class)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrDeadline) && !errors.Is(err, ErrDeadline) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

func missing(p *pagestore.RemotePack, first, n int) (frames int) {
	for i := first; i < first+n; i++ {
		if p.Missing(i) {
			frames++
		}
	}
	return frames
}

// FetchHot implements [pagestore.Origin]. It has no deadline of its own: a stream that stalls is given up soon, and who waits for a page of it
// asks for that page.
func (o *origin) FetchHot(ctx context.Context, h *pagestore.RemoteHot) error {
	if err := o.inner.FetchHot(ctx, h); err != nil {
		return err
	}
	key := tier.HotKey(h.Snapshot.Namespace, h.Manifest, h.Root).String()
	h.WhenSettled(func() {
		o.node.mu.Lock()
		o.node.stubs[key], o.node.warm[key] = h.Snapshot, true
		o.node.mu.Unlock()
		o.node.noteCame(h.Snapshot)
	})
	return nil
}
