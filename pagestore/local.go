package pagestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"thaw/pagestore/internal/pack"
)

// Local says how much of what a snapshot needs is on this machine. Pages are those that the snapshot uses, each stored page once.
type Local struct {
	// StoredPages of the image are not zero; LocalPages of them are here.
	StoredPages uint64 `json:"stored_pages"`
	LocalPages  uint64 `json:"local_pages"`
	// Packs are those of the manifest, in its order.
	Packs []LocalPack `json:"packs"`
}

// LocalPack is how much of a pack is here.
type LocalPack struct {
	ID PackID `json:"id"`
	// StoredPages of the pack are used by the snapshot; LocalPages of these are here.
	StoredPages uint64 `json:"stored_pages"`
	LocalPages  uint64 `json:"local_pages"`
	// Complete: it is an ordinary pack. If it is not, and has a root, an origin may have the rest.
	Complete bool `json:"complete"`
	Remote   bool `json:"remote"`
	// DiskBytes is what it takes of the disk.
	DiskBytes int64 `json:"disk_bytes"`
}

// Local looks which pages of the snapshot are here. It opens no pack: that one is here does not say that it is sound.
func (s *Snapshot) Local() (Local, error) {
	l, err := s.local()
	if err != nil {
		return Local{}, fmt.Errorf("look what of %s is here: %w", s.info.Name, classify(err))
	}
	return l, nil
}

func (s *Snapshot) local() (l Local, err error) {
	use := make(usage)
	if err := s.addUsage(use); err != nil {
		return l, err
	}
	ids, _, err := readPacks(s.manifest)
	if err != nil {
		return l, err
	}
	for _, id := range ids {
		p, err := s.ns.localPack(id, s.remote, use[id])
		if err != nil {
			return l, err
		}
		l.Packs = append(l.Packs, p)
		l.StoredPages += p.StoredPages
		l.LocalPages += p.LocalPages
	}
	return l, nil
}

func (n namespace) localPack(id PackID, remote *Remote, use *packUse) (p LocalPack, err error) {
	p = LocalPack{ID: id, StoredPages: use.used.count()}
	var name partialID
	name, _, p.Remote = remote.partial(id)
	for range 2 { // it may become an ordinary pack while we look
		if _, err := os.Stat(n.pack(id)); err == nil {
			p.Complete, p.LocalPages, p.DiskBytes = true, p.StoredPages, diskBytes(n.pack(id))
			return p, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return p, err
		}
		if !p.Remote {
			return p, nil
		}
		file, state := n.partialFiles(name)
		here, err := pack.ReadPresence(state)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, pack.ErrCorrupt), errors.Is(err, pack.ErrVersion):
			return p, nil // it will be made anew
		case err != nil:
			return p, err
		}
		p.DiskBytes = diskBytes(file) + diskBytes(state)
		for page := range min(here.Pages, use.pages) {
			if use.used.has(page) && here.Has(page) {
				p.LocalPages++
			}
		}
		return p, nil
	}
	return p, nil
}

// has reports whether a page is in the set.
func (b bitmap) has(page uint32) bool { return b[page/64]&(1<<(page%64)) != 0 }
