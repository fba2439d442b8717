package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/blob/placement"
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
	if mode == control.PullWhole {
		n.noteCame(name)
	}
	if err := n.announce(snap); err != nil {
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
		p.err = n.ready(name, p.report.Place)
	}
	n.mu.Lock()
	if n.pulls[name] == p {
		delete(n.pulls, name)
	}
	n.mu.Unlock()
	close(p.adopted)
}

// ready makes a new stub ready for peers that ask for its packs: these are known once its image was opened.
func (n *Node) ready(name pagestore.Name, place string) error {
	snap, err := n.store.Snapshot(name)
	if err != nil {
		return err
	}
	defer snap.Close()
	n.noteStub(name, snap)
	if _, err = snap.Image(); err != nil {
		return err
	}
	return n.hint(place, snap)
}

// hint notes that a peer which has named a snapshot has its pages: perhaps nobody else has.
func (n *Node) hint(place string, snap *pagestore.Snapshot) error {
	if n.peers == nil {
		return nil
	}
	for _, m := range n.peers.all() {
		if n.peers.member(m).String() != place {
			continue
		}
		objects, err := objectsOf(snap)
		if err != nil {
			return err
		}
		for _, o := range objects {
			// What the node says itself is newer than serial 1.
			n.peers.hints.Note(placement.Hint{Key: placement.KeyOf(snap.Name().Namespace, o), Node: m.Name, Serial: 1})
		}
	}
	return nil
}

// namedByPeers are the places if the object store has nothing to say of a name.
func (n *Node) namedByPeers(k tier.Key) []tier.Place {
	if k.Kind == tier.KindName {
		return n.peerPlaces(k)
	}
	return n.places(k)
}

// announce tells peers what is here of a snapshot: not its name, which all of them would hear, also those that are not in the namespace.
func (n *Node) announce(snap *pagestore.Snapshot) error {
	if n.peers == nil || n.peers.gossip == nil {
		return nil
	}
	objects, err := objectsOf(snap)
	if err != nil {
		return err
	}
	n.peers.gossip.Announce(snap.Name().Namespace, objects...)
	return nil
}

// objectsOf returns the keys of the objects that the pages of a snapshot come in.
func objectsOf(snap *pagestore.Snapshot) ([]string, error) {
	packs, err := snap.Packs()
	if err != nil {
		return nil, err
	}
	ns := snap.Name().Namespace
	var keys []string
	for _, p := range packs {
		keys = append(keys, tier.PackKey(ns, p.ID).String())
	}
	if r := snap.Remote(); r != nil && r.Hot != nil {
		keys = append(keys, tier.HotKey(ns, snap.Digest(), r.Hot.Root).String())
	}
	return keys, nil
}
