package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// GCReport says what a garbage collection did and what is left.
type GCReport struct {
	// SnapshotsDeleted counts the folders of removed snapshots that were deleted, SnapshotsLeased those that somebody
	// still uses.
	SnapshotsDeleted int `json:"snapshots_deleted"`
	SnapshotsLeased  int `json:"snapshots_leased"`
	// PacksDeleted packs were used by nobody; they took BytesFreed.
	PacksDeleted int   `json:"packs_deleted"`
	BytesFreed   int64 `json:"bytes_freed"`
	// Packs are left and take PackBytes.
	Packs     int   `json:"packs"`
	PackBytes int64 `json:"pack_bytes"`
	// PartialDeleted partial packs were used by nobody, or complete under another name; BytesFreed has them, too.
	PartialDeleted int `json:"partial_deleted"`
	// DeadBytes of PackBytes are pages that nobody uses, in packs of which other pages are used.
	DeadBytes int64 `json:"dead_bytes"`
}

// GC deletes the folders of removed snapshots that nobody leases any more and the packs that no snapshot uses, whole
// packs only. A namespace in which a manifest cannot be read is left as it is and reported as an error, which names
// it: what such a snapshot uses is unknown. Errors also are [ErrLocked] and those of ctx.
func (s *Store) GC(ctx context.Context) (GCReport, error) {
	var report GCReport
	unlock, err := s.lock(ctx)
	if err != nil {
		return report, fmt.Errorf("gc: %w", err)
	}
	defer unlock()
	names, err := s.Namespaces()
	if err != nil {
		return report, fmt.Errorf("gc: %w", err)
	}
	var errs []error
	for _, name := range names {
		if err := s.gcNamespace(ctx, s.namespace(name), &report); err != nil {
			errs = append(errs, fmt.Errorf("gc namespace %s: %w", name, classify(err)))
		}
	}
	return report, errors.Join(errs...)
}

func (s *Store) gcNamespace(ctx context.Context, ns namespace, report *GCReport) error {
	if err := s.sweepStaging(ns); err != nil {
		return err
	}
	if err := s.gcRemoved(ctx, ns, report); err != nil {
		return err
	}
	used, err := ns.mark()
	if err != nil {
		return err
	}
	if err := s.sweepPacks(ctx, ns, used, report); err != nil {
		return err
	}
	return s.sweepPartial(ctx, ns, report)
}

// gcRemoved deletes the removed snapshots that nobody leases.
func (s *Store) gcRemoved(ctx context.Context, ns namespace, report *GCReport) error {
	folders, err := ns.listRemoved()
	if err != nil {
		return err
	}
	for _, f := range folders {
		if err := ctx.Err(); err != nil {
			return err
		}
		deleted, err := s.deleteRemoved(ns, f.dir)
		if err != nil {
			return fmt.Errorf("delete %s: %w", filepath.Base(f.dir), err)
		}
		if deleted {
			report.SnapshotsDeleted++
		} else {
			report.SnapshotsLeased++
		}
	}
	return nil
}

// sweepPacks deletes the packs that are not used.
func (s *Store) sweepPacks(ctx context.Context, ns namespace, used usage, report *GCReport) error {
	packs, err := ns.listPacks()
	if err != nil {
		return err
	}
	deleted := false
	for _, p := range packs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if use := used[p.id]; use != nil {
			report.Packs++
			report.PackBytes += p.size
			report.DeadBytes += (int64(use.pages) - int64(use.used.count())) * PageSize
			continue
		}
		if err := s.opts.fs.Remove(ns.pack(p.id)); err != nil {
			return err
		}
		deleted = true
		report.PacksDeleted++
		report.BytesFreed += p.size
	}
	if !deleted {
		return nil
	}
	return s.opts.fs.SyncDir(ns.packs())
}

// sweepPartial deletes the partial packs that no stub names, and those of which there is the whole.
func (s *Store) sweepPartial(ctx context.Context, ns namespace, report *GCReport) error {
	all, err := ns.listPartial()
	if err != nil || len(all) == 0 {
		return err
	}
	folders, err := ns.folders()
	if err != nil {
		return err
	}
	used, err := vouched(folders)
	if err != nil {
		return err
	}
	for _, name := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := os.Stat(ns.pack(name.id)); used[name] && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		file, state := ns.partialFiles(name)
		freed := diskBytes(file) + diskBytes(state)
		if err := ns.discard(s.opts.fs, name); err != nil {
			return err
		}
		report.PartialDeleted++
		report.BytesFreed += freed
	}
	return nil
}
