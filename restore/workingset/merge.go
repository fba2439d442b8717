package workingset

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Add makes the set learn from a recording, which is newer than all that it has learned from. Pages that were observable
// and not touched in all of their history leave the set.
//
// Returns ErrForeign if the recording is of another snapshot; the set stays as it was with any error.
func (s *Set) Add(r *Recording) error {
	one, err := r.set()
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	merged, err := Merge(one, s)
	if err != nil {
		return err
	}
	*s = *merged
	return nil
}

// Merge returns a set that has learned from the recordings of both sets, of which those of older came first. It is the same
// that one set would be if all of them were added to it in that order, but that a page which would have left it in between
// may keep its Bucket and Write from before. Both stay as they are.
//
// Returns ErrForeign if they are of different snapshots.
func Merge(newer, older *Set) (*Set, error) {
	if err := older.Match(newer.Digest, newer.ImagePages); err != nil {
		return nil, err
	}
	s := NewSet(newer.Digest, newer.ImagePages)
	s.Recordings, s.Partial = sum(newer.Recordings, older.Recordings), sum(newer.Partial, older.Partial)
	s.Objects[0].Entries = mergeEntries(newer.Image(), older.Image(), newer.observed(true), older.observed(true))
	s.Hidden = without(mergeHidden(newer, older, s.always()), s.Image())
	for _, path := range paths(newer, older) {
		entries := mergeEntries(newer.file(path), older.file(path), newer.observed(false), older.observed(false))
		if len(entries) > 0 {
			s.Objects = append(s.Objects, Object{path, entries})
		}
	}
	if len(s.Objects) > maxObjects {
		return nil, fmt.Errorf("%w: %d objects", ErrTooLarge, len(s.Objects))
	}
	return s, nil
}

func sum(a, b uint32) uint32 { return uint32(min(uint64(a)+uint64(b), math.MaxUint32)) }

// paths returns those of the files of both sets, ascending.
func paths(a, b *Set) []string {
	var all []string
	for _, o := range slices.Concat(a.Objects[1:], b.Objects[1:]) {
		all = append(all, o.Path)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *Set) file(path string) []Entry {
	i, found := slices.BinarySearchFunc(s.Objects, path, func(o Object, path string) int { return cmp.Compare(o.Path, path) })
	if !found {
		return nil
	}
	return s.Objects[i].Entries
}

// mergeEntries makes one history of two. A page that has an entry in one set only was not touched in the history that the other
// set has of it, whose length a and b know.
func mergeEntries(newer, older []Entry, a, b *observed) []Entry {
	out := make([]Entry, 0, max(len(newer), len(older)))
	for len(newer) > 0 || len(older) > 0 {
		var e Entry
		switch {
		case len(older) == 0 || len(newer) > 0 && newer[0].Page < older[0].Page:
			e, newer = newer[0], newer[1:]
			e.Known = min(e.Known+b.known(e.Page), Depth)
		case len(newer) == 0 || older[0].Page < newer[0].Page:
			e, older = older[0], older[1:]
			e.age(a.known(e.Page))
		default:
			first := newer[0]
			e, newer, older = older[0], newer[1:], older[1:]
			e.age(first.Known)
			e.Start, e.Request, e.Later = e.Start|first.Start, e.Request|first.Request, e.Later|first.Later
			e.Bucket, e.Write = min(e.Bucket, first.Bucket), e.Write || first.Write
		}
		if e.Seen() != 0 {
			out = append(out, e)
		}
	}
	return out
}

// age puts n recordings in front of the history in which the page was not touched.
func (e *Entry) age(n uint8) {
	e.Start, e.Request, e.Later = e.Start<<n, e.Request<<n, e.Later<<n
	e.Known = min(e.Known+n, Depth)
}
