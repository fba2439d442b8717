package workingset

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A Recording is what one restore touched.
type Recording struct {
	Digest     [32]byte // of the snapshot's manifest
	ImagePages uint64

	// Partial says that touches are missing: that a page is not among them says nothing then.
	Partial bool

	// Touches and runs may be in any order, and may name a page more than once.
	Image []Touch
	Files []FileTouches
	// Hidden are the pages of the image that were not observable, or not from some time on. A touch that was seen all the
	// same counts. Write does not matter.
	Hidden []Run

	// Outside is how many touches were of neither the image nor a file: new memory, and pages of zeros. Nothing is learned
	// from it.
	Outside uint64
}

// FileTouches are the touches of a file.
type FileTouches struct {
	Path    string // as the processes see it; not empty
	Touches []Touch
}

// A Touch is the first access to a page, or the first write.
type Touch struct {
	Page  uint64
	Time  time.Duration // since the processes began to run; negative: before
	Phase Phase
	Write bool
}

// set returns the set that has learned from the recording alone.
func (r *Recording) set() (*Set, error) {
	s := NewSet(r.Digest, r.ImagePages)
	var err error
	if s.Objects[0].Entries, err = fold(r.Image, r.ImagePages); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	files := make(map[string][]Touch)
	for _, f := range r.Files {
		files[f.Path] = append(files[f.Path], f.Touches...)
	}
	for path, touches := range files {
		entries, err := fold(touches, maxFilePages)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", path, err)
		}
		if len(entries) > 0 {
			s.Objects = append(s.Objects, Object{path, entries})
		}
	}
	slices.SortFunc(s.Objects[1:], func(a, b Object) int { return cmp.Compare(a.Path, b.Path) })
	if r.Partial {
		s.Partial = 1
		return s, s.check()
	}
	s.Recordings = 1
	for _, h := range normal(r.Hidden) {
		s.Hidden = append(s.Hidden, Hidden{Page: h.Page, Pages: h.Pages})
	}
	s.Hidden = without(s.Hidden, s.Image())
	return s, s.check()
}

// fold returns an entry for each page that was touched.
func fold(touches []Touch, limit uint64) ([]Entry, error) {
	sorted := slices.Clone(touches)
	slices.SortFunc(sorted, func(a, b Touch) int {
		return cmp.Or(cmp.Compare(a.Page, b.Page), cmp.Compare(a.Time, b.Time), cmp.Compare(a.Phase, b.Phase))
	})
	var out []Entry
	for _, t := range sorted {
		if t.Page >= limit || t.Phase > lastPhase {
			return nil, fmt.Errorf("touch of page %d of %d in phase %d", t.Page, limit, t.Phase)
		}
		if n := len(out); n > 0 && out[n-1].Page == t.Page {
			out[n-1].Write = out[n-1].Write || t.Write
			continue
		}
		e := Entry{Page: t.Page, Bucket: BucketOf(t.Time), Write: t.Write, Known: 1}
		switch t.Phase {
		case PhaseStart:
			e.Start = 1
		case PhaseRequest:
			e.Request = 1
		case PhaseLater:
			e.Later = 1
		}
		out = append(out, e)
	}
	return out, nil
}
