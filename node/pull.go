package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/tier"
)

// pull is a snapshot that is being made a stub, for all who want it.
type pull struct {
	adopted chan struct{} // closed when report and err are there
	report  tier.PullReport
	err     error
	cancel  context.CancelFunc
	waiting int // protected by Node.mu
}

// Pull brings a snapshot that is elsewhere, and as much of its memory as the mode says; of one that is here only the memory. Several that want the same
// snapshot at the same time share the work. Errors are [pagestore.ErrNotFound] if no place knows the name, those of places, the store
// and ctx. After an error in a later part of the mode the snapshot is here, and is of use.
func (n *Node) Pull(ctx context.Context, name pagestore.Name, mode control.PullMode) (*control.PullReport, error) {
	start := time.Now()
	if err := name.Validate(); err != nil {
		return nil, err
	}
	report := &control.PullReport{Snapshot: name.String()}
	snap, err := n.store.Snapshot(name)
	if err == nil {
		report.Here = true
	} else if errors.Is(err, pagestore.ErrNotFound) {
		var did tier.PullReport
		if did, err = n.adopt(ctx, name); err == nil {
			report.Descriptor, report.Source, report.MetaBytes = did.Descriptor.String(), did.Place, uint64(did.MetaBytes)
			report.Resolved, report.Adopted = did.Resolved.Seconds(), did.Adopted.Seconds()
			snap, err = n.store.Snapshot(name)
		}
	}
	if err != nil {
		return nil, err
	}
	defer snap.Close() // a lease, so that it stays while its pages come
	n.noteStub(name, snap)
	switch mode {
	case control.PullWorkingSet:
		err = tier.Warm(ctx, n.store, name)
	case control.PullWhole:
		err = tier.Mirror(ctx, n.store, name)
	}
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", name, err)
	}
	if err := n.announce(name, snap); err != nil {
		return nil, fmt.Errorf("pull %s: %w", name, err)
	}
	local, err := snap.Local()
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", name, err)
	}
	report.StoredPages, report.LocalPages, report.Took = local.StoredPages, local.LocalPages, time.Since(start).Seconds()
	return report, nil
}

// adopt makes a stub of a snapshot, with all who want that now.
func (n *Node) adopt(ctx context.Context, name pagestore.Name) (tier.PullReport, error) {
	n.mu.Lock()
	p := n.pulls[name]
	if p == nil {
		var work context.Context
		p = &pull{adopted: make(chan struct{})}
		work, p.cancel = context.WithCancel(context.WithoutCancel(ctx)) // it ends when nobody waits for it any more
		n.pulls[name] = p
		go n.runPull(work, name, p) // the last who waits ends it, and waits for it
	}
	p.waiting++
	n.mu.Unlock()
	var gone error
	select {
	case <-p.adopted:
	case <-ctx.Done():
		gone = context.Cause(ctx)
	}
	n.mu.Lock()
	p.waiting--
	last := p.waiting == 0
	if last && n.pulls[name] == p {
		delete(n.pulls, name)
	}
	n.mu.Unlock()
	if last {
		p.cancel()
		<-p.adopted
	}
	if gone != nil {
		return tier.PullReport{}, fmt.Errorf("pull %s: %w", name, gone)
	}
	return p.report, p.err
}

func (n *Node) runPull(ctx context.Context, name pagestore.Name, p *pull) {
	opts := &tier.PullOptions{Origin: n.origin, TempDir: n.cfg.TempDir}
	p.report, p.err = tier.Pull(ctx, n.store, n.places, name, opts)
	if p.err != nil && n.bucket != nil && n.peers != nil && ctx.Err() == nil && !errors.Is(p.err, pagestore.ErrExists) {
		// It may be a peer's that was not pushed, or the object store is down.
		report, err := tier.Pull(ctx, n.store, n.namedByPeers, name, opts)
		if err == nil {
			p.report, p.err = report, nil
		} else if !errors.Is(err, pagestore.ErrNotFound) {
			p.err = errors.Join(p.err, err)
		}
	}
	if errors.Is(p.err, pagestore.ErrExists) {
		p.err = nil // somebody else has made it, in this moment
	}
	if p.err == nil {
		if snap, err := n.store.Snapshot(name); err == nil {
			n.noteStub(name, snap) // before peers are told that it is here
			snap.Close()
		}
	}
	n.mu.Lock()
	if n.pulls[name] == p {
		delete(n.pulls, name)
	}
	n.mu.Unlock()
	close(p.adopted)
}

// namedByPeers are the places if the object store has nothing to say of a name.
func (n *Node) namedByPeers(k tier.Key) []tier.Place {
	if k.Kind == tier.KindName {
		return n.peerPlaces(k)
	}
	return n.places(k)
}

// announce tells peers what is here of a snapshot.
func (n *Node) announce(name pagestore.Name, snap *pagestore.Snapshot) error {
	if n.peers == nil || n.peers.gossip == nil {
		return nil
	}
	packs, err := snap.Packs()
	if err != nil {
		return err
	}
	objects := []string{tier.NameKey(name).String()}
	for _, p := range packs {
		objects = append(objects, tier.PackKey(name.Namespace, p.ID).String())
	}
	if r := snap.Remote(); r != nil && r.Hot != nil {
		objects = append(objects, tier.HotKey(name.Namespace, snap.Digest(), r.Hot.Root).String())
	}
	n.peers.announce(name.Namespace, objects...)
	return nil
}
