//go:build linux

package restore

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPreloadIsPlacedWhereTheLayoutHasItsPages(t *testing.T) {
	l := &Layout{
		Regions: []Region{{Start: base, End: base + 1000*pg}},
		// Image pages do not ascend with addresses.
		Extents: []Extent{{Addr: base, Pages: 10, Image: 100}, {Addr: base + 20*pg, Pages: 5, Image: 0}, {Addr: base + 30*pg, Pages: 10, Image: 110}},
	}
	for _, tc := range []struct {
		name  string
		runs  []Run
		want  []Extent
		pages uint64
	}{
		{"a part of an extent", []Run{{102, 3}}, []Extent{{base + 2*pg, 3, 102}}, 3},
		{"across two extents", []Run{{108, 4}}, []Extent{{base + 8*pg, 2, 108}, {base + 30*pg, 2, 110}}, 4},
		{"in the order asked for", []Run{{119, 1}, {4, 1}}, []Extent{{base + 39*pg, 1, 119}, {base + 24*pg, 1, 4}}, 2},
		{"partly in no extent", []Run{{3, 50}, {60, 10}}, []Extent{{base + 23*pg, 2, 3}}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := NewPreload(l, tc.runs, nil)
			if diff := cmp.Diff(tc.want, p.first[must]); diff != "" {
				t.Errorf("runs (-want +got):\n%s", diff)
			}
			members := uint64(0)
			for page := range uint64(200) {
				if p.has(page) {
					members++
				}
			}
			if got, none := p.Pages(); got != tc.pages || none != 0 || members != tc.pages {
				t.Errorf("%d pages and %d, %d of them members; want %d and none", got, none, members, tc.pages)
			}
		})
	}
}

// preloaded is a layout of a region of n pages with content, of which the must have and likely needed come first.
func preloaded(n uint64, mustHave, likelyNeeded []Run) *Layout {
	l := oneRegion(n, n)
	l.Preload = NewPreload(l, mustHave, likelyNeeded)
	return l
}

func TestProcessIsHeldUntilItHasWhatItMustHave(t *testing.T) {
	l := preloaded(1000, []Run{{100, 50}, {700, 1}, {10, 3}}, []Run{{900, 10}})
	src := newTestSource(1000)
	src.gate = make(chan struct{})
	src.cold = true
	src.loaded[500] = true
	f := begin(t, l, src, Options{Stream: StreamNone, Hold: time.Hour})
	read := f.target.Read(at(500, 1))
	await(t, "the fault is held", func() bool { return f.Stats().FaultsHeld == 1 })
	if read.Finished() {
		t.Error("the fault was answered although pages are missing that the process must have")
	}
	close(src.gate)
	if got := read.Must(); string(got) != string(src.page(500)) {
		t.Error("wrong content")
	}
	if st := f.Stats(); st.BytesBeforeRun < 54*pg || st.HeldInVain || st.Held == 0 {
		t.Errorf("before the process ran %d bytes came, want %d at least; held in vain: %v; for %v", st.BytesBeforeRun, 54*pg, st.HeldInVain, st.Held)
	}
	f.Registered()
	await(t, "the rest of the preload is there", func() bool { return f.Stats().BytesPreload == 64*pg })
	expect(t, f.target, at(0, 1000), original(l, src))
}

func TestTheTimeCountsForEachProcess(t *testing.T) {
	src := newTestSource(2000)
	src.gate = make(chan struct{})
	src.cold = true
	src.loaded[500], src.loaded[1500] = true, true
	f := begin(t, preloaded(1000, []Run{{100, 1}}, nil), src, Options{Stream: StreamNone, Hold: 300 * time.Millisecond})
	first := f.target.Read(at(500, 1))
	await(t, "the first process is held", func() bool { return f.Stats().FaultsHeld == 1 })
	stop := make(chan struct{})
	var giving sync.WaitGroup
	giving.Go(func() {
		for {
			select {
			case src.gate <- struct{}{}:
			case <-stop:
				return
			}
		}
	})
	first.Must()
	close(stop)
	giving.Wait()
	if st := f.Stats(); st.HeldInVain || st.BytesPreload != pg {
		t.Fatalf("the first process was let go without what it must have: %+v", st)
	}

	l := &Layout{Regions: []Region{{Start: base, End: base + 1000*pg}}, Extents: []Extent{{Addr: base, Pages: 1000, Image: 1000}}}
	l.Preload = NewPreload(l, []Run{{1100, 1}}, nil)
	second := f.another(t, l)
	// What this one must have never comes.
	if got := second.Read(at(500, 1)).Must(); string(got) != string(src.page(1500)) {
		t.Error("wrong content")
	}
}

func TestHoldingEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		hold time.Duration
		end  func(f *fixture)
		vain bool
	}{
		{"when the time is over", time.Nanosecond, func(*fixture) {}, true},
		{"when the process is said to run", time.Hour, func(f *fixture) { f.Registered() }, false},
		{"at once, if there is no time", -1, func(*fixture) {}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := preloaded(1000, []Run{{100, 50}}, nil)
			src := newTestSource(1000)
			src.gate = make(chan struct{})
			src.cold = true
			src.loaded[500] = true
			f := begin(t, l, src, Options{Stream: StreamNone, Hold: tc.hold})
			read := f.target.Read(at(500, 1))
			if tc.hold > 0 {
				await(t, "the fault is held", func() bool { return f.Stats().FaultsHeld == 1 })
			}
			tc.end(f)
			read.Must()
			if st := f.Stats(); st.HeldInVain != tc.vain || st.BytesPreload != 0 {
				t.Errorf("held in vain: %v, want %v; %d bytes came although their source gives none", st.HeldInVain, tc.vain, st.BytesPreload)
			}
		})
	}
}

func TestProcessesAreHeldOnAsLongAsPagesComeFastEnough(t *testing.T) {
	const mb = 1_000_000
	for _, tc := range []struct {
		name string
		hold time.Duration
		rate float64
		came []uint64 // each time that the time is over
		want []bool
	}{
		{"not at all without a rate", time.Second, 0, []uint64{900 * mb}, []bool{false}},
		{"until less comes in the last period", time.Second, 100 * mb, []uint64{110 * mb, 210 * mb, 309 * mb}, []bool{true, true, false}},
		{"the rate counts, however short the time", time.Second / 10, 100 * mb, []uint64{20 * mb, 30 * mb, 39 * mb}, []bool{true, true, false}},
		{"what came before the hold does not count", time.Second, 100 * mb, []uint64{10*mb + 99*mb}, []bool{false}},
		{"no longer than is right", holdMost / 3, 1, []uint64{20 * mb, 30 * mb, 40 * mb}, []bool{true, true, false}},
		{"a hold that is longer than that is its own bound", 2 * holdMost, 1, []uint64{20 * mb}, []bool{false}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHoldOn(tc.hold, tc.rate, 10*mb)
			for i, came := range tc.came {
				if got := h.goesOn(came); got != tc.want[i] {
					t.Errorf("with %d bytes after period %d: held on: %v, want %v", came, i+1, got, tc.want[i])
				}
			}
		})
	}
}

func TestAPreloadIsAskedForInPiecesThatNobodyTakesForFaults(t *testing.T) {
	src := newTestSource(3000)
	src.cold = true
	f := begin(t, preloaded(3000, []Run{{0, 3000}}, nil), src, Options{Stream: StreamNone, Quiet: time.Hour})
	await(t, "the preload is there", func() bool { return f.Stats().BytesPreload == 3000*pg })
	src.mu.Lock()
	defer src.mu.Unlock()
	for _, n := range src.asked {
		if n <= loadPages {
			t.Errorf("Load of %d pages, as for a fault; all: %v", n, src.asked)
			break
		}
	}
}

