package restore

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultHold is how long processes are held for the pages that they must have: as long as reading some 60 MB from a disk of
	// 2 GB/s takes, or installing 90 MB that are at hand.
	DefaultHold = 30 * time.Millisecond
	// DefaultHoldFar is the same where pages come from another node or an object store: as long as 100 MB take at 1 Gbit/s. What most earlier
	// restores have touched this one will wait for anyway; page by page, while it runs, that takes a CPU from what brings them. Of 150 MB of scattered
	// pages from a peer a process that was held for 30 ms had its answer after 1.0 s, one that was held for all of them after 0.42 s.
	DefaultHoldFar = time.Second
	// DefaultHoldFarRate is at what rate, in bytes a second, pages have to come from there for processes to be held on: the 100 MB in a second of
	// above. Of 1.2 GB that each request needs a process that ran after a second waited for its pages, one at a time, and its threads for each other,
	// which took a CPU from what brought them: 1.4 s of one, of 6.2 that a restore from a peer took.
	DefaultHoldFarRate = 100e6
	// holdMost bounds how long processes are held however fast pages come: the runtime waits for its restorer, and somebody may wait for that.
	holdMost = 30 * time.Second
	// quietMost bounds how long the stream waits for what is preloaded.
	quietMost = holdMost
	// DefaultQuiet is how long a session with a preload leaves its processes alone before the stream brings the rest. What
	// they need is there, and the stream would only take a CPU and the locks of page tables from the first request.
	DefaultQuiet = 500 * time.Millisecond
)

// A Run is Pages consecutive pages of the image, from page Page on.
type Run struct{ Page, Pages uint64 }

// A Preload says which pages of a process are brought before all others: those that it will need soon, as far as earlier
// restores tell. It is immutable and may be shared by any number of sessions.
type Preload struct {
	first  [urgencies][]Extent // in the order in which they are brought
	pages  [urgencies]uint64
	member []uint64 // a bit for each page of the image that is in either
}

// An urgency says when a page of a preload is brought.
type urgency uint8

const (
	must   urgency = iota // before the process runs, if that can be had in time
	likely                // behind those, while it runs

	urgencies = int(likely) + 1
)

// NewPreload finds the pages in a layout. must are those for which the process is held, likely those that follow, each in the order in
// which they are to be brought. Pages that are not in the layout, or not any more, are left out.
func NewPreload(l *Layout, mustHave, likelyNeeded []Run) *Preload {
	p := &Preload{}
	for u, runs := range [urgencies][]Run{must: mustHave, likely: likelyNeeded} {
		p.first[u] = Place(l.Extents, runs)
		for _, e := range p.first[u] {
			p.pages[u] += e.Pages
			p.note(e.Image, e.Image+e.Pages)
		}
	}
	return p
}

// Place returns where runs of the image lie, in their order: a part of an extent each. Pages in no extent are left out. The extents are
// those of a layout, of which no two have the same page of the image.
func Place(extents []Extent, runs []Run) []Extent {
	compare := func(a, b Extent) int { return cmp.Compare(a.Image, b.Image) }
	if !slices.IsSortedFunc(extents, compare) {
		extents = slices.Clone(extents)
		slices.SortFunc(extents, compare)
	}
	var out []Extent
	for _, r := range runs {
		i, _ := slices.BinarySearchFunc(extents, r.Page, func(e Extent, page uint64) int { return cmp.Compare(e.Image+e.Pages, page+1) })
		for ; i < len(extents) && extents[i].Image < r.Page+r.Pages; i++ {
			e := &extents[i]
			from, to := max(e.Image, r.Page), min(e.Image+e.Pages, r.Page+r.Pages)
			out = append(out, Extent{Addr: e.Addr + (from-e.Image)*PageSize, Pages: to - from, Image: from})
		}
	}
	return out
}

func (p *Preload) note(from, to uint64) {
	if need := int((to + 63) / 64); need > len(p.member) {
		p.member = append(p.member, make([]uint64, need-len(p.member))...)
	}
	for page := from; page < to; page++ {
		p.member[page/64] |= 1 << (page % 64)
	}
}

// has reports whether the preload brings a page. p may be nil.
func (p *Preload) has(page uint64) bool {
	return p != nil && page/64 < uint64(len(p.member)) && p.member[page/64]&(1<<(page%64)) != 0
}

// Pages returns how many pages the process is held for, and how many follow.
func (p *Preload) Pages() (mustHave, likelyNeeded uint64) { return p.pages[must], p.pages[likely] }

// A preloadJob is runs of a preload that a worker brings at a time. runs belongs to the preload.
type preloadJob struct {
	a       *addressSpace
	urgency urgency
	runs    []Extent
}

const (
	// preloadRuns and preloadPages bound a job: two workers share the work, and a fault waits for the copying in hand only.
	preloadRuns  = 64
	preloadPages = 512
)

