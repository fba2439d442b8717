package node

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/tier"
)

// pushing brings each snapshot that was made in this store to the object store. It keeps no record on the disk: what is there already is
// skipped, so that after a restart it does what is left. It never replaces a name that stands for another snapshot.
type pushing struct {
	node *Node
	wait func(ctx context.Context, d time.Duration) // tests have their own

	mu      sync.Mutex
	settled map[pagestore.Name]version // that need nothing; protected by mu
	totals  control.TierPush           // protected by mu
}

// version tells when a snapshot is another one, or something else is known of its working set.
type version struct {
	created   time.Time
	hint, hot int64
}

// Between two looks at the store. Looking reads what is in its folders, and the info of each snapshot.
const (
	pushPause    = 2 * time.Second
	pushMaxPause = time.Minute
)

func newPushing(n *Node) *pushing {
	return &pushing{node: n, settled: make(map[pagestore.Name]version), wait: func(ctx context.Context, d time.Duration) {
		t := time.NewTimer(d + time.Duration(rand.Int64N(int64(d/4)))) // so that many nodes do not come at once
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}}
}

// run pushes until ctx ends, and returns nil.
func (p *pushing) run(ctx context.Context) error {
	for pause := pushPause; ctx.Err() == nil; p.wait(ctx, pause) {
		if p.look(ctx) {
			pause = pushPause
		} else {
			pause = min(2*pause, pushMaxPause)
		}
	}
	return nil
}

// look pushes what is not there, and reports whether all went well.
func (p *pushing) look(ctx context.Context) bool {
	entries, err := p.node.store.List()
	if err != nil {
		p.node.cfg.Logger.Error("snapshots to push cannot be listed", "err", err)
		return false
	}
	todo := p.todo(entries)
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

// todo returns what has to be pushed, and forgets what is gone. Stubs came from where others can have them, too.
func (p *pushing) todo(entries []pagestore.Entry) (todo []pagestore.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	here := make(map[pagestore.Name]bool)
	for _, e := range entries {
		if e.BeingRemoved || e.Stub || e.Info == nil {
			continue
		}
		here[e.Name] = true
		if v, ok := p.settled[e.Name]; !ok || v != versionOf(&e) {
			todo = append(todo, e)
		}
	}
	maps.DeleteFunc(p.settled, func(name pagestore.Name, _ version) bool { return !here[name] })
	return todo
}

func versionOf(e *pagestore.Entry) version { return version{e.Info.Created, e.HintBytes, e.HotBytes} }

func (p *pushing) push(ctx context.Context, e *pagestore.Entry) error {
	p.mu.Lock()
	before, again := p.settled[e.Name]
	p.mu.Unlock()
	again = again && before.created.Equal(e.Info.Created) // only its working set is another
	report, err := tier.Push(ctx, p.node.store, e.Name, p.node.bucket, &tier.PushOptions{TempDir: p.node.cfg.TempDir, Refresh: again})
	if ctx.Err() != nil {
		return err
	}
	log := p.node.cfg.Logger.With("snapshot", e.Name.String())
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
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled[e.Name] = versionOf(e)
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
