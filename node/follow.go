package node

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"thaw/pagestore"
)

// Between two looks at the store. Looking reads what is in its folders, and the info of each snapshot.
const (
	followPause    = 2 * time.Second
	followMaxPause = time.Minute
)

// following is what keeps up with a store: it looks at the snapshots again and again, and deals with what has changed since. Who writes to a store
// may be another process, which tells nobody. It keeps no record on the disk.
type following struct {
	wait  func(ctx context.Context, d time.Duration) // tests have their own
	nudge chan struct{}                              // ends a wait

	mu      sync.Mutex
	settled map[pagestore.Name]version // that were dealt with, as they were then; protected by mu
}

// version tells when a snapshot is another one, or something else is known of its working set, or more of it is here.
type version struct {
	created   time.Time
	hint, hot int64
	learned   time.Time
	came      uint64
}

func newFollowing() *following {
	f := &following{nudge: make(chan struct{}, 1), settled: make(map[pagestore.Name]version)}
	f.wait = func(ctx context.Context, d time.Duration) {
		t := time.NewTimer(d + time.Duration(rand.Int64N(int64(d/4)))) // so that many nodes do not come at once
		defer t.Stop()
		select {
		case <-t.C:
		case <-f.nudge:
		case <-ctx.Done():
		}
	}
	return f
}

// run calls look until ctx ends, and returns nil. It pauses for longer as long as look reports that not all went well.
func (f *following) run(ctx context.Context, look func(ctx context.Context) bool) error {
	for pause := followPause; ctx.Err() == nil; f.wait(ctx, pause) {
		if look(ctx) {
			pause = followPause
		} else {
			pause = min(2*pause, followMaxPause)
		}
	}
	return nil
}

// soon has the next look come at once: there is something new.
func (f *following) soon() {
	select {
	case f.nudge <- struct{}{}:
	default: // it will
	}
}

// change is a snapshot that is to be dealt with, as it is now.
type change struct {
	pagestore.Entry
	version version
}

// changes returns what is left to be dealt with of those snapshots that are wanted, and forgets what is gone, which it reports. came is how often
// more of a snapshot has come.
func (f *following) changes(entries []pagestore.Entry, wanted func(e *pagestore.Entry) bool, came func(pagestore.Name) uint64) (todo []change, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	here := make(map[pagestore.Name]bool)
	for _, e := range entries {
		if e.BeingRemoved || e.Info == nil || !wanted(&e) {
			continue
		}
		here[e.Name] = true
		now := version{e.Info.Created, e.HintBytes, e.HotBytes, e.Learned, came(e.Name)}
		if v, ok := f.settled[e.Name]; !ok || v != now {
			todo = append(todo, change{e, now})
		}
	}
	before := len(f.settled)
	maps.DeleteFunc(f.settled, func(name pagestore.Name, _ version) bool { return !here[name] })
	return todo, len(f.settled) < before
}

// settle notes that a change was dealt with.
func (f *following) settle(c *change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled[c.Name] = c.version
}

// refreshes reports whether a change is one of a snapshot that was dealt with before.
func (f *following) refreshes(c *change) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, ok := f.settled[c.Name]
	return ok && before.created.Equal(c.version.created)
}

// again has everything dealt with anew.
func (f *following) again() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.settled)
}
