package node

import (
	"context"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob/peer"
	"thaw/pagestore/blob/placement"
	"thaw/pagestore/tier"
)

const (
	// askPeers is how many peers are places of one object.
	askPeers = 3
	// peerConnections is how many requests a peer gets at a time. A demand that finds no free connection goes to the next place, which
	// may be the object store, and what the owner brings would be read twice.
	peerConnections = 16
	// sharedTier is how far away the object store is from a node that has an owner to ask: a tier stands for a factor of four, so that it is asked if
	// it is 64 times as fast as the owner, which is in trouble then. A little faster does not count: what the owner brings once, many
	// would read each for itself.
	sharedTier = 3
	// hotStagger is how long the owner of a hot object may take for it before the object store is asked as well: it has to bring it first. Not
	// measured: enough for some hundred megabytes in a data center.
	hotStagger = time.Second
)

// places implements [tier.Places]. Names are the object store's to say, if there is one.
func (n *Node) places(k tier.Key) []tier.Place {
	if n.bucket == nil {
		return n.peerPlaces(k)
	}
	var all []tier.Place
	if k.Kind != tier.KindName {
		all = n.peerPlaces(k)
	}
	store := tier.Place{Reader: n.bucket, Tier: 1}
	if len(all) > 0 && !n.owns(k) {
		store.Tier = sharedTier
	}
	if k.Kind == tier.KindDescriptor || k.Kind == tier.KindMeta {
		return append([]tier.Place{store}, all...) // peers have to make them
	}
	return append(all, store)
}

// peerPlaces are the peers among the places.
func (n *Node) peerPlaces(k tier.Key) []tier.Place {
	if n.peers == nil {
		return nil
	}
	var all []tier.Place
	for _, m := range n.ask(k) {
		all = append(all, tier.Place{Reader: n.peers.member(m), Raw: k.Kind == tier.KindPack, Connections: peerConnections})
	}
	return all
}

// ask returns the peers to ask for an object: its owner, if that is another, then who is said to have it, then the next owners.
func (n *Node) ask(k tier.Key) []placement.Member {
	p, object := n.peers.placement(), k.String()
	most := askPeers
	if k.Kind == tier.KindName || n.bucket == nil {
		most = len(n.peers.all()) // nothing else says who has it
	}
	sources := p.Sources(k.Namespace, object, most)
	if k.Kind == tier.KindName {
		return sources
	}
	owners := p.Owners(k.Namespace, object, 1)
	if len(owners) == 0 || owners[0].Name == n.peers.keys.Node() {
		return sources
	}
	asked := owners
	for _, m := range sources {
		if m.Name != owners[0].Name && len(asked) < most {
			asked = append(asked, m)
		}
	}
	return asked
}

// owns reports whether this node is the owner of an object, as far as it knows.
func (n *Node) owns(k tier.Key) bool {
	owners := n.peers.placement().Owners(k.Namespace, k.String(), 1)
	return len(owners) > 0 && owners[0].Name == n.peers.keys.Node()
}

// brings reports whether this node brings an object, which it does not hold, for the peer that asks: it is the owner as far as it knows, and owns it before
// that peer would. The package says why.
func (n *Node) brings(ctx context.Context, k tier.Key) bool {
	asker, self := peer.Asker(ctx), n.peers.keys.Node()
	if asker == "" || asker == self || n.bucket == nil {
		return false
	}
	if !n.owns(k) {
		return false
	}
	first := placement.Rank(placement.KeyOf(k.Namespace, k.String()), []placement.Member{{Name: self}, {Name: asker}}, 1)
	return first[0].Name == self
}

// Sources returns the places that would be asked for what is missing of a snapshot, the likeliest first, by the packs that it names.
func (n *Node) Sources(name pagestore.Name) (map[pagestore.PackID][]tier.Place, error) {
	snap, err := n.store.Snapshot(name)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	packs, err := snap.Packs()
	if err != nil {
		return nil, err
	}
	all := make(map[pagestore.PackID][]tier.Place, len(packs))
	for _, p := range packs {
		all[p.ID] = n.places(tier.PackKey(name.Namespace, p.ID))
	}
	return all, nil
}
