package workingset

import (
	"errors"
	"fmt"
)

// check returns what is wrong with a set: with one that was read, or with one that somebody has made.
func (s *Set) check() error {
	switch {
	case s.ImagePages > MaxImagePages:
		return fmt.Errorf("image of %d pages", s.ImagePages)
	case len(s.Objects) == 0 || len(s.Objects) > maxObjects || s.Objects[0].Path != "":
		return fmt.Errorf("%d objects, and the first is not the image", len(s.Objects))
	}
	for i := range s.Objects {
		o, limit := &s.Objects[i], s.ImagePages
		if i > 0 {
			limit = maxFilePages
			if o.Path <= s.Objects[i-1].Path || len(o.Path) > maxPath || len(o.Entries) == 0 {
				return fmt.Errorf("object %q with %d entries after %q", o.Path, len(o.Entries), s.Objects[i-1].Path)
			}
		}
		if err := o.check(limit, s.Learned()); err != nil {
			return fmt.Errorf("object %q: %w", o.Path, err)
		}
	}
	return s.checkHidden()
}

func (o *Object) check(limit uint64, learned int) error {
	for i := range o.Entries {
		e := &o.Entries[i]
		seen := uint64(e.Seen())
		switch {
		case e.Page >= limit:
			return fmt.Errorf("page %d of %d", e.Page, limit)
		case i > 0 && e.Page <= o.Entries[i-1].Page:
			return fmt.Errorf("page %d after %d", e.Page, o.Entries[i-1].Page)
		case e.Bucket > LastBucket || e.Known == 0 || int(e.Known) > min(Depth, learned):
			return fmt.Errorf("page %d in bucket %d, known in %d of %d recordings", e.Page, e.Bucket, e.Known, learned)
		case seen == 0 || seen >= 1<<e.Known || e.Start&e.Request|e.Start&e.Later|e.Request&e.Later != 0:
			return fmt.Errorf("page %d with the history %#x, %#x, %#x of %d", e.Page, e.Start, e.Request, e.Later, e.Known)
		}
	}
	return nil
}

var errHidden = errors.New("hidden pages overlap, are out of order, or have a history")

func (s *Set) checkHidden() error {
	all := s.always()
	entries := s.Image()
	var end uint64
	var last Hidden
	for i, h := range s.Hidden {
		switch {
		case h.Pages == 0 || h.Page >= s.ImagePages || h.Pages > s.ImagePages-h.Page || h.Known >= all:
			return fmt.Errorf("%d hidden pages from %d, known in %d recordings", h.Pages, h.Page, h.Known)
		case h.Page < end, i > 0 && h.Page == end && h.Known == last.Known:
			return errHidden
		}
		last, end = h, h.Page+h.Pages
		for len(entries) > 0 && entries[0].Page < h.Page {
			entries = entries[1:]
		}
		if len(entries) > 0 && entries[0].Page < end {
			return errHidden
		}
	}
	return nil
}
