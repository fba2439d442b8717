package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

const (
	// roomBytes is how much is evicted at least when the disk is full: a quarter of a full pack, so that the next pages find room, too.
	roomBytes = 64 << 20
	// requestBytes is what a request to the origin counts for when it is weighed what it costs to bring something again: as much as
	// the bytes of a frame of a pack.
	requestBytes = framePages * PageSize
)

// EvictReport says what Evict found and did. Bytes are those of the disk.
type EvictReport struct {
	// RemoteBytes is what is left of what came from afar: partial packs, and packs that only stubs name. LeasedBytes of them
	// cannot be evicted, because somebody leases a stub that names them.
	RemoteBytes int64 `json:"remote_bytes"`
	LeasedBytes int64 `json:"leased_bytes"`
	// Packs and Partial count the complete and the partial packs that were deleted, which took BytesFreed.
	Packs      int   `json:"packs"`
	Partial    int   `json:"partial"`
	BytesFreed int64 `json:"bytes_freed"`
}

// Evict deletes pages that came from afar, and can be had from there again, until they take limit bytes of the disk at most: whole packs,
// first those whose snapshots were not used for long, weighed by what it costs to bring them again. It deletes nothing that a snapshot
// which was made here names, nothing that somebody leases, and nothing in a namespace in which a manifest cannot be read, which is an error.
// It is a writer. Errors also are [ErrLocked] and those of ctx.
func (s *Store) Evict(ctx context.Context, limit int64) (EvictReport, error) {
	return s.evict(ctx, limit, 0, s.opts.NoWait)
}

// evict is Evict that frees at least so many bytes.
func (s *Store) evict(ctx context.Context, limit, least int64, noWait bool) (EvictReport, error) {
	unlock, err := s.lockOr(ctx, noWait)
	if err != nil {
		return EvictReport{}, fmt.Errorf("evict: %w", err)
	}
	defer unlock()
	defer s.closeIdle(s.opts.KeepPacks) // that hold what has no name any more
	e := &eviction{store: s, now: time.Now()}
	defer e.release()
	names, err := s.Namespaces()
	if err != nil {
		return EvictReport{}, fmt.Errorf("evict: %w", err)
	}
	var errs []error
	for _, name := range names {
		if err := e.collect(s.namespace(name)); err != nil {
			errs = append(errs, fmt.Errorf("evict in namespace %s: %w", name, classify(err)))
		}
	}
	if err := e.run(ctx, limit, least); err != nil {
		errs = append(errs, fmt.Errorf("evict: %w", classify(err)))
	}
	return e.report, errors.Join(errs...)
}

// RemoteBytes returns how many bytes of the disk are taken by what came from afar, as Evict counts them. It reads all manifests.
func (s *Store) RemoteBytes() (int64, error) {
	names, err := s.Namespaces()
	if err != nil {
		return 0, err
	}
	e := &eviction{store: s, now: time.Now(), look: true}
	for _, name := range names {
		if err := e.collect(s.namespace(name)); err != nil {
			return 0, fmt.Errorf("what came from afar in namespace %s: %w", name, classify(err))
		}
	}
	return e.report.RemoteBytes, nil
}

// eviction is one run of Evict.
type eviction struct {
	store  *Store
	now    time.Time
	items  []evictable
	look   bool // only: nothing is kept from being leased
	locks  []func()
	report EvictReport
}

// evictable is a pack that may go.
type evictable struct {
	ns      namespace
	id      PackID
	partial bool
	bytes   int64
	runs    int           // of pages that are there: as many requests bring it again
	idle    time.Duration // since a snapshot that names it was used
}

// weight says how well the pack is deleted: longest idle first, where a byte that many requests brought counts less.
func (e *evictable) weight() float64 {
	return float64(e.idle) * float64(e.bytes) / float64(e.bytes+int64(e.runs)*requestBytes)
}

// release lets stubs be leased again.
func (e *eviction) release() {
	for _, unlock := range e.locks {
		unlock()
	}
}

// remotePack is what a namespace knows of a pack that came from afar.
type remoteUse struct {
	used   time.Time // when a stub that names it was opened last
	pinned bool      // somebody leases one
	local  bool      // a snapshot that was made here names it
}

// collect finds what of a namespace may go, and keeps it from being leased until release.
func (e *eviction) collect(ns namespace) error {
	uses, err := e.uses(ns)
	if err != nil {
		return err
	}
	packs, err := ns.listPacks()
	if err != nil {
		return err
	}
	for _, p := range packs {
		if use := uses[p.id]; use != nil && !use.local {
			e.add(evictable{ns: ns, id: p.id, bytes: diskBytes(ns.pack(p.id)), runs: 1}, use)
		}
	}
	partial, err := ns.listPartial()
	if err != nil {
		return err
	}
	for _, id := range partial {
		file, state := ns.partialFiles(id)
		item := evictable{ns: ns, id: id, partial: true, bytes: diskBytes(file) + diskBytes(state), runs: 1}
		if p, err := pack.ReadPresence(state); err == nil {
			item.runs = p.Runs()
		}
		use := uses[id]
		if use == nil {
			use = new(remoteUse) // gc's
		}
		e.add(item, use)
	}
	return nil
}