func TestTheRestWaitsForWhatIsPreloaded(t *testing.T) {
	l := preloaded(2000, []Run{{0, 100}}, []Run{{1000, 100}})
	src := newTestSource(2000)
	src.gate = make(chan struct{})
	src.cold = true
	f := begin(t, l, src, Options{Quiet: quietMost})
	f.Registered()
	await(t, "somebody waits for what is preloaded", func() bool { return src.loads.Load() > 0 })
	f.endQuiet()
	f.mu.Lock()
	over := f.quietOver
	f.mu.Unlock()
	if over {
		t.Error("the stream begins before what is preloaded is there")
	}
	close(src.gate)
	await(t, "the preload is there", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !f.bringsFirstLocked()
	})
	f.endQuiet()
	expect(t, f.target, at(0, 2000), original(l, src))
	if err := f.wait(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestOthersMayHaveProcessesHeldToo(t *testing.T) {
	l := oneRegion(100, 100)
	src := newTestSource(100)
	f := begin(t, l, src, Options{Stream: StreamNone, Hold: time.Hour})
	release := f.HoldProcesses()
	read := f.target.Read(at(5, 1))
	await(t, "the fault is held", func() bool { return f.Stats().FaultsHeld == 1 })
	if read.Finished() {
		t.Error("the fault was answered all the same")
	}
	release()
	release()
	read.Must()
	if f.holding() {
		t.Error("faults are still held")
	}
}

func TestHeldProcessThatDiesEndsTheSession(t *testing.T) {
	src := newTestSource(1000)
	src.gate = make(chan struct{})
	src.cold = true
	f := begin(t, preloaded(1000, []Run{{100, 50}}, nil), src, Options{Stream: StreamNone, Hold: time.Hour})
	f.target.Read(at(500, 1))
	await(t, "the fault is held", func() bool { return f.Stats().FaultsHeld == 1 })
	f.target.Kill()
	f.Registered()
	await(t, "the process has left", func() bool { return f.Stats().Live == 0 })
	if f.holding() {
		t.Error("faults of others would still be held for it")
	}
	close(src.gate) // a worker waits for a page of it
	if err := f.wait(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestTheRestWaitsForTheQuietToEnd(t *testing.T) {
	l := preloaded(2000, []Run{{0, 100}}, []Run{{1000, 100}})
	src := newTestSource(2000)
	f := begin(t, l, src, Options{Quiet: time.Hour})
	f.Registered()
	await(t, "the preload is there", func() bool { return f.Stats().BytesPreload == 200*pg })
	expect(t, f.target, at(1500, 1), original(l, src))
	if st := f.Stats(); st.BytesStream != 0 || st.DemandMissed != 1 || st.DemandLate != 0 {
		t.Errorf("streamed %d bytes, %d faults missed and %d late; want none but the one that was missed", st.BytesStream, st.DemandMissed, st.DemandLate)
	}
	f.Drain()
	if err := f.wait(); err != nil {
		t.Fatalf("Run() = %v", err)
	}
	expect(t, f.target, at(0, 2000), original(l, src))
}

func TestTheQuietEndsByItself(t *testing.T) {
	l := preloaded(2000, []Run{{0, 100}}, nil)
	src := newTestSource(2000)
	f := begin(t, l, src, Options{Quiet: time.Millisecond})
	f.Registered()
	if err := f.wait(); err != nil { // all of it has come
		t.Fatalf("Run() = %v", err)
	}
	expect(t, f.target, at(0, 2000), original(l, src))
}

func TestEachPageFaultsByItselfWhereThatIsAskedFor(t *testing.T) {
	l := oneRegion(100, 60)
	src := newTestSource(60)
	var mu sync.Mutex
	demanded := make(map[uint64]int)
	f := begin(t, l, src, Options{Stream: StreamNone, SinglePages: true, Demanded: func(image uint64, write bool) {
		mu.Lock()
		defer mu.Unlock()
		if !write {
			demanded[image]++
		}
	}})
	f.Registered()
	expect(t, f.target, at(0, 100), original(l, src))
	mu.Lock()
	defer mu.Unlock()
	for image := range uint64(60) {
		if demanded[image] == 0 {
			t.Errorf("nobody was told of page %d", image)
		}
	}
	if st := f.Stats(); st.DemandMissed != 60 || st.Waited <= 0 {
		t.Errorf("%d faults for 60 pages with content, waited %v", st.DemandMissed, st.Waited)
	}
}

func TestFaultOfAPreloadedPageThatIsNotThereYetIsLate(t *testing.T) {
	l := preloaded(100, nil, []Run{{10, 1}})
	src := newTestSource(100)
	src.gate = make(chan struct{})
	src.cold = true
	f := begin(t, l, src, Options{Stream: StreamNone, SinglePages: true})
	f.Registered()
	read := f.target.Read(at(10, 1))
	close(src.gate)
	read.Must()
	if st := f.Stats(); st.DemandMissed != 0 || st.DemandLate+st.BytesPreload/pg != 1 {
		t.Errorf("missed %d, late %d, preloaded %d bytes; want the page to be one of the latter", st.DemandMissed, st.DemandLate, st.BytesPreload)
	}
}

// await gives the CPU away until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestGapsThatAPreloadLeavesAreFilledAroundAFault(t *testing.T) {
	var even []Run
	for p := uint64(64); p < 96; p += 2 {
		even = append(even, Run{p, 1})
	}
	l := &Layout{
		Regions: []Region{{Start: base, End: base + 200*pg}},
		Extents: []Extent{{Addr: base, Pages: 90, Image: 10}, {Addr: base + 100*pg, Pages: 90, Image: 100}},
	}
	l.Preload = NewPreload(l, even, nil)
	src := newTestSource(200)
	f := begin(t, l, src, Options{Stream: StreamNone})
	f.Registered()
	await(t, "the preload is there", func() bool { return f.Stats().BytesPreload == 16*pg })
	f.target.Read(at(75-10, 1)).Must() // image page 75
	// The reader fills the gaps behind the thread's back, before it reads another fault.
	expect(t, f.target, at(64-10, 32), original(l, src))
	if got := f.Stats().DemandMissed; got != 1 {
		t.Errorf("%d faults in a window of which half had been brought, want one", got)
	}
	expect(t, f.target, at(0, 200), original(l, src))
}
