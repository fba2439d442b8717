package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"thaw/pagestore/internal/mapping"
	"thaw/pagestore/internal/pack"
)

const (
	nameFormat = "%016x.segment" // the higher the number, the newer

	// batchPacks is how many packs enter one segment together: at most 64 MiB of entries.
	batchPacks = 64
	// maxEntries bounds what a segment has after others were added to it: it is made on the heap, 128 MiB then.
	maxEntries = 8 << 20

	dirMode  = 0o700
	fileMode = 0o600
)

// Index is an open index. Lookup is safe for concurrent use, but not beside Add.
type Index struct {
	dir      string
	segments []*segment // the newest first
	next     uint64     // number of the next one
	missing  []pack.ID
}

// Open opens the index in the folder dir, which it makes if need be. Entries about packs that are not in present are
// ignored. Missing returns the packs in present that should be added. Of what it finds in the folder it deletes what is no
// segment, damaged, mostly about packs that are gone, or a leftover.
func Open(dir string, present []pack.ID) (*Index, error) {
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	x := &Index{dir: dir}
	if err := x.openSegments(present); err != nil {
		return nil, errors.Join(fmt.Errorf("open index: %w", err), x.Close())
	}
	return x, nil
}

func (x *Index) openSegments(present []pack.ID) error {
	wanted := make(map[pack.ID]bool, len(present)) // and in no segment so far
	for _, id := range present {
		wanted[id] = true
	}
	files, err := os.ReadDir(x.dir)
	if err != nil {
		return err
	}
	for _, f := range slices.Backward(files) { // sorted by name
		path := filepath.Join(x.dir, f.Name())
		var number uint64
		if _, err := fmt.Sscanf(f.Name(), nameFormat, &number); err != nil || f.Name() != fmt.Sprintf(nameFormat, number) {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		x.next = max(x.next, number+1)
		if err := x.openSegment(path, wanted); err != nil {
			return err
		}
	}
	for _, id := range present {
		if wanted[id] {
			x.missing = append(x.missing, id)
		}
	}
	return nil
}

// openSegment opens a segment or deletes it. It takes the packs that the segment has from wanted.
func (x *Index) openSegment(path string, wanted map[pack.ID]bool) error {
	s, err := openSegment(path)
	if errors.Is(err, errDamaged) {
		return os.Remove(path)
	} else if err != nil {
		return err
	}
	for i := range s.packs {
		s.packs[i].dead = !wanted[s.packs[i].id] // gone, or in a newer segment
	}
	if all, live := s.pages(); live < all-live || live == 0 {
		return s.close(true)
	}
	for _, p := range s.packs {
		if !p.dead {
			delete(wanted, p.id)
		}
	}
	x.segments = append(x.segments, s)
	return nil
}

// Missing returns the packs given to Open that the index did not know then.
func (x *Index) Missing() []pack.ID { return x.missing }

// Lookup returns where a page with the digest is said to be.
func (x *Index) Lookup(digest *pack.Digest) (at Location, ok bool) {
	for _, s := range x.segments {
		if s.broken.Load() {
			continue
		}
		if at, ok, err := s.guardedLookup(digest); err != nil {
			s.broken.Store(true)
		} else if ok {
			return at, true
		}
	}
	return Location{}, false
}

func (s *segment) guardedLookup(digest *pack.Digest) (at Location, ok bool, err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	at, ok = s.lookup(digest)
	return at, ok, nil
}

// Add enters the pages of packs, each given by a function so that their tables need not be in memory at the same time.
// After an error the index is still usable but may lack entries.
func (x *Index) Add(ids []pack.ID, footer func(pack.ID) (*pack.Footer, error)) error {
	for batch := range slices.Chunk(ids, batchPacks) {
		if err := x.addBatch(batch, footer); err != nil {
			return fmt.Errorf("add to index: %w", err)
		}
	}
	return nil
}

func (x *Index) addBatch(ids []pack.ID, footer func(pack.ID) (*pack.Footer, error)) error {
	var packs []packRow
	var entries []entry
	for i, id := range ids {
		f, err := footer(id)
		if err != nil {
			return err
		}
		packs = append(packs, packRow{id: f.ID, pages: uint32(f.Pages())})
		entries = slices.Grow(entries, f.Pages())
		for page := range uint32(f.Pages()) {
			digest := f.Digest(page)
			entries = append(entries, entry{key: keyOf(&digest), pack: uint32(i), page: page})
		}
	}
	merged := x.segments[:x.mergeable(uint64(len(entries)))]
	s, err := x.write(packs, entries, merged)
	if err != nil {
		return err
	}
	var errs []error
	for _, old := range merged {
		errs = append(errs, old.close(true))
	}
	x.segments = append([]*segment{s}, x.segments[len(merged):]...)
	return errors.Join(errs...)
}

// mergeable returns how many of the newest segments a new one with n entries should replace: those that together are not
// larger. So each segment has more than all newer ones, unless it has grown enough, and an entry is written again only when
// its segment doubles.
func (x *Index) mergeable(n uint64) (segments int) {
	for _, s := range x.segments {
		_, live := s.pages()
		if live > n || n+live > maxEntries || s.broken.Load() {
			break
		}
		n += live
		segments++
	}
	return segments
}

// write makes a segment of new packs and of what is left of old segments. It appears under its name as a whole, and the old
// ones go after that: Open ignores them if they have not.
func (x *Index) write(packs []packRow, entries []entry, old []*segment) (_ *segment, err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	firsts := make([]uint32, len(old))
	for i, s := range old {
		firsts[i] = uint32(len(packs))
		for _, p := range s.packs {
			if !p.dead {
				packs = append(packs, p)
			}
		}
	}
	data := encodeSegment(packs, func(yield func(entry) bool) {
		for _, e := range entries {
			if !yield(e) {
				return
			}
		}
		for i, s := range old {
			for e := range s.live(firsts[i]) {
				if !yield(e) {
					return
				}
			}
		}
	})
	path := filepath.Join(x.dir, fmt.Sprintf(nameFormat, x.next))
	x.next++
	if err := os.WriteFile(path+".tmp", data, fileMode); err != nil {
		return nil, err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return nil, err
	}
	return openSegment(path)
}

// Close closes the index.
func (x *Index) Close() error {
	var errs []error
	for _, s := range x.segments {
		errs = append(errs, s.close(false))
	}
	x.segments = nil
	return errors.Join(errs...)
}
