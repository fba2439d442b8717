package daemon

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"thaw/control"
	"thaw/restore"
	"thaw/restore/workingset"
)

// populatePatience is how long after its userfaultfd a process may take to have its files mapped. CRIU maps them within milliseconds.
const populatePatience = 5 * time.Second

// A foresight is what is known of a session's processes before they run, and what has been done about it.
type foresight struct {
	needs   *needs   // what is read from the disk first; nil: nothing is known
	learned *learned // nil: no working set, or none that is to be used
	known   *learned // the working set that there is, also if it is not used: for a recording to be compared with

	// Of a session that is recorded and uses its working set: the pages of the set that are left out, to see whether they are needed.
	leftOut      []restore.Run
	must, likely []restore.Run // without those that are left out

	populated atomic.Uint64 // windows of mapped files that were entered into page tables
}

// foresee finds out what is known of a snapshot: from its working set, or, if it has none, from restores that this thawd has seen.
func (d *Daemon) foresee(s *session) *foresight {
	o := s.origin
	if o.snap == nil {
		return &foresight{}
	}
	if s.request.WorkingSet == control.WorkingSetIgnored && !s.request.Record {
		return &foresight{}
	}
	learned, err := d.sets.of(o.snap)
	if err != nil {
		d.metrics.hintsRefused.Inc()
		s.log.Warn("working set is not used", "snapshot", o.name, "err", err)
	}
	f := &foresight{needs: d.touched.of(o.digest), known: learned}
	if learned != nil && !s.request.Record {
		f.learned, f.needs = learned, learned.needs.withWritten(d.touched.of(o.digest))
		f.must, f.likely = learned.must, learned.likely
	}
	return f
}

// leaveOut leaves a random share of the working set out.
func (f *foresight) leaveOut(rnd *rand.Rand) {
	if f.learned == nil {
		return
	}
	var left [2][]restore.Run
	f.must, left[0] = split(f.learned.must, rnd)
	f.likely, left[1] = split(f.learned.likely, rnd)
	f.leftOut = slices.Concat(left[0], left[1])
}

// leftOutShare is one in how many windows of the working set is left out of a recorded restore. Each page is looked at every ten
// recordings or so, and a recorded restore has a tenth of the faults that it would have without the set.
const leftOutShare = 10

// split divides runs by windows of the image, which come along with each other when one is touched.
func split(runs []restore.Run, rnd *rand.Rand) (kept, left []restore.Run) {
	const window = aroundBytes / restore.PageSize
	choice := make(map[uint64]bool)
	for _, r := range runs {
		for r.Pages > 0 {
			w := r.Page / window
			n := min(r.Pages, (w+1)*window-r.Page)
			out, chosen := choice[w]
			if !chosen {
				out = rnd.IntN(leftOutShare) == 0
				choice[w] = out
			}
			to := &kept
			if out {
				to = &left
			}
			if last := len(*to) - 1; last >= 0 && (*to)[last].Page+(*to)[last].Pages == r.Page {
				(*to)[last].Pages += n
			} else {
				*to = append(*to, restore.Run{Page: r.Page, Pages: n})
			}
			r.Page, r.Pages = r.Page+n, r.Pages-n
		}
	}
	return kept, left
}

// hidden returns the pages whose touch cannot be seen, because they were brought before.
func (f *foresight) hidden() []workingset.Run {
	return toSet(slices.Concat(f.must, f.likely))
}

func toSet(runs []restore.Run) []workingset.Run {
	out := make([]workingset.Run, len(runs))
	for i, r := range runs {
		out[i] = workingset.Run{Page: r.Page, Pages: r.Pages}
	}
	return out
}

// worth compares the set with what was touched; nil if there is none. If the set was used it compares what was left out of it, and says
// what that means for the whole set.
func (f *foresight) worth(touched []workingset.Run) *workingset.Comparison {
	if f.known == nil {
		return nil
	}
	all := toSet(slices.Concat(f.known.must, f.known.likely))
	if f.learned == nil {
		c := workingset.Compare(all, touched)
		return &c
	}
	if len(f.leftOut) == 0 {
		return nil
	}
	sample, whole := workingset.Compare(toSet(f.leftOut), touched), workingset.Compare(all, touched)
	w := &workingset.Comparison{Installed: sample.Installed, Used: sample.Used, Unused: sample.Unused, Missed: whole.Missed, Precision: sample.Precision, Recall: 1}
	if used := float64(whole.Installed) * sample.Precision; used+float64(w.Missed) > 0 {
		w.Recall = used / (used + float64(w.Missed))
	}
	return w
}

// preload returns the layouts of the processes that say which of their pages are brought first. Pages that are mapped are not among them.
func (f *foresight) preload(layouts map[int]restore.Layout) map[int]restore.Layout {
	if f.learned == nil {
		return layouts
	}
	out := make(map[int]restore.Layout, len(layouts)) // others read the one that there is
	for pid, l := range layouts {
		l.Preload = restore.NewPreload(&l, f.must, f.likely)
		out[pid] = l
	}
	return out
}

// populate enters what a process will need, and maps from files, into its page tables, while the runtime still restores it and behind.
func (f *foresight) populate(ctx context.Context, o *origin, p restore.ProcessInfo, recorded bool) {
	if f.learned == nil || p.HostPID == 0 {
		return
	}
	mapped, files := o.fromPacks[p.ID], f.learned.files[p.ID]
	if recorded {
		files = nil // a set does not know which pages of files could not be seen
	}
	pages := slices.Concat(restore.Place(mapped, f.must), files, restore.Place(mapped, f.likely))
	f.populated.Add(uint64(populate(ctx, p.HostPID, pages, populatePatience)))
}

// report says what the working set was worth so far; nil if there was none.
func (f *foresight) report(st *restore.Stats) *control.WorkingSetReport {
	if f.learned == nil {
		return nil
	}
	must, likely := pagesOf(f.learned.must), pagesOf(f.learned.likely)
	return &control.WorkingSetReport{
		Recordings: f.learned.set.Learned(), PagesMust: must, PagesLikely: likely,
		PagesBeforeRun: st.BytesBeforeRun / restore.PageSize, PagesBehind: (st.BytesPreload - st.BytesBeforeRun) / restore.PageSize,
		Populated: f.populated.Load(), Held: st.Held.Seconds(), HeldInVain: st.HeldInVain,
	}
}

func pagesOf(runs []restore.Run) (n uint64) {
	for _, r := range runs {
		n += r.Pages
	}
	return n
}