func (e *eviction) add(item evictable, use *remoteUse) {
	e.report.RemoteBytes += item.bytes
	if use.pinned {
		e.report.LeasedBytes += item.bytes
		return
	}
	item.idle = max(e.now.Sub(use.used), 1)
	e.items = append(e.items, item)
}

// uses returns who uses the packs of a namespace. It locks the stubs that nobody leases.
func (e *eviction) uses(ns namespace) (map[PackID]*remoteUse, error) {
	folders, err := ns.listSnapshots()
	if err != nil {
		return nil, err
	}
	removed, err := ns.listRemoved()
	if err != nil {
		return nil, err
	}
	uses := make(map[PackID]*remoteUse)
	for _, f := range append(folders, removed...) {
		local, pinned := true, false
		var used time.Time
		if info, err := os.Stat(filepath.Join(f.dir, remoteFile)); err == nil {
			local, used = false, info.ModTime()
			if pinned, err = e.lease(f.dir); err != nil {
				return nil, err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		err := readManifest(f.dir, func(m *manifest.Manifest) error {
			for i := range m.Packs() {
				id := m.Pack(i).ID
				use := uses[id]
				if use == nil {
					use = new(remoteUse)
					uses[id] = use
				}
				use.local, use.pinned = use.local || local, use.pinned || pinned
				if used.After(use.used) {
					use.used = used
				}
			}
			return nil
		})
		if f.removed && errors.Is(err, fs.ErrNotExist) {
			continue // half deleted
		} else if err != nil {
			return nil, fmt.Errorf("read manifest of %s/%s: %w", ns.name, f.snapshot, err)
		}
	}
	return uses, nil
}

// lease reports whether somebody leases a stub, and keeps it from being leased if nobody does.
func (e *eviction) lease(dir string) (pinned bool, err error) {
	if e.look {
		return false, nil
	}
	pinned, release, err := leased(dir)
	if release != nil {
		e.locks = append(e.locks, release)
	}
	return pinned, err
}

// run deletes.
func (e *eviction) run(ctx context.Context, limit, least int64) error {
	slices.SortStableFunc(e.items, func(a, b evictable) int {
		switch wa, wb := a.weight(), b.weight(); {
		case wa > wb:
			return -1
		case wa < wb:
			return 1
		}
		return 0
	})
	changed := make(map[string]bool)
	for _, item := range e.items {
		if e.report.RemoteBytes <= limit && e.report.BytesFreed >= least {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.delete(&item); err != nil {
			return err
		}
		if !item.partial {
			changed[item.ns.packs()] = true
		}
	}
	for dir := range changed {
		if err := e.store.opts.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (e *eviction) delete(item *evictable) error {
	if item.partial {
		if err := item.ns.discard(e.store.opts.fs, item.id); err != nil {
			return err
		}
		e.report.Partial++
	} else {
		if err := e.store.opts.fs.Remove(item.ns.pack(item.id)); err != nil {
			return err
		}
		e.report.Packs++
	}
	e.report.RemoteBytes -= item.bytes
	e.report.BytesFreed += item.bytes
	return nil
}

// diskBytes returns how much of the disk a file takes, 0 if it is not there.
func diskBytes(path string) int64 {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0
	}
	return st.Blocks * 512
}

// admitted notes that pages came in, and has the quota looked at now and then.
func (s *Store) admitted(n int64) {
	limit := s.opts.RemoteBytes
	if limit == 0 || s.cameIn.Add(n) < min(limit/16, roomBytes) || !s.evicting.TryLock() {
		return
	}
	s.cameIn.Store(0)
	started := s.background(func(ctx context.Context) {
		defer s.evicting.Unlock()
		// Another writer is not waited for: it may be waiting for room, with the lock that is held here.
		report, err := s.evict(ctx, limit, 0, true)
		if err != nil && !errors.Is(err, ErrLocked) && ctx.Err() == nil {
			s.opts.Logger.Warn("what came from afar may take more than its bound", "bytes", report.RemoteBytes, "bound", limit, "err", err)
		}
	})
	if !started {
		s.evicting.Unlock()
	}
}

// makeRoom evicts what it can because n bytes find no room. It does not wait for another writer: the caller may be one.
func (s *Store) makeRoom(n int64) {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	limit := s.opts.RemoteBytes
	if limit == 0 {
		limit = 1 << 62
	}
	if _, err := s.evict(s.ctx, limit, max(n, roomBytes), true); err != nil {
		s.opts.Logger.Warn("disk is full, and what came from afar cannot be evicted", "err", err)
	}
}
