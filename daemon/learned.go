package daemon

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"thaw/pagestore"
	"thaw/restore"
	"thaw/restore/criu"
	"thaw/restore/workingset"
)

// learned is the working set of a snapshot, ready to be used. It is immutable.
type learned struct {
	set  *workingset.Set
	plan *workingset.Plan

	needs        *needs
	must, likely []restore.Run
	files        map[int][]restore.Extent // where processes map the pages of files that they need, by image pid; Image says nothing
}

// newLearned prepares a working set. skeleton is the snapshot's: it says what files the processes map where.
func newLearned(set *workingset.Set, skeleton string) *learned {
	plan := workingset.Cut(set, nil)
	l := &learned{set: set, plan: plan, must: restorersLast(set, runsOf(plan.Must.Replay)), likely: runsOf(slices.Concat(plan.Likely.Replay, plan.Near))}
	l.needs = &needs{files: make(map[string]pageSet, len(plan.Files))}
	for _, r := range slices.Concat(plan.Must.Ascending, plan.Likely.Ascending, plan.Near) {
		l.needs.image = l.needs.image.addRun(r.Page, r.Pages)
		if r.Write {
			l.needs.written = l.needs.written.addRun(r.Page, r.Pages)
		}
	}
	left := uint64(maxSetPages)
	for _, f := range plan.Files {
		var pages pageSet
		for _, r := range f.Runs {
			if r.Page+r.Pages <= min(left, maxFilePages) {
				pages = pages.addRun(r.Page, r.Pages)
			}
		}
		if pages != nil {
			l.needs.files[f.Path] = pages
			left -= uint64(len(pages)) * 64
		}
	}
	l.placeFiles(skeleton)
	return l
}

func runsOf(runs []workingset.Run) []restore.Run {
	out := make([]restore.Run, len(runs))
	for i, r := range runs {
		out[i] = restore.Run{Page: r.Page, Pages: r.Pages}
	}
	return out
}

// restorersLast puts the pages at the end that are touched before the processes run: by the restorer, which is held there until all others
// are in place, and would go on at once if its own were.
func restorersLast(set *workingset.Set, runs []restore.Run) []restore.Run {
	var early pageSet
	for _, e := range set.Image() {
		if e.Bucket == 0 {
			early = early.add(e.Page)
		}
	}
	var out, last []restore.Run
	for _, r := range runs {
		for p := r.Page; p < r.Page+r.Pages; p++ {
			if early.has(p) {
				last = appendPage(last, p)
			} else {
				out = appendPage(out, p)
			}
		}
	}
	return append(out, last...)
}

// appendPage makes the last run longer if the page follows it.
func appendPage(runs []restore.Run, page uint64) []restore.Run {
	if n := len(runs); n > 0 && runs[n-1].Page+runs[n-1].Pages == page {
		runs[n-1].Pages++
		return runs
	}
	return append(runs, restore.Run{Page: page, Pages: 1})
}

// placeFiles finds where the processes map the pages of files that they need.
func (l *learned) placeFiles(skeleton string) {
	ranges, err := criu.FileRanges(skeleton)
	if err != nil {
		return // the runtime will say it better
	}
	l.files = make(map[int][]restore.Extent, len(ranges))
	for pid, files := range ranges {
		for _, f := range files {
			first := uint64(f.Offset) / restore.PageSize
			if f.Offset < 0 || first > maxFilePages || f.Pages > maxFilePages {
				continue
			}
			for _, r := range l.needs.files[f.Path].runs(first, f.Pages) {
				l.files[pid] = append(l.files[pid], restore.Extent{Addr: f.Addr + (r.first-first)*restore.PageSize, Pages: r.n})
			}
		}
		slices.SortFunc(l.files[pid], func(a, b restore.Extent) int { return cmp.Compare(a.Addr, b.Addr) })
	}
}

// maxLearned bounds the working sets that are kept ready. One takes some bytes for each of its pages.
const maxLearned = 256

// workingSets keeps the working sets of snapshots ready, as long as their files do not change. It is safe for concurrent use.
type workingSets struct {
	learning sync.Mutex // held while a set is read, changed and written

	mu    sync.Mutex
	ready map[pagestore.Digest]readySet // protected by mu
	order []pagestore.Digest            // protected by mu; by first use
}

type readySet struct {
	version pagestore.HintVersion
	*learned
}

// of returns the working set of a snapshot, nil if it has none. The error says why one that is there cannot be used; nothing
// depends on it.
func (w *workingSets) of(snap *pagestore.Snapshot) (*learned, error) {
	version, err := snap.HintVersion()
	if err != nil || version == (pagestore.HintVersion{}) {
		return nil, err
	}
	digest := snap.Digest()
	w.mu.Lock()
	known, ok := w.ready[digest]
	w.mu.Unlock()
	if ok && known.version == version {
		return known.learned, nil
	}
	data, err := snap.WorkingSet()
	if err != nil {
		return nil, err
	}
	set, err := workingset.Decode(data)
	if err == nil {
		err = set.Match(digest, snap.Info().Pages)
	}
	if err != nil {
		return nil, err
	}
	l := newLearned(set, snap.SkeletonDir())
	w.keep(digest, readySet{version, l})
	return l, nil
}

func (w *workingSets) keep(digest pagestore.Digest, r readySet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ready == nil {
		w.ready = make(map[pagestore.Digest]readySet)
	}
	if _, known := w.ready[digest]; !known {
		w.order = append(w.order, digest)
	}
	w.ready[digest] = r
	if len(w.order) > maxLearned {
		delete(w.ready, w.order[0])
		w.order = w.order[1:]
	}
}

const (
	// firstRecordings is how many recordings a snapshot has before only the usual share of its restores is recorded, and firstShare the share
	// until then: a new snapshot would else wait for some hundred restores for what makes them fast.
	firstRecordings = 3
	firstShare      = 1.0 / 4
)

// recordShare returns how probable it is that a restore is recorded.
func (d *Daemon) recordShare(sight *foresight) float64 {
	share := d.opts.RecordShare
	if share > 0 && (sight.known == nil || sight.known.set.Learned() < firstRecordings) {
		return max(share, firstShare)
	}
	return share
}

// recordingOf returns the recording of a session, nil if it is not to be recorded: if that was asked for, or it is one of a share.
func (d *Daemon) recordingOf(s *session) *recording {
	if s.origin.snap == nil {
		return nil
	}
	asked := s.request.Record
	if !asked && rand.Float64() >= d.recordShare(s.sight) {
		return nil
	}
	snap := s.origin.snap
	if !asked {
		s.sight.leaveOut(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	}
	return newRecording(s, asked, func(ctx context.Context, r *workingset.Recording) error { return d.sets.learn(ctx, snap, r) })
}

// learn adds a recording to a snapshot's working set, and writes it, for which it may wait for another writer of the store until ctx ends.
func (w *workingSets) learn(ctx context.Context, snap *pagestore.Snapshot, r *workingset.Recording) error {
	w.learning.Lock()
	defer w.learning.Unlock()
	set := *workingset.NewSet(r.Digest, r.ImagePages)
	// What cannot be read is learned anew.
	if known, err := w.of(snap); err == nil && known != nil {
		set = *known.set // which Add replaces, and does not change
	}
	if err := set.Add(r); err != nil {
		return fmt.Errorf("learn from recording: %w", err)
	}
	data, err := set.Encode(nil)
	if err != nil {
		return err
	}
	return snap.SetHint(ctx, data)
}
