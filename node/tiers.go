package node

import (
	"slices"
	"strings"
	"sync"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/fetch"
)

// Tiers tells of the places beyond the store.
func (n *Node) Tiers() *control.Tiers {
	t := &control.Tiers{
		Members: []control.TierMember{}, Sources: n.sources(),
		RemoteBytes: n.remote.bytes(), RemoteLimit: uint64(max(n.cfg.StoreOptions.RemoteBytes, 0)),
		Served: control.TierServed{Requests: n.served.requests.Load(), Refused: n.served.refused.Load(), Bytes: n.served.bytes.Load()},
	}
	stats := n.origin.Stats()
	t.Waiting, t.Joined = stats.Flights, stats.Joined
	if n.bucket != nil {
		t.ObjectStore = n.bucket.String()
	}
	if n.pushes != nil {
		t.Push = n.pushes.report()
	}
	if n.prepares != nil {
		t.Made = n.prepares.report()
	}
	if n.peers != nil {
		t.Node = n.peers.keys.Node()
		for _, m := range n.peers.all() {
			t.Members = append(t.Members, control.TierMember{Node: m.Name, Address: m.Address, Down: n.peers.health.isDown(m.Name)})
		}
	}
	return t
}

// hotClass is what the API calls the class of hot objects.
const hotClass = "hot"

// sources tells of the places that were asked for pages, by name.
func (n *Node) sources() []control.TierSource {
	all := []control.TierSource{}
	for _, s := range n.origin.Stats().Sources {
		src := control.TierSource{
			Source: s.Source, Tier: n.counts.tierOf(s.Source), Running: s.Running, Typical: s.Typical.Seconds(), Slow: s.Slow.Seconds(),
			Lies: s.Lies, Classes: make(map[string]control.TierClass),
		}
		if !s.SetAside.IsZero() {
			until := s.SetAside.UTC()
			src.SetAside = &until
		}
		if s.LastError != nil {
			src.LastError = s.LastError.Error()
		}
		for class := range s.Classes {
			src.Classes[fetch.Class(class).String()] = classOf(&s.Classes[class])
		}
		all = append(all, src)
	}
	for _, name := range n.counts.hotSources() {
		hot, _ := n.counts.hotOf(name)
		i := slices.IndexFunc(all, func(s control.TierSource) bool { return s.Source == name })
		if i < 0 {
			i = len(all)
			all = append(all, control.TierSource{Source: name, Tier: n.counts.tierOf(name), Classes: make(map[string]control.TierClass)})
		}
		all[i].Classes[hotClass] = hot.class
	}
	slices.SortFunc(all, func(a, b control.TierSource) int { return strings.Compare(a.Source, b.Source) })
	return all
}

func classOf(s *fetch.ClassStats) control.TierClass {
	c := control.TierClass{
		Requests: s.Requests, Retries: s.Retries, Hedges: s.Hedges, HedgesWon: s.HedgesWon, HedgesWasted: s.HedgesWasted,
		Frames: s.Frames, Bytes: s.Bytes, WastedBytes: s.WastedBytes, Errors: make(map[string]uint64),
	}
	for kind, n := range s.Errors {
		if n > 0 {
			c.Errors[fetch.Kind(kind).String()] = n
		}
	}
	var began uint64
	for _, n := range s.FirstFrame.Counts {
		began += n
	}
	if began > 0 {
		c.FirstFrame = s.FirstFrame.Sum.Seconds() / float64(began)
	}
	return c
}

// remoteBytes is how much of the disk is taken by what came from afar. Counting it reads all manifests, so it is not done each time.
type remoteBytes struct {
	store *pagestore.Store

	mu    sync.Mutex // held while it is counted, too
	known uint64
	when  time.Time
}

// remoteAge is how old that number may be.
const remoteAge = 10 * time.Second

// bytes returns the number. If it cannot be found out it is that of before.
func (r *remoteBytes) bytes() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.when.IsZero() || time.Since(r.when) > remoteAge {
		if n, err := r.store.RemoteBytes(); err == nil {
			r.known = uint64(n)
		}
		r.when = time.Now()
	}
	return r.known
}
