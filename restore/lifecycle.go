package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"thaw/uffd"
)

// loaders is how many faults may wait for storage at the same time in one session. Eight reads in flight are about
// what a local disk needs to be busy with single pages.
const loaders = 8

// errSourceMemory is the failure of a page that was verified and could not be copied: its storage failed in between.
var errSourceMemory = errors.New("the page's memory could not be read")

// loggedFailures is how many failed pages of a session are logged as errors.
const loggedFailures = 10

// loadPages is how much is brought from storage for one fault: 256 KiB, which take a local disk little longer than 4 KiB.
const loadPages = 64

// holdRetry is how long a page that cannot be had is held before its source is asked again.
const holdRetry = time.Second

// A loadRequest is a fault whose page has to come from storage first.
type loadRequest struct {
	a     *addressSpace
	want  want
	since time.Time
}

// loader brings pages from storage and resolves the faults that wait for them.
func (s *Session) loader(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-s.loads:
			s.load(ctx, q)
			s.own.loading.Add(-1)
		}
	}
}

// load resolves one fault, however long that takes: the address is looked up anew after each wait, because the
// process may have moved or dropped the page meanwhile.
func (s *Session) load(ctx context.Context, q loadRequest) {
	for ctx.Err() == nil {
		o, _ := q.a.install(q.want)
		s.countFault(o)
		switch o {
		case installed, alreadyPresent, unmapped:
			s.countWait(time.Since(q.since))
			if o == installed {
				q.a.fillGaps(q.want.addr)
			}
			return
		case targetGone:
			q.a.lost()
			return
		case failed:
			s.failFault(fault{a: q.a, want: q.want, since: q.since})
			return
		case deferred:
			q.a.pause(ctx, changeWait)
		case loading:
			q.a.mu.RLock()
			pl := q.a.pages.lookup(q.want.addr)
			q.a.mu.RUnlock()
			if pl.zero {
				continue
			}
			if _, _, err := s.opts.Source.Load(pl.image, int(min(loadPages, pl.pages))); err != nil {
				s.failed(fault{a: q.a, want: q.want, since: q.since}, pl, err)
				return
			}
		}
	}
}

// hold gives a fault back to the reader, to be tried again later: a loader must not wait for one page for ever.
func (s *Session) hold(f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, f)
	s.poke()
}

// failFault is failPage for a fault whose page was at hand and could not be installed.
func (s *Session) failFault(f fault) {
	f.a.mu.RLock()
	pl := f.a.pages.lookup(f.want.addr)
	f.a.mu.RUnlock()
	s.failed(f, pl, errSourceMemory)
}

// failed ends a fault whose page cannot be had, or keeps it to be tried again. The thread looks again in any case: the process may have moved or dropped
// the page meanwhile, or somebody have brought it, and then nobody else would wake who waits at the address where it was.
func (s *Session) failed(f fault, pl place, cause error) {
	if f.a.failPage(pl.home, pl.image, cause) {
		f.a.wakePage(f.want.addr)
		return
	}
	f.tryAt = time.Now().Add(holdRetry)
	s.hold(f)
}

// failPage deals with a page whose content cannot be had. It reports whether the page is done with; false means that
// it is held, and to be tried again.
func (a *addressSpace) failPage(home, image uint64, cause error) bool {
	s := a.s
	err := fmt.Errorf("image page %d at %#x of process %d: %w", image, home, a.id, cause)
	n := s.noteFailed(failedPage{a.id, home}, err)
	level := slog.LevelError
	if n == 0 || n > loggedFailures { // known, or a whole pack may be gone; the total is in Stats
		level = slog.LevelDebug
	}
	s.opts.Logger.Log(context.Background(), level, "page cannot be had", "pid", a.hostPID, "image_pid", a.id, "page", image, "addr", home, "policy", s.opts.Failure.String(), "err", cause)

	switch s.opts.Failure {
	case FailureHold:
		return false
	case FailurePoison:
		switch a.poisonHome(home) {
		case installed:
			return true
		case deferred:
			return false // in the middle of an mremap or the like: again when it is over
		}
	}
	if !a.alive() {
		a.lost()
		return true // what runs now, if anything, is another program
	}
	if a.kill() {
		s.noteKilled()
		return true
	}
	return false // no way to stop the process: its threads wait, which is better than what is wrong
}

// poisonHome poisons the page of a home, wherever that is mapped now.
func (a *addressSpace) poisonHome(home uint64) outcome {
	a.mu.RLock()
	defer a.mu.RUnlock()
	addr, _, ok := a.pages.locate(home, PageSize)
	if a.gone || !ok {
		return installed
	}
	return a.poison(span{addr, addr + PageSize})
}

// A failedPage names a page of a process, for counting each once.
type failedPage struct {
	id   int
	home uint64
}

// noteFailed remembers a failure. It returns how many pages have failed so far if this one had not, else 0.
func (s *Session) noteFailed(p failedPage, err error) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures.last = err
	if s.failures.pages[p] {
		return 0
	}
	s.failures.pages[p] = true
	return s.count.pagesFailed.Add(1)
}

func (s *Session) noteKilled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures.killed++
}

// minZeroGap is the size from which a gap without content leaves the userfaultfd before the process runs. Each gap
// splits a mapping, and the kernel allows 65530 of them; a fault of a zero page costs 20 to 50 us, so 1 MiB saves up
// to 10 ms.
const minZeroGap = 1 << 20

// dropZeroRanges takes large ranges without content out of the userfaultfd: the kernel itself fills them with zeros.
// It does so only while the process cannot have run: a process that runs may have moved other memory there already.
func (a *addressSpace) dropZeroRanges() {
	ranges := a.pages.layout.zeroRanges(minZeroGap)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range ranges {
		if a.hostPID != 0 && !traced(a.hostPID) {
			a.s.opts.Logger.Debug("process runs already; its empty ranges stay registered", "pid", a.hostPID)
			return
		}
		// An error means that nothing is registered there any more; then it is the kernel's already.
		if err := a.fd.Unregister(uffd.Range{Start: r.start, End: r.end}); err == nil {
			a.s.count.unregistered.Add(r.len())
		}
		a.pages.remove(r)
	}
}

// traced reports whether somebody is attached to the process with ptrace. The restorer is, until it lets it run.
func traced(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, after, ok := bytes.Cut(status, []byte("\nTracerPid:\t"))
	return ok && !bytes.HasPrefix(after, []byte("0\n"))
}
