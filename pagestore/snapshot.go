package pagestore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/mapping"
)

// Snapshot is a leased snapshot: what it names stays in the store until Close, or the end of the process. It is safe
// for concurrent use.
type Snapshot struct {
	store *Store
	ns    namespace
	info  *Info
	// remote is where pages come from that are not here; nil if none do.
	remote *Remote

	file     *os.File // the manifest, which carries the lease
	dir      *os.File // the folder, wherever it is moved
	data     []byte   // the mapped manifest
	manifest *manifest.Manifest
	spaces   []SpaceView

	mu struct {
		sync.Mutex
		closed bool
		aside  bool   // see Aside
		image  *Image // nil until asked for
	}
}

// Snapshot leases a snapshot. Errors are [ErrNotFound], [ErrBeingRemoved], [ErrCorrupt] and [ErrVersion]. Packs that
// are missing or damaged are no error here: the pages in the others can be served.
func (s *Store) Snapshot(name Name) (*Snapshot, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	snap, err := s.openSnapshot(name)
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", name, classify(err))
	}
	return snap, nil
}

func (s *Store) openSnapshot(name Name) (*Snapshot, error) {
	ns := s.namespace(name.Namespace)
	snap, err := s.openFolder(ns, ns.snapshot(name.Snapshot))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errMoved) {
		return nil, ns.whyAbsent(name.Snapshot)
	} else if err != nil {
		return nil, err
	}
	if snap.info.Name != name {
		return nil, errors.Join(corruptf("%s names %s", infoFile, snap.info.Name), snap.Close())
	}
	return snap, nil
}

// whyAbsent returns the error for a snapshot that is not in its place.
func (n namespace) whyAbsent(snapshot string) error {
	if _, err := os.Stat(n.snapshot(snapshot)); err == nil {
		return corruptf("%s is missing", manifestFile)
	}
	removed, err := n.listRemoved()
	if err != nil {
		return err
	}
	for _, r := range removed {
		if r.snapshot == snapshot {
			return ErrBeingRemoved
		}
	}
	return ErrNotFound
}

// openFolder leases and opens the snapshot in the folder path.
func (s *Store) openFolder(ns namespace, path string) (_ *Snapshot, err error) {
	snap := &Snapshot{store: s, ns: ns}
	defer func() {
		if err != nil {
			err = errors.Join(err, snap.release())
		}
	}()
	if snap.file, err = lease(path); err != nil {
		return nil, err
	}
	if snap.dir, err = os.Open(path); err != nil {
		return nil, err
	}
	if snap.info, err = readInfo(path); err != nil {
		return nil, err
	}
	if err := snap.mapManifest(); err != nil {
		return nil, err
	}
	if snap.remote, err = readRemote(path); err != nil {
		return nil, err
	}
	return snap, nil
}

func (s *Snapshot) mapManifest() error {
	stat, err := s.file.Stat()
	if err != nil {
		return err
	}
	if stat.Size() != s.info.ManifestBytes {
		return corruptf("manifest has %d bytes, want %d", stat.Size(), s.info.ManifestBytes)
	}
	if s.data, err = mapping.Map(s.file, stat.Size()); err != nil {
		return err
	}
	if s.manifest, err = parseMapped(s.data); err != nil {
		return err
	}
	if got := s.manifest.Checksum(); got != s.info.ManifestSum {
		return corruptf("manifest has checksum %016x, want %016x", got, s.info.ManifestSum)
	}
	for i := range s.manifest.Spaces() {
		s.spaces = append(s.spaces, SpaceView{manifest: s.manifest, space: s.manifest.Space(i)})
	}
	return nil
}

// parseMapped is manifest.Parse of mapped bytes.
func parseMapped(data []byte) (m *manifest.Manifest, err error) {
	mapping.Populate(data)
	defer mapping.Recover(mapping.Guard(), &err)
	return manifest.Parse(data)
}

// Info returns what is known of the snapshot. It must not be changed.
func (s *Snapshot) Info() *Info { return s.info }

// Name returns the name under which the snapshot was opened.
func (s *Snapshot) Name() Name { return s.info.Name }

// Digest returns the SHA-256 of the manifest, as recorded when it was written; Verify compares the two.
func (s *Snapshot) Digest() Digest { return s.info.Digest }

// Host returns what Input.Host was. It must not be changed.
func (s *Snapshot) Host() json.RawMessage { return s.info.Host }

// SkeletonDir returns where the skeleton images are now: Remove moves the folder of a snapshot that is leased. Files that
// were opened stay valid.
func (s *Snapshot) SkeletonDir() string {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", s.dir.Fd()))
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		path = s.dir.Name()
	}
	return filepath.Join(path, skeletonDir)
}

// Spaces returns the address spaces, ascending by ID. Their tables are read in place and must not be used after Close.
func (s *Snapshot) Spaces() []SpaceView { return s.spaces }

// Image opens the memory of the snapshot, with all its packs; every call returns the same Image, which lives until
// the snapshot is closed. Packs that cannot be opened are reported by the Load of a page in them.
func (s *Snapshot) Image() (*Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, ErrClosed
	}
	if s.mu.image == nil {
		im, err := newImage(s)
		if err != nil {
			return nil, fmt.Errorf("open image of %s: %w", s.info.Name, err)
		}
		s.mu.image = im
	}
	return s.mu.image, nil
}

// Close gives up the lease and the image. It waits for calls into the image that are running; pages that they
// returned must not be in use any more. It is idempotent.
func (s *Snapshot) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil
	}
	s.mu.closed = true
	if s.mu.image != nil {
		s.mu.image.close()
	}
	return s.release()
}

// release undoes openFolder, also a part of it. The lease goes last.
func (s *Snapshot) release() error {
	err := mapping.Unmap(s.data)
	for _, f := range []*os.File{s.dir, s.file} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// SpaceView is one address space of a snapshot, read in place. It is safe for concurrent use until the snapshot is
// closed.
type SpaceView struct {
	manifest *manifest.Manifest
	space    manifest.Space
}

// ID returns what the importer called the space.
func (v SpaceView) ID() uint32 { return v.space.ID }

// Zombie reports whether the process had exited.
func (v SpaceView) Zombie() bool { return v.space.Zombie }

// NumRegions returns how many regions the space has.
func (v SpaceView) NumRegions() int { return int(v.space.Regions.Count) }

// NumRuns returns how many runs the space has.
func (v SpaceView) NumRuns() int { return int(v.space.Runs.Count) }

// Regions yields the regions, ascending. An error, of the storage, is the last thing it yields.
func (v SpaceView) Regions() iter.Seq2[Region, error] {
	return inPlace(v.space.Regions, func(i uint64) Region {
		r := v.manifest.Region(i)
		return Region{Start: r.Start, End: r.End, Flags: RegionFlags(r.Flags)}
	})
}

// Runs yields the runs, ascending. An error, of the storage, is the last thing it yields.
func (v SpaceView) Runs() iter.Seq2[ImageRun, error] {
	return inPlace(v.space.Runs, func(i uint64) ImageRun { return ImageRun(v.manifest.Run(i)) })
}

// inPlace yields the entries of a part of a mapped table. Only the reading of an entry is guarded, not the loop's body.
func inPlace[T any](span manifest.Span, entry func(i uint64) T) iter.Seq2[T, error] {
	read := func(i uint64) (v T, err error) {
		defer mapping.Recover(mapping.Guard(), &err)
		return entry(i), nil
	}
	return func(yield func(T, error) bool) {
		for i := range span.Count {
			v, err := read(span.First + i)
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}
