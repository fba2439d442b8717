package function

import "thaw/function/registry"

// claims say which snapshots a pool's instances stand on: the files of a snapshot are below those of its instances, and are not removed
// while there is one.
type claims struct {
	held    map[string]int  // how many instances, by the snapshot's name
	due     map[string]bool // to be removed when nobody holds them
	removed map[string]bool
}

// claim returns the snapshot to restore from; nil if there is none. The caller disclaims it when the instance is gone.
func (p *pool) claim() *registry.Snapshot {
	snap := p.snapshot()
	if snap == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claims.removed[snap.Name] {
		return nil // since it was read
	}
	if p.claims.held == nil {
		p.claims.held = make(map[string]int)
	}
	p.claims.held[snap.Name]++
	return snap
}

// disclaim gives back what claim has returned.
func (p *pool) disclaim(name string) {
	p.mu.Lock()
	p.claims.held[name]--
	due := p.claims.held[name] == 0 && p.claims.due[name]
	if p.claims.held[name] == 0 {
		delete(p.claims.held, name)
		delete(p.claims.due, name)
	}
	p.mu.Unlock()
	if due {
		p.removeReplaced()
	}
}

// takeAway reports whether a snapshot may be removed now; else it is when its last instance is gone.
func (p *pool) takeAway(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.claims
	if c.due == nil {
		c.due, c.removed = make(map[string]bool), make(map[string]bool)
	}
	if c.held[name] > 0 {
		c.due[name] = true
		return false
	}
	c.removed[name] = true
	return true
}

// removeReplaced removes the snapshots of the pool's that were set aside and have a good one in their place.
func (p *pool) removeReplaced() {
	var names []string
	p.update(func(s *registry.Stats) {
		good := s.Best(p.key.object, p.key.parameters, p.may.Features)
		if good == nil {
			return
		}
		for _, old := range s.Snapshots {
			same := old.Object == good.Object && old.Parameters == good.Parameters && old.CPU.Equal(good.CPU)
			if same && old.State == registry.StateSetAside && p.takeAway(old.Name) {
				names = append(names, old.Name)
			}
		}
		for _, name := range names {
			s.Remove(name)
		}
	})
	if err := p.s.removeSnapshots(names...); err != nil {
		p.s.opts.Logger.Warn("snapshots that were set aside stay in the store", "err", err)
	}
}
