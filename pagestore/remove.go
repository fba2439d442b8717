package pagestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"thaw/internal/durable"
	"thaw/pagestore/internal/manifest"
)

// Remove takes a snapshot out of the store. Nobody can open it any more; those who have it open keep it until they
// close it. Its folder is deleted now if nobody has a lease, else by a later GC; its pages go with GC. Errors are
// [ErrNotFound], [ErrBeingRemoved] and [ErrLocked].
func (s *Store) Remove(ctx context.Context, name Name) error {
	if err := name.Validate(); err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", name, err)
	}
	defer unlock()
	if err := s.remove(name); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", name, classify(err))
	}
	return nil
}

func (s *Store) remove(name Name) error {
	ns := s.namespace(name.Namespace)
	if _, err := os.Stat(ns.snapshot(name.Snapshot)); errors.Is(err, fs.ErrNotExist) {
		return ns.whyAbsent(name.Snapshot)
	} else if err != nil {
		return err
	}
	// The rename is the removal; what follows frees the disk and is left to GC if it cannot be done now.
	dir := filepath.Join(ns.removed(), uniqueName(name.Snapshot))
	if err := s.move(ns.snapshot(name.Snapshot), dir); err != nil {
		return err
	}
	if _, err := s.deleteRemoved(ns, dir); err != nil {
		s.opts.Logger.Warn("folder of a removed snapshot is left to the next gc", "snapshot", name.String(), "err", err)
	}
	return nil
}

// move renames a folder durably, or not at all as far as an error lets it.
func (s *Store) move(from, to string) error {
	if err := s.opts.fs.Rename(from, to); err != nil {
		return errors.Join(err, s.moveBack(from, to))
	}
	if err := s.opts.fs.SyncDir(filepath.Dir(to)); err != nil {
		return errors.Join(err, s.moveBack(from, to))
	}
	if err := s.opts.fs.SyncDir(filepath.Dir(from)); err != nil {
		return errors.Join(err, s.moveBack(from, to))
	}
	return nil
}

// moveBack undoes a rename that may have happened: an error of rename(2) on a network, or of the sync after it, does not
// say.
func (s *Store) moveBack(from, to string) error {
	if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.opts.fs.Rename(to, from)
}

// uniqueName returns a folder name for something of a snapshot that may be there more than once. '@' is in no name.
func uniqueName(snapshot string) string { return snapshot + "@" + rand.Text()[:10] }

// deleteRemoved deletes the folder of a removed snapshot unless somebody leases it.
func (s *Store) deleteRemoved(ns namespace, dir string) (deleted bool, err error) {
	yes, release, err := leased(dir)
	if yes || err != nil {
		return false, err
	}
	defer release()
	if err := durable.RemoveAll(s.opts.fs, dir); err != nil {
		return false, err
	}
	return true, s.opts.fs.SyncDir(ns.removed())
}

// sweepStaging deletes what writers left in staging when they died, with the packs that they had moved to packs
// already. The caller holds the lock, so nobody is at work there.
func (s *Store) sweepStaging(ns namespace) error {
	entries, err := readDir(ns.staging())
	if err != nil || len(entries) == 0 {
		return err
	}
	for _, e := range entries {
		if err := s.abandon(ns, filepath.Join(ns.staging(), e.Name())); err != nil {
			return fmt.Errorf("sweep staging: %w", err)
		}
	}
	return s.opts.fs.SyncDir(ns.staging())
}

// abandon deletes one staging folder of an import that did not commit. Packs that it published before are those of its
// manifest that no snapshot names.
func (s *Store) abandon(ns namespace, dir string) error {
	published, err := publishedPacks(ns, filepath.Join(dir, stagedSnapshot))
	if err != nil {
		return err
	}
	if err := s.unpublish(ns, published); err != nil {
		return err
	}
	return durable.RemoveAll(s.opts.fs, dir)
}

// unpublish deletes those of the packs that no snapshot names. If a manifest is unreadable they are left to the GC that
// comes after its repair: one damaged snapshot must not keep others from being imported.
func (s *Store) unpublish(ns namespace, packs []PackID) error {
	if len(packs) == 0 {
		return nil
	}
	live, err := ns.mark()
	if err != nil {
		s.opts.Logger.Warn("packs of an abandoned import are left to gc", "namespace", ns.name, "err", err)
		return nil
	}
	for _, id := range packs {
		if live[id] != nil {
			continue
		}
		if err := s.opts.fs.Remove(ns.pack(id)); err != nil {
			return err
		}
	}
	return s.opts.fs.SyncDir(ns.packs())
}

// publishedPacks returns the packs of the staged manifest that are in the packs folder. An import that died before its
// manifest was whole published none.
func publishedPacks(ns namespace, dir string) (ids []PackID, err error) {
	err = readManifest(dir, func(m *manifest.Manifest) error {
		for i := range m.Packs() {
			id := m.Pack(i).ID
			if _, err := os.Stat(ns.pack(id)); err == nil {
				ids = append(ids, id)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
		return nil, nil
	}
	return ids, err
}

// mark returns what the snapshots of the namespace use, removed ones too. An error says that a manifest could not be
// read; then nothing may be deleted.
func (n namespace) mark() (usage, error) {
	folders, err := n.folders()
	if err != nil {
		return nil, err
	}
	used := make(usage)
	for _, f := range folders {
		err := readManifest(f.dir, func(m *manifest.Manifest) error { return used.add(f.snapshot, m) })
		if f.removed && errors.Is(err, fs.ErrNotExist) {
			continue // half deleted
		} else if err != nil {
			return nil, fmt.Errorf("read manifest of %s/%s: %w", n.name, f.snapshot, err)
		}
	}
	return used, nil
}
