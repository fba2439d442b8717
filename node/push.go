package node

import (
	"context"
	"errors"
	"sync"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/tier"
)

// pushing brings each snapshot that was made in this store to the object store. What is there already is skipped, so that after a restart it does
// what is left. It never replaces a name that stands for another snapshot.
type pushing struct {
	node *Node
	*following

	mu     sync.Mutex
	totals control.TierPush // protected by mu
}

func newPushing(n *Node) *pushing { return &pushing{node: n, following: newFollowing()} }

// run pushes until ctx ends, and returns nil.
func (p *pushing) run(ctx context.Context) error { return p.following.run(ctx, p.look) }

// look pushes what is not there, and reports whether all went well.
func (p *pushing) look(ctx context.Context) bool {
	entries, err := p.node.store.List()
	if err != nil {
		p.node.cfg.Logger.Error("snapshots to push cannot be listed", "err", err)
		return false
	}
	// Stubs came from where others can have them, too.
	todo, _ := p.changes(entries, func(e *pagestore.Entry) bool { return !e.Stub }, func(pagestore.Name) uint64 { return 0 })
	failed := 0
	for i := range todo {
		p.note(func(t *control.TierPush) { t.Waiting = len(todo) - i + failed })
		if err := p.push(ctx, &todo[i]); err != nil {
			failed++
		}
		if ctx.Err() != nil {
			return false
		}
	}
	p.note(func(t *control.TierPush) { t.Waiting = failed })
	return failed == 0
}

func (p *pushing) push(ctx context.Context, c *change) error {
	report, err := tier.Push(ctx, p.node.store, c.Name, p.node.bucket, &tier.PushOptions{TempDir: p.node.cfg.TempDir, Refresh: p.refreshes(c)})
	if ctx.Err() != nil {
		return err
	}
	log := p.node.cfg.Logger.With("snapshot", c.Name.String())
	p.note(func(t *control.TierPush) {
		t.SentBytes += uint64(report.SentBytes)
		if err != nil {
			t.Failed++
			t.LastError = err.Error()
		} else {
			t.Pushed++
		}
	})
	switch {
	case errors.Is(err, pagestore.ErrNotFound): // removed meanwhile
		return nil
	case errors.Is(err, pagestore.ErrExists):
		log.Error("another snapshot has this name in the object store: push it by hand, with force, or give it another name", "err", err)
	case err != nil:
		log.Error("snapshot is not pushed, and will be tried again", "err", err)
		return err
	default:
		log.Info("snapshot is pushed", "bytes", report.Bytes, "sent_bytes", report.SentBytes, "seconds", report.Duration.Seconds())
	}
	p.settle(c)
	return nil
}

func (p *pushing) note(fn func(*control.TierPush)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(&p.totals)
}

func (p *pushing) report() *control.TierPush {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.totals
	return &t
}
