package node

import (
	"context"
	"errors"
	"io"

	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/tier"
)

// front is the node's shelf as peers see it. Where this node brings objects for others, it waits until it knows them.
type front struct{ node *Node }

var _ blob.Reader = (*front)(nil)

func (f *front) String() string { return f.node.shelf.String() }

// Size implements [blob.Reader].
func (f *front) Size(ctx context.Context, key string) (int64, error) {
	size, err := f.node.shelf.Size(ctx, key)
	if f.node.expects(ctx, key, err) {
		return f.node.shelf.Size(ctx, key)
	}
	return size, err
}

// Open implements [blob.Reader].
func (f *front) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := f.node.shelf.Open(ctx, key, off, n)
	if f.node.expects(ctx, key, err) {
		return f.node.shelf.Open(ctx, key, off, n)
	}
	return r, err
}

// expects waits for an object that is not on the shelf, if it will be, and reports whether it is worth another look.
func (n *Node) expects(ctx context.Context, text string, err error) bool {
	if !errors.Is(err, blob.ErrNotFound) {
		return false
	}
	key, err := tier.ParseKey(text)
	if err != nil {
		return false
	}
	switch key.Kind {
	case tier.KindPack:
		// The shelf brings frames of a pack that a stub names. What is pulled now will be one.
		if !n.brings(ctx, key) {
			return false
		}
		n.awaitPulls(ctx, key.Namespace)
		return true // it may have been made between the look and now
	case tier.KindHot:
		bring := n.brings(ctx, key)
		if bring {
			n.awaitPulls(ctx, key.Namespace)
		}
		return n.makeHot(ctx, key, bring)
	}
	return false
}

// makeHot sees to it that the shelf has a hot object, if this node has it whole, or may bring it.
func (n *Node) makeHot(ctx context.Context, key tier.Key, bring bool) bool {
	n.mu.Lock()
	name, known := n.stubs[key.String()]
	whole := n.warm[key.String()]
	n.mu.Unlock()
	if !known || !whole && !bring {
		return false
	}
	if !whole && tier.Warm(ctx, n.store, name) != nil {
		return false // the store has logged it
	}
	_, err := n.shelf.Size(ctx, tier.NameKey(name).String()) // which makes what belongs to the name known there
	return err == nil
}

// awaitPulls waits for the pulls of a namespace that have no stub yet.
func (n *Node) awaitPulls(ctx context.Context, namespace string) {
	n.mu.Lock()
	var running []*pull
	for name, p := range n.pulls {
		if name.Namespace == namespace {
			running = append(running, p)
		}
	}
	n.mu.Unlock()
	for _, p := range running {
		select {
		case <-p.adopted:
		case <-ctx.Done():
			return
		}
	}
}

// noteStub remembers to which stub a hot object belongs.
func (n *Node) noteStub(name pagestore.Name, snap *pagestore.Snapshot) {
	remote := snap.Remote()
	if remote == nil || remote.Hot == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stubs[tier.HotKey(name.Namespace, snap.Digest(), remote.Hot.Root).String()] = name
}
