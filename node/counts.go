package node

import (
	"errors"
	"sync"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/fetch"
	"thaw/pagestore/tier"
)

// counts are what came from where, as requests end.
type counts struct {
	store string // of what name the object store is; immutable once there are requests

	mu      sync.Mutex
	objects map[string]*brought  // by key; protected by mu
	hot     map[string]*hotCount // by source; protected by mu
}

// brought is what came of an object.
type brought struct{ peer, store control.TierCount }

// hotCount is what came of hot objects from one source: the fetcher knows only of lies about them.
type hotCount struct {
	class control.TierClass
	began uint64        // requests that began to deliver
	first time.Duration // until then, in all
}

// observe is told of each request that has ended.
func (c *counts) observe(e fetch.Event) {
	key, err := tier.ObjectKey(e.Object)
	if err != nil {
		return // we made it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Taken > 0 {
		if c.objects == nil {
			c.objects = make(map[string]*brought)
		}
		b := c.objects[key.String()]
		if b == nil {
			b = new(brought)
			c.objects[key.String()] = b
		}
		count := &b.peer
		if c.tierOf(e.Source) == control.TierObjectStore {
			count = &b.store
		}
		count.Frames += uint64(e.Taken)
		count.Bytes += uint64(e.Bytes)
	}
	if key.Kind == tier.KindHot {
		c.observeHotLocked(&e)
	}
}

func (c *counts) observeHotLocked(e *fetch.Event) {
	if c.hot == nil {
		c.hot = make(map[string]*hotCount)
	}
	h := c.hot[e.Source]
	if h == nil {
		h = &hotCount{class: control.TierClass{Errors: map[string]uint64{}}}
		c.hot[e.Source] = h
	}
	h.class.Requests++
	h.class.Frames += uint64(e.Taken)
	h.class.Bytes += uint64(e.Bytes)
	if e.FirstFrame > 0 {
		h.began++
		h.first += e.FirstFrame
		h.class.FirstFrame = h.first.Seconds() / float64(h.began)
	}
	switch {
	case errors.Is(e.Err, fetch.ErrWrong):
		h.class.Errors[fetch.Wrong.String()]++
	case e.Err != nil:
		h.class.Errors[fetch.Other.String()]++
	}
}

func (c *counts) tierOf(source string) control.SourceTier {
	if source == c.store {
		return control.TierObjectStore
	}
	return control.TierPeer
}

// of adds up what came of objects.
func (c *counts) of(keys []string) (b brought) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		if o := c.objects[key]; o != nil {
			b.peer.Frames += o.peer.Frames
			b.peer.Bytes += o.peer.Bytes
			b.store.Frames += o.store.Frames
			b.store.Bytes += o.store.Bytes
		}
	}
	return b
}

func (c *counts) hotOf(source string) (hotCount, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hot[source]
	if h == nil {
		return hotCount{}, false
	}
	out := *h
	out.class.Errors = make(map[string]uint64, len(h.class.Errors))
	for k, v := range h.class.Errors {
		out.class.Errors[k] = v
	}
	return out, true
}

// hotSources returns the sources that hot objects came from.
func (c *counts) hotSources() (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.hot {
		all = append(all, s)
	}
	return all
}

// Since returns a function that says what has come of a snapshot's pages since now, from peers and from the object store: for whomever it
// came. Peers are told that this node has some of it. The function is safe for concurrent use, and does not need the snapshot.
func (n *Node) Since(snap *pagestore.Snapshot) (func() (peer, store control.TierCount), error) {
	keys, err := objectsOf(snap)
	if err != nil {
		return nil, err
	}
	if err := n.announce(snap); err != nil {
		return nil, err
	}
	before := n.counts.of(keys)
	return func() (peer, store control.TierCount) {
		now := n.counts.of(keys)
		return control.TierCount{Frames: now.peer.Frames - before.peer.Frames, Bytes: now.peer.Bytes - before.peer.Bytes},
			control.TierCount{Frames: now.store.Frames - before.store.Frames, Bytes: now.store.Bytes - before.store.Bytes}
	}, nil
}
