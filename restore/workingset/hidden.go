package workingset

// always returns the length of the history of a page that has no entry and was always observable.
func (s *Set) always() uint8 { return uint8(min(s.Recordings, Depth)) }

// observed tells how long the histories of pages without an entry are. It is asked for ascending pages.
type observed struct {
	hidden []Hidden
	all    uint8
}

// observed returns that of the image, or of any file: those are always observable.
func (s *Set) observed(image bool) *observed {
	if image {
		return &observed{s.Hidden, s.always()}
	}
	return &observed{nil, s.always()}
}

func (o *observed) known(page uint64) uint8 {
	known, _ := o.from(page)
	return known
}

// from returns the length for the page, and how many more pages have the same at least; 0 if all have that follow.
func (o *observed) from(page uint64) (known uint8, pages uint64) {
	for len(o.hidden) > 0 && page >= o.hidden[0].Page+o.hidden[0].Pages {
		o.hidden = o.hidden[1:]
	}
	switch {
	case len(o.hidden) == 0:
		return o.all, 0
	case page < o.hidden[0].Page:
		return o.all, o.hidden[0].Page - page
	}
	return o.hidden[0].Known, o.hidden[0].Page + o.hidden[0].Pages - page
}

// mergeHidden adds up the lengths of histories, and returns the pages whose sum is less than all. Pages with entries are
// among them.
func mergeHidden(newer, older *Set, all uint8) []Hidden {
	a, b := newer.observed(true), older.observed(true)
	var out []Hidden
	for page := uint64(0); page < newer.ImagePages; {
		knownA, n := a.from(page)
		knownB, m := b.from(page)
		switch rest := newer.ImagePages - page; {
		case n == 0 && m == 0:
			n = rest
		case n == 0 || m != 0 && m < n:
			n = m
		}
		if known := min(knownA+knownB, Depth); known < all {
			out = appendHidden(out, Hidden{page, n, known})
		}
		page += n
	}
	return out
}

// without returns the hidden pages that have no entry.
func without(hidden []Hidden, entries []Entry) []Hidden {
	var out []Hidden
	for _, h := range hidden {
		for len(entries) > 0 && entries[0].Page < h.Page {
			entries = entries[1:]
		}
		for len(entries) > 0 && entries[0].Page < h.Page+h.Pages {
			before := entries[0].Page - h.Page
			out = appendHidden(out, Hidden{h.Page, before, h.Known})
			h.Page, h.Pages = h.Page+before+1, h.Pages-before-1
			entries = entries[1:]
		}
		out = appendHidden(out, h)
	}
	return out
}

// appendHidden makes one of two that touch and are alike.
func appendHidden(out []Hidden, h Hidden) []Hidden {
	if h.Pages == 0 {
		return out
	}
	if n := len(out); n > 0 && out[n-1].Known == h.Known && out[n-1].Page+out[n-1].Pages == h.Page {
		out[n-1].Pages += h.Pages
		return out
	}
	return append(out, h)
}
