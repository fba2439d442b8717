package pagestore

import (
	"errors"
	"fmt"
	"io/fs"

	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/mapping"
)

// Sharing says how much of a snapshot's memory other snapshots of its namespace have, too. Every page of the image is
// either zero, or stored; StoredPages counts each stored page once, however often it occurs in the image.
//
//	Pages       = ZeroPages + StoredPages + repeats inside the image
//	StoredPages = SharedPages + UniquePages
type Sharing struct {
	Pages       uint64 `json:"pages"`
	ZeroPages   uint64 `json:"zero_pages"`
	StoredPages uint64 `json:"stored_pages"`
	// SharedPages are used by another snapshot, too; UniquePages would be freed with this one (by whole packs only).
	SharedPages uint64 `json:"shared_pages"`
	UniquePages uint64 `json:"unique_pages"`
	// ParentPages are used by the parent, too; zero if there is none or it is gone.
	ParentPages uint64 `json:"parent_pages"`
}

// Sharing compares the snapshot with the others of its namespace that are not removed. It reads all their manifests.
func (s *Snapshot) Sharing() (Sharing, error) {
	sharing, err := s.sharing()
	if err != nil {
		return Sharing{}, fmt.Errorf("compare snapshot %s with others: %w", s.info.Name, classify(err))
	}
	return sharing, nil
}

func (s *Snapshot) sharing() (out Sharing, err error) {
	folders, err := s.ns.listSnapshots()
	if err != nil {
		return out, err
	}
	others, parent := make(usage), make(usage)
	for _, f := range folders {
		if f.snapshot == s.info.Name.Snapshot {
			continue
		}
		err := readManifest(f.dir, func(m *manifest.Manifest) error {
			if s.info.Parent == (Name{Namespace: s.ns.name, Snapshot: f.snapshot}) {
				if err := parent.add(f.snapshot, m); err != nil {
					return err
				}
			}
			return others.add(f.snapshot, m)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // gone while we looked
			return out, fmt.Errorf("read manifest of %s: %w", f.snapshot, err)
		}
	}
	own := make(usage)
	if err := s.addUsage(own); err != nil {
		return out, err
	}
	out.Pages, out.ZeroPages = s.info.Pages, s.info.ZeroPages
	for id, use := range own {
		out.StoredPages += use.used.count()
		out.SharedPages += use.used.common(others.of(id))
		out.ParentPages += use.used.common(parent.of(id))
	}
	out.UniquePages = out.StoredPages - out.SharedPages
	return out, nil
}

func (s *Snapshot) addUsage(u usage) (err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	return u.add(s.info.Name.Snapshot, s.manifest)
}