// preloadState is how far the preload of an address space has come. It is protected by streamState.mu.
type preloadState struct {
	*Preload                // nil: none
	next     [urgencies]int // of the runs that nobody has taken
	left     [urgencies]int // runs that are not settled
}

func newPreloadState(p *Preload) preloadState {
	s := preloadState{Preload: p}
	if p != nil {
		for u := range urgencies {
			s.left[u] = len(p.first[u])
		}
	}
	return s
}

// takeFirst returns the next runs of a preload that nobody has taken.
func (st *streamState) takeFirst(u urgency) []Extent {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.preload.Preload == nil {
		return nil
	}
	rest := st.preload.first[u][st.preload.next[u]:]
	n, pages := 0, uint64(0)
	for n < len(rest) && n < preloadRuns && pages < preloadPages {
		pages += rest[n].Pages
		n++
	}
	st.preload.next[u] += n
	return rest[:n]
}

// finishFirst says that runs of a preload are settled. It reports whether they were the last of their urgency.
func (st *streamState) finishFirst(u urgency, runs int) (last bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.preload.left[u] -= runs
	return st.preload.left[u] == 0
}

// newBatchLocked returns the runs that are to be brought next, nil if there are none: what any process must have comes first.
func (s *Session) newBatchLocked() *preloadJob {
	for u := range urgency(urgencies) {
		for _, a := range s.spaces {
			if runs := a.stream.takeFirst(u); len(runs) > 0 {
				return &preloadJob{a, u, runs}
			}
		}
	}
	return nil
}

// do settles the runs, and lets the processes go on if they were the last that those are held for.
func (j *preloadJob) do(ctx context.Context) {
	if !j.a.bringFirst(ctx, j.runs) {
		return // the process is gone, or the session ends
	}
	if j.a.stream.finishFirst(j.urgency, len(j.runs)) && j.urgency == must {
		j.a.s.needsNoHold()
	}
}

// needsNoHold says that a process has what it must have, or is gone.
func (s *Session) needsNoHold() {
	s.gate.pending.Add(-1)
	s.poke()
}

// bringsFirst reports whether pages of the preload are not settled.
func (st *streamState) bringsFirst() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.preload.left[must] > 0 || st.preload.left[likely] > 0
}

// gaveUp says that nothing of a preload is brought any more. It reports whether the process lacks pages that it must have.
func (st *streamState) gaveUp() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	lacks := st.preload.left[must] > 0
	st.preload.left[must] = 0 // a job in flight makes it less, and is not the last
	return lacks
}

// bringFirst settles runs. It returns false if it could not: the process is gone or ctx has ended.
func (a *addressSpace) bringFirst(ctx context.Context, runs []Extent) bool {
	for len(runs) > 0 {
		n, ok := a.copyFirst(ctx, runs)
		if !ok {
			return false
		}
		if runs = runs[n:]; len(runs) == 0 {
			break
		}
		// Not at hand, not registered yet, or moved away: one run by itself, for as long as it takes.
		if !a.bringRun(ctx, runs[0]) {
			return false
		}
		runs = runs[1:]
	}
	return true
}

// bringRun settles a run, a piece at a time. It returns false if it could not.
func (a *addressSpace) bringRun(ctx context.Context, r Extent) bool {
	for r.Pages > 0 {
		// What comes from storage comes in one piece, however little is copied at a time, and is not taken for what a thread waits for. What is
		// wrong with it shows when it is copied.
		piece := min(r.Pages, preloadPages)
		if _, n := a.s.opts.Source.Ready(r.Image, int(piece)); uint64(n) < piece {
			if _, n, err := a.s.opts.Source.Load(r.Image, int(piece)); err == nil {
				piece = uint64(n)
			}
		}
		if !a.streamRun(ctx, classPreload, r.Addr, r.Image, piece) {
			return false
		}
		r.Addr, r.Image, r.Pages = r.Addr+piece*PageSize, r.Image+piece, r.Pages-piece
	}
	return true
}

// copyFirst copies the first of the runs as long as they are at hand and nothing is unusual about them. It returns how many of them are
// settled, and false if the session ends.
func (a *addressSpace) copyFirst(ctx context.Context, runs []Extent) (settled int, ok bool) {
	busy := a.s.server.calm(time.Now()) < busyFor
	limit := uint64(bulkPages)
	if busy {
		limit = busyPages
	}
	if !a.s.server.copying(ctx) {
		return 0, false
	}
	settled = a.copyRuns(runs, limit)
	a.s.server.copied()
	if busy {
		giveWay()
	}
	return settled, true
}

// copyRuns is copyFirst with the place in which to copy. It stops behind limit pages.
func (a *addressSpace) copyRuns(runs []Extent, limit uint64) (settled int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var bytes, pages uint64
	for settled < len(runs) && settled < maxRuns && pages < limit && !a.gone {
		r := runs[settled]
		data, n := a.s.opts.Source.Ready(r.Image, int(r.Pages))
		if uint64(n) < r.Pages {
			break
		}
		if data != nil {
			done, copied := a.copyHomeRLocked(r.Addr, data[:n*PageSize], classPreload)
			bytes += copied
			if done < r.Pages {
				break
			}
		}
		pages += r.Pages
		settled++
	}
	if bytes > 0 {
		a.s.countBytes(classPreload, bytes)
	}
	return settled
}

