package restore

import (
	"context"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"thaw/uffd"
)

const (
	// bulkPages is how much one copying call of the stream takes while nobody waits: 512 KiB is where a single call
	// reaches its full speed (2.8 GB/s a thread, kernel 6.18).
	bulkPages = 128
	// busyPages is the same while faults are coming in: the reader waits for a call in flight before it reads.
	busyPages = 16
	// eagerPages is how much the reader copies for the stream between two looks at the messages while faults are
	// coming in: 16 KiB, 6 us.
	eagerPages = 4
	// maxRuns is how many runs of pages are copied under one lock: 32 of a page each take 50 us.
	maxRuns = 32
	// busyFor is how long after a fault more faults are expected.
	busyFor = 2 * time.Millisecond
	// awakeFor is how long after a fault the reader stays awake, and streams meanwhile. Beyond it copying is left to the
	// workers: three threads that copy on two cores are slower than two.
	awakeFor = 20 * time.Millisecond
	// aheadChunks is how far ahead of the stream storage is asked for pages: 16 MiB keep a local disk busy, and are
	// not so much that a fault's own read would wait long behind them.
	aheadChunks = 8
	// nearChunks is how far behind a fault the stream goes on: 8 MiB.
	nearChunks = 4
	// changeWait is how long to leave an address space alone that is changing, or is not registered yet.
	changeWait = 200 * time.Microsecond
)

// streamState is the stream's progress through one address space. Work is handed out in chunks of home addresses, so
// a page that the process moves stays in its chunk.
type streamState struct {
	layout *Layout
	chunks []chunk
	total  uint64 // pages of content

	// hint is the chunk in which the last fault was: the stream goes on from there, because what a process touches
	// next is often near. -1: none since the last look.
	hint atomic.Int64

	mu      sync.Mutex
	taken   []bool       // protected by mu; by chunk
	next    int          // protected by mu; all chunks before it are taken
	left    int          // protected by mu; chunks that are not finished
	preload preloadState // protected by mu
}

func newStreamState(l *Layout) *streamState {
	st := &streamState{layout: l, chunks: l.chunks(), total: l.Pages()}
	st.taken = make([]bool, len(st.chunks))
	st.left = len(st.chunks)
	st.preload = newPreloadState(l.Preload)
	st.hint.Store(-1)
	return st
}

// near makes the stream go on behind home.
func (st *streamState) near(home uint64) {
	i := st.layout.extentAt(home)
	if i == len(st.layout.Extents) {
		return
	}
	var off uint64
	if e := &st.layout.Extents[i]; home > e.Addr {
		off = (home - e.Addr) / PageSize
	}
	n := sort.Search(len(st.chunks), func(k int) bool {
		c := &st.chunks[k]
		return c.ext > i || c.ext == i && c.off > off
	})
	st.hint.Store(int64(max(0, n-1)))
}

// take returns a chunk that nobody has taken yet.
func (st *streamState) take() (int, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if h := int(st.hint.Swap(-1)); h >= 0 {
		// Where all of that is taken, what is farther away is no better than what is next in order.
		for end := min(h+nearChunks, len(st.taken)); h < end; h++ {
			if !st.taken[h] {
				st.taken[h] = true
				return h, true
			}
		}
	}
	for st.next < len(st.taken) && st.taken[st.next] {
		st.next++
	}
	if st.next == len(st.taken) {
		return 0, false
	}
	st.taken[st.next] = true
	return st.next, true
}

// finish says that a chunk is settled.
func (st *streamState) finish() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.left--
}

// settled reports whether all content is.
func (st *streamState) settled() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.left == 0
}

// streams reports whether the address space's content is to be brought without being asked for. A forked child's
// is not: most children exec or end, and filling them would multiply memory.
func (a *addressSpace) streamsLocked() bool {
	return a.s.draining || a.s.opts.Stream == StreamAll && !a.child
}

// work is what a stream worker does at a time. do may leave it undone if the process is gone, or when ctx ends.
type work interface{ do(ctx context.Context) }

// A job is a chunk that somebody is at work on.
type job struct {
	a    *addressSpace
	i    int   // of the chunk
	rest chunk // what is left of it
}

// next returns the first pages that are left, at most limit, as a run of consecutive homes and image pages.
func (j *job) next(limit uint64) (home, image, pages uint64) {
	e := &j.a.stream.layout.Extents[j.rest.ext]
	return e.Addr + j.rest.off*PageSize, e.Image + j.rest.off, min(limit, j.rest.pages, e.Pages-j.rest.off)
}

