package workingset

import (
	"cmp"
	"slices"
)

// A Run is a range of consecutive pages that are alike.
type Run struct {
	Page, Pages uint64
	Write       bool // all of them were written
}

func (r Run) end() uint64 { return r.Page + r.Pages }

// appendRun makes the last run longer if r follows it and is alike.
func appendRun(runs []Run, r Run) []Run {
	if n := len(runs); n > 0 && runs[n-1].Write == r.Write && runs[n-1].end() == r.Page {
		runs[n-1].Pages += r.Pages
		return runs
	}
	return append(runs, r)
}

func appendPage(runs []Run, page uint64, write bool) []Run {
	return appendRun(runs, Run{page, 1, write})
}

// Pages returns how many pages the runs have, which must not overlap.
func Pages(runs []Run) uint64 {
	var n uint64
	for _, r := range runs {
		n += r.Pages
	}
	return n
}

// RunsOf returns the runs of pages that may be in any order: ascending and apart, with Write false.
func RunsOf(pages []uint64) []Run {
	runs := make([]Run, 0, len(pages))
	for _, p := range pages {
		runs = append(runs, Run{Page: p, Pages: 1})
	}
	return normal(runs)
}

// normal returns the pages of the runs ascending, each once, in as few runs as there can be. Write is lost.
func normal(runs []Run) []Run {
	sorted := slices.Clone(runs)
	slices.SortFunc(sorted, func(a, b Run) int { return cmp.Compare(a.Page, b.Page) })
	out := sorted[:0]
	for _, r := range sorted {
		// No page number is so large that its end overflows.
		r.Pages, r.Write = min(r.Pages, 1<<63-min(r.Page, 1<<63)), false
		n := len(out)
		switch {
		case r.Pages == 0:
		case n > 0 && r.Page <= out[n-1].end():
			out[n-1].Pages = max(out[n-1].end(), r.end()) - out[n-1].Page
		default:
			out = append(out, r)
		}
	}
	return out
}

// A Comparison says what bringing pages early was worth.
type Comparison struct {
	Installed uint64 `json:"installed"` // pages that were brought early
	Used      uint64 `json:"used"`      // of those, the ones that were touched
	Unused    uint64 `json:"unused"`    // and the ones that were not
	Missed    uint64 `json:"missed"`    // pages that were touched and not brought early
	// Precision is Used of Installed, Recall Used of all that were touched. Both are 1 if there is nothing to divide by: nothing
	// was brought in vain, nothing was missed.
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
}

// Compare compares the pages that were brought early with those that were touched, whether that was seen as a fault or found
// out otherwise. The runs may be in any order and overlap.
func Compare(installed, touched []Run) Comparison {
	in, used := normal(installed), normal(touched)
	c := Comparison{Installed: Pages(in), Missed: Pages(used), Precision: 1, Recall: 1}
	for len(in) > 0 && len(used) > 0 {
		if from, to := max(in[0].Page, used[0].Page), min(in[0].end(), used[0].end()); from < to {
			c.Used += to - from
		}
		if in[0].end() < used[0].end() {
			in = in[1:]
		} else {
			used = used[1:]
		}
	}
	if c.Installed > 0 {
		c.Precision = float64(c.Used) / float64(c.Installed)
	}
	if c.Missed > 0 {
		c.Recall = float64(c.Used) / float64(c.Missed)
	}
	c.Unused, c.Missed = c.Installed-c.Used, c.Missed-c.Used
	return c
}
