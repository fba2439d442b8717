package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/tier"
)

// preparing makes what peers will ask for of the snapshots that are here, before they do: those first that were made or used last, until there is
// no more room.
type preparing struct {
	node *Node
	*following

	mu     sync.Mutex
	pushed uint64            // tier.ShelfStats.Pushed when it was looked at last; protected by mu
	totals *control.TierMade // nil until there was a look; protected by mu
}

func newPreparing(n *Node) *preparing { return &preparing{node: n, following: newFollowing()} }

// run prepares until ctx ends, and returns nil.
func (p *preparing) run(ctx context.Context) error { return p.following.run(ctx, p.look) }

// look prepares what is not, as far as there is room, and reports whether all went well. Where nobody may ask it does nothing.
func (p *preparing) look(ctx context.Context) bool {
	readable := p.node.peers.readable()
	if readable == nil {
		return true
	}
	entries, err := p.node.store.List()
	if err != nil {
		p.node.cfg.Logger.Error("snapshots to prepare for peers cannot be listed", "err", err)
		return false
	}
	if pushed := p.node.shelf.Stats().Pushed; p.pushedSince(pushed) {
		p.again() // there may be room for it by now
	}
	todo, gone := p.changes(entries, func(e *pagestore.Entry) bool { return readable(e.Name.Namespace) }, p.node.came.of)
	if gone {
		p.node.shelf.Sweep()
	}
	slices.SortFunc(todo, func(a, b change) int { return b.used().Compare(a.used()) })
	failed, leftOut := 0, 0
	for i := range todo {
		p.note(func(t *control.TierMade) { t.Waiting = len(todo) - i + failed })
		p.node.restores.none(ctx)
		err := p.prepare(ctx, &todo[i])
		if ctx.Err() != nil {
			return false
		}
		if errors.Is(err, tier.ErrRoom) && !errors.Is(err, tier.ErrTooLarge) {
			leftOut += len(todo) - i // what comes behind it was used earlier
			break
		}
		switch {
		case errors.Is(err, tier.ErrTooLarge):
			leftOut++
		case err != nil:
			failed++
		}
	}
	p.note(func(t *control.TierMade) { t.Waiting, t.LeftOut = failed, leftOut })
	return failed == 0
}

// used is when a snapshot was made, or used last as far as that is known.
func (c *change) used() time.Time {
	if c.Used.After(c.Info.Created) {
		return c.Used
	}
	return c.Info.Created
}

// prepare prepares a snapshot. It returns an error if it makes sense to try again.
func (p *preparing) prepare(ctx context.Context, c *change) error {
	err := p.node.shelf.Prepare(ctx, c.Name, c.used())
	log := p.node.cfg.Logger.With("snapshot", c.Name.String())
	switch {
	case ctx.Err() != nil, errors.Is(err, pagestore.ErrNotFound): // removed meanwhile
		return nil
	case errors.Is(err, tier.ErrRoom):
		return err // there may be some, later
	case errors.Is(err, pagestore.ErrNotLocal): // a stub; more may come
	case err != nil:
		p.note(func(t *control.TierMade) { t.Failed++; t.LastError = err.Error() })
		if !errors.Is(err, pagestore.ErrCorrupt) {
			log.Warn("snapshot is not prepared for peers, which will be tried again", "err", err)
			return err
		}
		log.Warn("snapshot is not prepared for peers", "err", err)
	default:
		log.Debug("snapshot is prepared for peers")
	}
	p.settle(c)
	return nil
}

// pushedSince reports whether something that was prepared has gone since the last call.
func (p *preparing) pushedSince(pushed uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.pushed
	p.pushed = pushed
	return pushed != was
}

func (p *preparing) note(fn func(*control.TierMade)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.totals == nil {
		p.totals = new(control.TierMade)
	}
	fn(p.totals)
}

// report returns how far it has come; nil before the first look.
func (p *preparing) report() *control.TierMade {
	st := p.node.shelf.Stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.totals == nil {
		return nil
	}
	t := *p.totals
	t.Prepared, t.Bytes, t.Limit = st.Prepared, uint64(st.Bytes), uint64(st.Limit)
	return &t
}

// arrivals counts how often more of a stub has come.
type arrivals struct {
	mu    sync.Mutex
	count map[pagestore.Name]uint64 // protected by mu
}

func (a *arrivals) note(name pagestore.Name) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count == nil {
		a.count = make(map[pagestore.Name]uint64)
	}
	a.count[name]++
}

func (a *arrivals) of(name pagestore.Name) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[name]
}