// settle says that the first n of the pages that next returned are settled. It reports whether the chunk is.
func (j *job) settle(n uint64) bool {
	j.rest.off += n
	j.rest.pages -= n
	if j.rest.off == j.a.stream.layout.Extents[j.rest.ext].Pages {
		j.rest.ext, j.rest.off = j.rest.ext+1, 0
	}
	return j.rest.pages == 0
}

// finishJob says that a chunk is settled.
func (s *Session) finishJob(j *job) {
	j.a.stream.finish()
	s.count.pagesSettled.Add(j.a.stream.chunks[j.i].pages)
	if j.a.stream.settled() {
		s.poke()
	}
}

// streamWorker brings chunk after chunk until the session ends.
func (s *Session) streamWorker(ctx context.Context) {
	asStreamWorker()
	for {
		w := s.takeWork()
		if w == nil {
			return
		}
		w.do(ctx)
	}
}

// takeWork waits for work. It returns nil when the session ends.
func (s *Session) takeWork() work {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.stopping {
		if b := s.newBatchLocked(); b != nil {
			return b
		}
		if n := len(s.returned); n > 0 {
			j := s.returned[n-1]
			s.returned = s.returned[:n-1]
			return &j
		}
		if j, ok := s.newJobLocked(); ok {
			return &j
		}
		s.work.Wait()
	}
	return nil
}

// do settles the chunk.
func (j *job) do(ctx context.Context) {
	if j.a.streamJob(ctx, j) {
		j.a.s.finishJob(j)
	}
}

// newJobLocked returns a chunk that nobody has taken, if it is time for that.
func (s *Session) newJobLocked() (job, bool) {
	if !s.streamsRestLocked() {
		return job{}, false
	}
	for _, a := range s.spaces {
		if !a.streamsLocked() {
			continue
		}
		if i, ok := a.stream.take(); ok {
			return job{a: a, i: i, rest: a.stream.chunks[i]}, true
		}
	}
	return job{}, false
}

// returnJob gives a job to whichever worker is free.
func (s *Session) returnJob(j job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.returned = append(s.returned, j)
	s.work.Signal()
}

// streamJob settles what is left of a chunk. It returns false if it could not: the process is gone or ctx has ended.
func (a *addressSpace) streamJob(ctx context.Context, j *job) bool {
	st := a.stream
	if ahead := j.i + aheadChunks; ahead < len(st.chunks) {
		c := &st.chunks[ahead]
		a.s.opts.Source.Prefetch(st.layout.Extents[c.ext].Image+c.off, c.pages)
	}
	for done := false; !done; {
		if n, ok := a.copyAtHand(ctx, j); !ok {
			return false
		} else if n > 0 {
			done = j.rest.pages == 0
			continue
		}
		home, image, pages := j.next(chunkPages)
		// What comes from storage comes in one piece, however little is copied at a time. What is wrong with it shows when
		// it is copied.
		if _, n := a.s.opts.Source.Ready(image, int(pages)); n < int(pages) {
			a.s.opts.Source.Load(image, int(pages))
		}
		if !a.streamRun(ctx, classStream, home, image, pages) {
			return false
		}
		done = j.settle(pages)
	}
	return true
}

// copyAtHand settles what is left of a chunk and can be copied without waiting, in one call's worth. It returns how many pages that
// was, and false if the session ends.
func (a *addressSpace) copyAtHand(ctx context.Context, j *job) (settled uint64, ok bool) {
	if a.s.limiter != nil || !a.s.isRegistered() {
		return 0, true
	}
	limit := uint64(bulkPages)
	busy := a.s.server.calm(time.Now()) < busyFor
	if busy {
		limit = busyPages
	}
	if !a.s.server.copying(ctx) {
		return 0, false
	}
	settled = j.copyReady(limit)
	a.s.server.copied()
	if busy {
		giveWay()
	}
	return settled, true
}

// streamRun settles pages at consecutive homes and image pages.
func (a *addressSpace) streamRun(ctx context.Context, c class, home, image, pages uint64) bool {
	limit := bulkPages
	for pages > 0 {
		busy := a.s.server.calm(time.Now()) < busyFor
		if busy || !a.s.isRegistered() && a.s.gate.held.Load() == 0 { // a fault waits, or the restorer is still changing the address space
			limit = min(limit, busyPages)
		}
		n, ok := a.streamStep(ctx, c, home, image, min(pages, uint64(limit)))
		if busy {
			giveWay()
		}
		switch {
		case !ok:
			return false
		case n == 0: // the mapping ends within the range that was tried, or is changing
			limit = max(1, limit/4)
			continue
		}
		home, image, pages = home+n*PageSize, image+n, pages-n
		limit = min(bulkPages, limit*2)
	}
	return true
}