// A gate keeps processes from running until they have what they must have. The restorer itself touches their memory before it lets them
// run, the area of rseq(2) above all, and waits for the page as anybody would. Where it touches nothing, nothing is held.
type gate struct {
	pending atomic.Int64 // processes that have not what they must have
	late    atomic.Bool  // the time is over
	began   time.Time    // owned by the reader; when the first of faults was held; zero: none is
	timer   *time.Timer  // made by the reader
	faults  []fault      // owned by the reader; that are held
	held    atomic.Int64 // faults that were held so far
	took    atomic.Int64 // nanoseconds for which some were held, all together
}

// HoldProcesses has the processes be held, as for what they must have, until release is called or the time is over: for somebody who
// prepares more for them. release may be called more than once.
func (s *Session) HoldProcesses() (release func()) {
	s.gate.pending.Add(1)
	return sync.OnceFunc(s.needsNoHold)
}

// holding reports whether faults are to be held.
func (s *Session) holding() bool {
	return s.opts.Hold > 0 && s.gate.pending.Load() > 0 && !s.gate.late.Load() && !s.isRegistered()
}

// holdFault keeps a fault until releaseHeld. The reader calls it.
func (s *Session) holdFault(f fault) {
	g := &s.gate
	if g.began.IsZero() {
		g.began = f.since
		s.beginHold()
	}
	g.faults = append(g.faults, f)
	g.held.Add(1)
}

// beginHold begins the time for which processes are held, those that are there: one that connects later begins anew, unless that was over once.
func (s *Session) beginHold() {
	g := &s.gate
	on := newHoldOn(s.opts.Hold, s.opts.HoldRate, s.count.bytes[classPreload].Load())
	var timer *time.Timer
	timer = time.AfterFunc(math.MaxInt64, func() {
		switch {
		case !s.holding(): // they were let go just now
		case on.goesOn(s.count.bytes[classPreload].Load()):
			timer.Reset(s.opts.Hold)
		default:
			g.late.Store(true)
			s.poke()
		}
	})
	timer.Reset(s.opts.Hold) // not before it is known, for it is started again by itself
	g.timer = timer
}

// A holdOn decides whether processes are held on when the time for which they were held is over.
type holdOn struct {
	least uint64        // bytes that have to have come in that time; 0: they are not held on, whatever comes
	came  uint64        // bytes that had come when it began
	left  time.Duration // that they may be held on, all together
	step  time.Duration // that they are held on each time
}

func newHoldOn(hold time.Duration, rate float64, came uint64) holdOn {
	return holdOn{least: uint64(rate * hold.Seconds()), came: came, left: holdMost - hold, step: hold}
}

// goesOn decides, when so many bytes have come by now.
func (h *holdOn) goesOn(came uint64) bool {
	if h.least == 0 || came < h.came+h.least || h.left < h.step {
		return false
	}
	h.came, h.left = came, h.left-h.step
	return true
}

// releaseHeld returns the faults that are not to be held any longer. The reader calls it.
func (s *Session) releaseHeld() []fault {
	g := &s.gate
	if len(g.faults) == 0 || s.holding() {
		return nil
	}
	g.timer.Stop()
	g.took.Add(int64(time.Since(g.began)))
	released := g.faults
	g.faults, g.began = nil, time.Time{} // the next process that connects has its own time
	return released
}

// quietLocked is how long the processes are left alone when they have begun to run.
func (s *Session) quietLocked() time.Duration {
	switch {
	case s.opts.Quiet == 0 && s.preloads:
		return DefaultQuiet
	default:
		return max(s.opts.Quiet, 0)
	}
}

// streamsRestLocked reports whether the time has come for what is in no preload.
func (s *Session) streamsRestLocked() bool {
	return s.draining || s.quietOver || s.quietLocked() == 0
}

// beginQuietLocked has the stream begin when the quiet is over.
func (s *Session) beginQuietLocked() {
	d := s.quietLocked()
	if d == 0 {
		return
	}
	s.quiet = time.AfterFunc(d, s.endQuiet)
}

// endQuiet has the stream begin. As long as what is preloaded is not there it looks again, for the processes wait for that and have not done what they
// are left alone for; a page that cannot be had must not keep all others.
func (s *Session) endQuiet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.quietLocked(); s.bringsFirstLocked() && s.quietFor+d <= quietMost {
		s.quietFor += d
		s.quiet.Reset(d)
		return
	}
	s.quietOver = true
	s.work.Broadcast()
}

// bringsFirstLocked reports whether pages of a preload are on their way.
func (s *Session) bringsFirstLocked() bool {
	return slices.ContainsFunc(s.spaces, func(a *addressSpace) bool { return a.stream.bringsFirst() })
}
