package fleet

// A store is what a node holds: parts of snapshots, as much as its quota allows. Whole snapshots are evicted, the least recently used first.
type store struct {
	quota, used int64 // bytes; used <= quota at all times
	entries     map[int]*entry
	// newest and oldest are the ends of the list by use.
	newest, oldest *entry
}

// An entry is what a store holds of one snapshot.
type entry struct {
	snapshot     int
	parts        uint64 // a bit for each part
	bytes        int64
	pins         int  // of boots that need it: it is not evicted
	announced    bool // others have been told
	newer, older *entry
}

func newStore(quota int64) *store { return &store{quota: quota, entries: make(map[int]*entry)} }

func (s *store) has(c chunk) bool {
	e := s.entries[c.snapshot]
	return e != nil && e.parts>>c.part&1 == 1
}

// use notes that a snapshot was used now, and returns its entry, which may hold nothing.
func (s *store) use(snapshot int) *entry {
	e := s.entries[snapshot]
	if e == nil {
		e = &entry{snapshot: snapshot}
		s.entries[snapshot] = e
	} else {
		s.unlink(e)
	}
	e.older = s.newest
	if s.newest != nil {
		s.newest.newer = e
	}
	s.newest = e
	if s.oldest == nil {
		s.oldest = e
	}
	return e
}

func (s *store) unlink(e *entry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
	e.newer, e.older = nil, nil
}

// admit keeps a chunk of so many bytes, for which others may have to go. It returns nil if there is no room that may be had:
// then the chunk is used once, and not kept.
func (s *store) admit(c chunk, bytes int64) *entry {
	e := s.use(c.snapshot)
	if e.parts>>c.part&1 == 1 {
		return e
	}
	for victim := s.oldest; victim != nil && s.used+bytes > s.quota; {
		next := victim.newer
		if victim != e && victim.pins == 0 {
			s.used -= victim.bytes
			s.unlink(victim)
			delete(s.entries, victim.snapshot)
		}
		victim = next
	}
	if s.used+bytes > s.quota {
		return nil
	}
	s.used += bytes
	e.bytes += bytes
	e.parts |= 1 << c.part
	return e
}