// streamStep settles the first of the pages, and returns how many; 0 means again, with less.
func (a *addressSpace) streamStep(ctx context.Context, c class, home, image, pages uint64) (settled uint64, ok bool) {
	data, n, err := a.s.opts.Source.Load(image, int(pages))
	if err != nil {
		return a.streamFailed(ctx, home, image, err)
	}
	if data == nil {
		return uint64(n), true // zero: the kernel's own, once this is over
	}
	if c == classStream && !a.s.waitRate(ctx, n*PageSize) {
		return 0, false
	}
	if !a.s.server.copying(ctx) {
		return 0, false
	}
	res, skipped := a.copyHome(home, data[:n*PageSize], c)
	a.s.server.copied()
	if skipped > 0 {
		return skipped, true
	}
	done := res.Bytes / PageSize
	if res.Bytes > 0 {
		a.s.countBytes(c, res.Bytes)
	}
	switch res.Outcome {
	case uffd.Done:
		return done, true
	case uffd.Exists:
		return done + 1, true
	case uffd.Again, uffd.NoMemory:
		if done == 0 {
			return 0, a.pause(ctx, changeWait)
		}
		return done, true
	case uffd.NotRegistered:
		switch {
		case done > 0:
			return done, true
		case !a.s.isRegistered():
			return 0, a.pause(ctx, changeWait)
		case n > 1:
			return 0, true
		}
		return 1, true // a page that is not ours any more
	case uffd.Gone:
		a.lost()
		return 0, false
	}
	// The source's memory could not be read, or the kernel does not understand us.
	return a.streamFailed(ctx, home, image, res.Err())
}

// streamFailed deals with a page that the stream could not bring.
func (a *addressSpace) streamFailed(ctx context.Context, home, image uint64, err error) (settled uint64, ok bool) {
	if !a.s.isRegistered() {
		// Nothing can be poisoned yet, and a page that counted as settled now would be zero later.
		return 0, a.pause(ctx, changeWait)
	}
	if !a.failPage(home, image, err) {
		return 0, a.pause(ctx, holdRetry)
	}
	return 1, true
}

// waitRate waits until the stream may bring n more bytes. It reports whether the session still goes on. A drain ends the
// waiting, however long it was to be.
func (s *Session) waitRate(ctx context.Context, n int) bool {
	if s.limiter == nil {
		return true
	}
	t := time.NewTimer(s.limiter.ReserveN(time.Now(), n).Delay())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-s.drainCh:
	}
	return true
}

// copyReady settles the first pages that are left, at most limit, as long as their content is at hand and nothing is unusual
// about them, and returns how many. Short runs share one taking of the lock, and one counting.
func (j *job) copyReady(limit uint64) (settled uint64) {
	a := j.a
	a.mu.RLock()
	defer a.mu.RUnlock()
	var bytes uint64
	for runs := 0; runs < maxRuns && settled < limit && j.rest.pages > 0 && !a.gone; runs++ {
		home, image, pages := j.next(limit - settled)
		data, n := a.s.opts.Source.Ready(image, int(pages))
		done := uint64(n)
		if data != nil {
			var copied uint64
			done, copied = a.copyHomeRLocked(home, data[:n*PageSize], classStream)
			bytes += copied
		}
		if done == 0 {
			break
		}
		j.settle(done)
		settled += done
	}
	if bytes > 0 {
		a.s.countBytes(classStream, bytes)
	}
	return settled
}

// copyHomeRLocked copies the first of data's pages to wherever their home is mapped now. It returns how many pages are settled by
// that, and how many bytes were copied. Preconditions: a.mu is held, shared at least.
func (a *addressSpace) copyHomeRLocked(home uint64, data []byte, c class) (settled, copied uint64) {
	addr, n, ok := a.pages.locate(home, uint64(len(data)))
	if !ok {
		return n / PageSize, 0
	}
	res := a.copyRLocked(addr, data[:n], c)
	settled = res.Bytes / PageSize
	if res.Outcome == uffd.Exists {
		settled++
	}
	return settled, res.Bytes
}

// copyHome copies data to wherever its home is mapped now. skipped is the number of pages for which it is nowhere.
func (a *addressSpace) copyHome(home uint64, data []byte, c class) (res uffd.Result, skipped uint64) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.gone {
		return uffd.Result{Outcome: uffd.Gone}, 0
	}
	addr, n, ok := a.pages.locate(home, uint64(len(data)))
	if !ok {
		return uffd.Result{}, n / PageSize
	}
	return a.copyRLocked(addr, data[:n], c), 0
}

// pause waits, and reports whether the session still goes on.
func (a *addressSpace) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
