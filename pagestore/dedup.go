package pagestore

import (
	"errors"
	"os"
	"sync"

	"thaw/pagestore/internal/index"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

// dedup finds pages that the namespace has already. What the index says is checked against the packs' own tables.
type dedup struct {
	store *Store
	ns    namespace
	index *index.Index

	// packs are those that answers named so far.
	mu    sync.Mutex
	packs map[PackID]*candidate // protected by mu

	// used are the packs that pages of the image are in, by position in the manifest's table; position finds those of
	// the store. Owned by the chunk that is placed.
	used     []packRef
	position map[PackID]uint32
}

// candidate is a pack of the store to which the image may refer; mapped is nil if it is not fit for that.
type candidate struct {
	once   sync.Once
	mapped *pack.Mapped
}

// packRef is an entry of the manifest's table of packs to be: a pack of the store or, if fresh, number of the new packs of
// this import, whose name is known once it is sealed.
type packRef struct {
	manifest.Pack
	fresh  bool
	number int
}

// openDedup opens the index of the namespace and adds what it lacks.
func openDedup(s *Store, ns namespace) (*dedup, error) {
	files, err := ns.listPacks()
	if err != nil {
		return nil, err
	}
	ids := make([]PackID, len(files))
	for i, f := range files {
		ids[i] = f.id
	}
	d := &dedup{store: s, ns: ns, packs: make(map[PackID]*candidate), position: make(map[PackID]uint32)}
	if d.index, err = index.Open(ns.index(), ids); err != nil {
		return nil, err
	}
	if err := d.addMissing(); err != nil {
		return nil, errors.Join(err, d.index.Close())
	}
	return d, nil
}

// addMissing enters packs that an earlier import or a lost index left out. Damaged packs stay out: nothing may refer to
// them anew.
func (d *dedup) addMissing() error {
	var sound []PackID
	for _, id := range d.index.Missing() {
		if _, err := readFooter(d.ns.pack(id), id); err != nil {
			d.store.opts.Logger.Warn("pack is left out of the index", "namespace", d.ns.name, "pack", id.String(), "err", err)
			continue
		}
		sound = append(sound, id)
	}
	if len(sound) == 0 {
		return nil
	}
	d.store.opts.Logger.Info("index is being completed", "namespace", d.ns.name, "packs", len(sound))
	return d.index.Add(sound, func(id PackID) (*pack.Footer, error) { return readFooter(d.ns.pack(id), id) })
}

// readFooter reads and checks the tables of pack id in the file path.
func readFooter(path string, id PackID) (*pack.Footer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	footer, err := pack.ReadFooter(f, stat.Size())
	if err != nil {
		return nil, err
	}
	if footer.ID != id {
		return nil, corruptf("file holds pack %s", footer.ID)
	}
	return footer, nil
}

// finder finds pages that follow each other in memory, and often in a pack too. It is for one goroutine.
type finder struct {
	*dedup
	at   index.Location // of the page that was found last
	pack *pack.Mapped   // that one is in; nil before
}

// find returns where the store has a page with the digest.
func (f *finder) find(digest *Digest) (at index.Location, ok bool) {
	if f.pack != nil {
		f.at.Page++
		if ok, err := f.pack.HasDigest(f.at.Page, digest); ok && err == nil {
			return f.at, true
		}
	}
	f.pack = nil
	if f.at, ok = f.index.Lookup(digest); !ok {
		return f.at, false
	}
	mapped := f.candidate(f.at.Pack)
	if mapped == nil {
		return f.at, false
	}
	if ok, err := mapped.HasDigest(f.at.Page, digest); !ok || err != nil {
		return f.at, false
	}
	f.pack = mapped
	return f.at, true
}

// candidate opens a pack of the store, with both its tables checked, the first time it is named.
func (d *dedup) candidate(id PackID) *pack.Mapped {
	d.mu.Lock()
	c := d.packs[id]
	if c == nil {
		c = new(candidate)
		d.packs[id] = c
	}
	d.mu.Unlock()
	c.once.Do(func() {
		mapped, err := pack.Open(d.ns.pack(id), id)
		if err == nil {
			if err = mapped.CheckFooter(); err == nil {
				c.mapped = mapped
				return
			}
			err = errors.Join(err, mapped.Close())
		}
		d.store.opts.Logger.Warn("pack is not used for new snapshots", "namespace", d.ns.name, "pack", id.String(), "err", err)
	})
	return c.mapped
}

// positionOf returns the position of a pack of the store, which find named, in the manifest's table.
func (d *dedup) positionOf(id PackID) uint32 {
	pos, ok := d.position[id]
	if !ok {
		pos = uint32(len(d.used))
		d.used = append(d.used, packRef{Pack: manifest.Pack{ID: id, Pages: d.candidate(id).Pages()}})
		d.position[id] = pos
	}
	return pos
}

// addFresh enters a new pack into the manifest's table.
func (d *dedup) addFresh(number int) uint32 {
	d.used = append(d.used, packRef{fresh: true, number: number})
	return uint32(len(d.used) - 1)
}

// table returns the manifest's table of packs, given the new packs.
func (d *dedup) table(fresh []manifest.Pack) []manifest.Pack {
	table := make([]manifest.Pack, len(d.used))
	for i, ref := range d.used {
		table[i] = ref.Pack
		if ref.fresh {
			table[i] = fresh[ref.number]
		}
	}
	return table
}

// closePacks ends the comparisons: no finder may be used any more.
func (d *dedup) closePacks() error {
	var errs []error
	for _, c := range d.packs {
		if c.mapped != nil {
			errs = append(errs, c.mapped.Close())
		}
	}
	return errors.Join(errs...)
}

// add enters new packs into the index, whose files open opens.
func (d *dedup) add(fresh []manifest.Pack, open func(PackID) (*pack.Footer, error)) error {
	ids := make([]PackID, len(fresh))
	for i, p := range fresh {
		ids[i] = p.ID
	}
	return d.index.Add(ids, open)
}
