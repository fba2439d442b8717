//go:build linux

package restore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const base = 0x10_0000_0000

// at returns the range of n pages, skip pages behind base.
func at(skip, n uint64) uffd.Range {
	return uffd.Range{Start: base + skip*pg, End: base + (skip+n)*pg}
}

// testSource is an image in memory. Every page with content differs from every other. Pages are at hand only once
// they have been loaded, if cold.
type testSource struct {
	cold  bool
	zero  func(page uint64) bool // pages without content; nil: none
	gate  chan struct{}          // if not nil, Load waits for a value, or for its closing
	bytes []byte

	mu     sync.Mutex
	loaded []bool
	bad    map[uint64]error // pages that cannot be had
	asked  []int            // limits of Loads of pages that were not at hand
	loads  atomic.Int64
}

var _ PageSource = (*testSource)(nil)

func newTestSource(pages uint64) *testSource {
	s := &testSource{bytes: make([]byte, pages*pg), loaded: make([]bool, pages), bad: map[uint64]error{}}
	for p := range pages {
		fillPage(s.bytes[p*pg:(p+1)*pg], p+1)
	}
	return s
}

func fillPage(b []byte, tag uint64) {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], tag*0x9e3779b97f4a7c15+uint64(i))
	}
}

func (s *testSource) page(p uint64) []byte {
	if s.zero != nil && s.zero(p) {
		return make([]byte, pg)
	}
	return s.bytes[p*pg : (p+1)*pg]
}

func (s *testSource) run(page uint64, limit int, ok func(uint64) bool) ([]byte, int) {
	zero := s.zero != nil && s.zero(page)
	n := 0
	for n < limit && page+uint64(n) < uint64(len(s.loaded)) && ok(page+uint64(n)) && (s.zero != nil && s.zero(page+uint64(n))) == zero {
		n++
	}
	if zero || n == 0 {
		return nil, n
	}
	return s.bytes[page*pg : (page+uint64(n))*pg], n
}

func (s *testSource) Ready(page uint64, limit int) ([]byte, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run(page, limit, func(p uint64) bool { return s.bad[p] == nil && (!s.cold || s.loaded[p]) })
}

func (s *testSource) Load(page uint64, limit int) ([]byte, int, error) {
	s.loads.Add(1)
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.bad[page]; err != nil {
		return nil, 0, err
	}
	if !s.loaded[page] {
		s.asked = append(s.asked, limit)
	}
	data, n := s.run(page, limit, func(p uint64) bool { return s.bad[p] == nil })
	for i := range n {
		s.loaded[page+uint64(i)] = true
	}
	return data, n, nil
}

func (s *testSource) Prefetch(page, pages uint64) {}

// fixture is a session with one process, whose regions are mapped and registered.
type fixture struct {
	*Session
	target *uffdtest.Target
	source *testSource
	cancel context.CancelFunc
	result chan error
}

// begin maps the layout in a new process, and serves it. The process does not count as running before Registered.
func begin(t *testing.T, l *Layout, src *testSource, o Options) *fixture {
	t.Helper()
	target := uffdtest.Start(t)
	for _, r := range l.Regions {
		target.Map(uffd.Range{Start: r.Start, End: r.End}).Must()
	}
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	for _, r := range l.Regions {
		target.Register(uffd.Range{Start: r.Start, End: r.End}, uffd.ModeMissing).Must()
	}
	target.Drop().Must()
	o.Source = src
	s, err := NewSession(&o)
	if err != nil {
		fd.Close()
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := &fixture{Session: s, target: target, source: src, cancel: cancel, result: make(chan error, 1)}
	go func() { f.result <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if src.gate != nil {
			select {
			case <-src.gate:
			default:
				close(src.gate)
			}
		}
		f.wait()
	})
	if err := s.Add(Process{ID: 1, FD: fd, PIDFD: target.PIDFD(), Layout: l}); err != nil {
		t.Fatal(err)
	}
	return f
}

// another adds a second process, of one region.
func (f *fixture) another(t *testing.T, l *Layout) *uffdtest.Target {
	t.Helper()
	r := uffd.Range{Start: l.Regions[0].Start, End: l.Regions[0].End}
	target := uffdtest.Start(t)
	target.Map(r).Must()
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	target.Register(r, uffd.ModeMissing).Must()
	target.Drop().Must()
	if err := f.Add(Process{ID: 2, FD: fd, PIDFD: target.PIDFD(), Layout: l}); err != nil {
		t.Fatal(err)
	}
	return target
}

// wait returns what Run returned.
func (f *fixture) wait() error {
	err := <-f.result
	f.result <- err
	return err
}

// expect compares a range of the target with a model of it, page by page.
func expect(t *testing.T, target *uffdtest.Target, r uffd.Range, want func(addr uint64) []byte) {
	t.Helper()
	sums := target.Sums(r).Must()
	for i, got := range sums {
		addr := r.Start + uint64(i)*pg
		if w := uffdtest.Sum(want(addr)); got != w {
			t.Fatalf("process %d: page %#x (%d pages behind base) reads %#x, want %#x", target.PID(), addr, (addr-base)/pg, got, w)
		}
	}
}

// original is the model of a process that has changed nothing.
func original(l *Layout, src *testSource) func(addr uint64) []byte {
	m := newAddressMap(l)
	return func(addr uint64) []byte {
		if p := m.lookup(addr); !p.zero {
			return src.page(p.image)
		}
		return make([]byte, pg)
	}
}

// oneRegion is a layout of one region of n pages, of which content has content from the start.
func oneRegion(n, content uint64) *Layout {
	return &Layout{Regions: []Region{{Start: base, End: base + n*pg}}, Extents: []Extent{{Addr: base, Pages: content}}}
}

func TestProcessReadsItsImage(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    Options
		cold bool
	}{
		{"on demand only", Options{Stream: StreamNone}, false},
		{"on demand only, from storage", Options{Stream: StreamNone}, true},
		{"with the stream", Options{}, false},
		{"with the stream, from storage", Options{}, true},
		{"with a bounded stream of one worker", Options{Rate: 64 << 20, Workers: 1}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := &Layout{
				Regions: []Region{{Start: base, End: base + 2000*pg}, {Start: base + 4000*pg, End: base + 4010*pg}},
				Extents: []Extent{{Addr: base + 3*pg, Pages: 700, Image: 10}, {Addr: base + 800*pg, Pages: 1, Image: 5}, {Addr: base + 900*pg, Pages: 600, Image: 800}, {Addr: base + 4009*pg, Pages: 1}},
			}
			src := newTestSource(1500)
			src.cold = tc.cold
			src.zero = func(p uint64) bool { return p%37 == 0 }
			f := begin(t, l, src, tc.o)
			f.Registered()
			want := original(l, src)
			expect(t, f.target, uffd.Range{Start: base, End: base + 2000*pg}, want)
			expect(t, f.target, uffd.Range{Start: base + 4000*pg, End: base + 4010*pg}, want)
			if tc.o.Stream == StreamNone {
				f.target.Exit(0).Must()
			}
			if err := f.wait(); err != nil {
				t.Errorf("Run() = %v", err)
			}
			st := f.Stats()
			if st.Live != 0 || st.State != "ended" || st.PagesFailed != 0 {
				t.Errorf("stats = %+v", st)
			}
			// The process goes on by itself, with what it has, and without anybody to serve it.
			if tc.o.Stream == StreamAll {
				expect(t, f.target, uffd.Range{Start: base, End: base + 2000*pg}, want)
			}
		})
	}
}

func TestManyThreadsFaultAtOnce(t *testing.T) {
	l := oneRegion(4000, 3000)
	src := newTestSource(3000)
	src.cold = true
	f := begin(t, l, src, Options{})
	f.Registered()
	want := original(l, src)
	for _, c := range f.target.Touch(at(0, 4000), 16, 7) {
		for _, a := range c.Must() {
			if w := binary.LittleEndian.Uint64(want(base + a.Page*pg)); a.Word != w {
				t.Fatalf("page %d begins with %#x, want %#x", a.Page, a.Word, w)
			}
		}
	}
	expect(t, f.target, at(0, 4000), want)
}

func TestFaultsAreServedBeforeRegistered(t *testing.T) {
	l := oneRegion(100, 100)
	src := newTestSource(100)
	f := begin(t, l, src, Options{Stream: StreamNone})
	expect(t, f.target, at(40, 3), original(l, src))
	if st := f.Stats(); st.State != "registering" {
		t.Errorf("state = %q, want registering", st.State)
	}
}

func TestSessionWaitsForRegistration(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(at(0, 300)).Must()
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	src := newTestSource(300)
	s, err := NewSession(&Options{Source: src})
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- s.Run(t.Context()) }()
	l := oneRegion(300, 300)
	if err := s.Add(Process{FD: fd, PIDFD: target.PIDFD(), Layout: l}); err != nil {
		t.Fatal(err)
	}
	// The stream meets memory that is not registered yet, as it does in every restore.
	target.Register(at(0, 300), uffd.ModeMissing).Must()
	target.Drop().Must()
	s.Registered()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	expect(t, target, at(0, 300), original(l, src))
	if got := s.Stats().BytesStream; got != 300*pg {
		t.Errorf("streamed %d bytes, want all %d", got, 300*pg)
	}
}

func TestLargeEmptyRangesLeaveTheUserfaultfd(t *testing.T) {
	l := &Layout{
		Regions: []Region{{Start: base, End: base + 1000*pg, Splittable: true}, {Start: base + 2000*pg, End: base + 3000*pg}},
		Extents: []Extent{{Addr: base, Pages: 10}},
	}
	src := newTestSource(10)
	f := begin(t, l, src, Options{Stream: StreamNone})
	f.Registered()
	expect(t, f.target, at(5, 995), original(l, src))
	expect(t, f.target, at(2000, 1000), original(l, src))
	st := f.Stats()
	if want := uint64(990+1000) * pg; st.BytesUnregistered != want {
		t.Errorf("unregistered %d bytes, want %d", st.BytesUnregistered, want)
	}
	if st.BytesZero != 0 {
		t.Errorf("%d bytes of zeros were installed by us", st.BytesZero)
	}
}

func TestAscendingZeroFaultsGrowTheWindow(t *testing.T) {
	l := oneRegion(1000, 1)
	f := begin(t, l, newTestSource(1), Options{Stream: StreamNone})
	f.Registered()
	for i := range uint64(999) {
		f.target.Write(base+(i+1)*pg, []byte{1}).Must()
	}
	if n := f.Stats().Faults["installed"]; n > 50 {
		t.Errorf("%d faults for 999 pages written in order", n)
	}
}

func TestDeadProcessEndsTheSession(t *testing.T) {
	for _, how := range []string{"exit", "kill", "exec"} {
		t.Run(how, func(t *testing.T) {
			src := newTestSource(1000)
			f := begin(t, oneRegion(1000, 1000), src, Options{Stream: StreamNone})
			f.Registered()
			f.target.Read(at(0, 1)).Must()
			switch how {
			case "exit":
				f.target.Exit(0)
			case "kill":
				f.target.Kill()
			case "exec":
				f.target.Exec().Must()
				f.Drain() // nothing tells of exec but the next attempt to install
			}
			if err := f.wait(); err != nil {
				t.Errorf("Run() = %v", err)
			}
		})
	}
}

func TestTargetThatDiesMidCopy(t *testing.T) {
	src := newTestSource(20000)
	f := begin(t, oneRegion(20000, 20000), src, Options{Rate: 8 << 20})
	f.Registered()
	f.target.Read(at(15000, 1)).Must()
	f.target.Kill()
	if err := f.wait(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

var errBad = errors.New("pack 12ab: page 7: checksum is wrong")

func TestPageThatCannotBeHad(t *testing.T) {
	t.Run("poisoned, it kills only who touches it", func(t *testing.T) {
		src := newTestSource(100)
		src.bad[50] = errBad
		f := begin(t, oneRegion(100, 100), src, Options{})
		f.Registered()
		if err := f.wait(); err != nil {
			t.Fatalf("Run() = %v", err)
		}
		expect(t, f.target, at(0, 50), original(oneRegion(100, 100), src))
		expect(t, f.target, at(51, 49), original(oneRegion(100, 100), src))
		var sig *uffdtest.SignalError
		if err := f.target.Read(at(50, 1)).Err(); !errors.As(err, &sig) || sig.Signal != unix.SIGBUS {
			t.Errorf("read of the bad page: %v, want SIGBUS", err)
		}
		st := f.Stats()
		if st.PagesFailed == 0 || st.LastError == "" {
			t.Errorf("stats = %+v, want the failure recorded", st)
		}
	})
	t.Run("poisoned on demand", func(t *testing.T) {
		src := newTestSource(100)
		src.bad[50] = errBad
		f := begin(t, oneRegion(100, 100), src, Options{Stream: StreamNone})
		f.Registered()
		var sig *uffdtest.SignalError
		if err := f.target.Read(at(50, 1)).Err(); !errors.As(err, &sig) || sig.Signal != unix.SIGBUS {
			t.Errorf("read of the bad page: %v, want SIGBUS", err)
		}
		expect(t, f.target, at(40, 10), original(oneRegion(100, 100), src))
	})
	t.Run("held, it comes when its source is back", func(t *testing.T) {
		src := newTestSource(100)
		src.bad[50] = errBad
		f := begin(t, oneRegion(100, 100), src, Options{Failure: FailureHold})
		f.Registered()
		read := f.target.Read(at(50, 1))
		expect(t, f.target, at(0, 50), original(oneRegion(100, 100), src)) // the others go on
		if read.Finished() {
			t.Fatal("the page was answered while it could not be had")
		}
		src.mu.Lock()
		delete(src.bad, 50)
		src.mu.Unlock()
		if got := read.Must(); string(got) != string(src.page(50)) {
			t.Error("wrong content after the source came back")
		}
	})
	t.Run("with the kill policy the process ends", func(t *testing.T) {
		src := newTestSource(100)
		src.bad[50] = errBad
		f := begin(t, oneRegion(100, 100), src, Options{Failure: FailureKill, Stream: StreamNone})
		f.Registered()
		if err := f.target.Read(at(50, 1)).Err(); !errors.Is(err, uffdtest.ErrTargetGone) {
			t.Errorf("read of the bad page: %v, want a dead process", err)
		}
		if err := f.wait(); !errors.Is(err, ErrKilled) {
			t.Errorf("Run() = %v, want ErrKilled", err)
		}
	})
}

func TestWhoWaitsForAPageThatFailsLooksAgain(t *testing.T) {
	for name, change := range map[string]func(*uffdtest.Target) error{
		"it was dropped meanwhile": func(p *uffdtest.Target) error { return p.Madvise(at(50, 1), unix.MADV_DONTNEED).Err() },
		"it was moved away, and other memory mapped there": func(p *uffdtest.Target) error {
			err := p.Mremap(at(50, 1), pg, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, at(200, 0).Start).Err()
			return errors.Join(err, p.Map(at(50, 1)).Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := newTestSource(100)
			src.cold, src.gate, src.bad[50] = true, make(chan struct{}), errBad
			f := begin(t, oneRegion(100, 100), src, Options{Stream: StreamNone})
			f.Registered()
			read := f.target.Read(at(50, 1))
			await(t, "the page is asked for", func() bool { return src.loads.Load() == 1 })
			if err := change(f.target); err != nil {
				t.Fatal(err)
			}
			close(src.gate)
			if got := read.Must(); string(got) != string(make([]byte, pg)) {
				t.Error("it does not read as zeros")
			}
		})
	}
}

func TestProcessThatCanNeitherBeKilledNorPoisonedReadsNoZeros(t *testing.T) {
	src := newTestSource(200)
	target := uffdtest.Start(t)
	target.Map(at(0, 100)).Must()
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	target.Register(at(0, 100), uffd.ModeMissing).Must()
	target.Drop().Must()
	// No process has memory so far up: the kernel refuses to poison it, behind all that is in the other region.
	const nowhere = 1 << 60
	l := &Layout{Regions: []Region{{Start: base, End: base + 100*pg}, {Start: nowhere, End: nowhere + pg}}, Extents: []Extent{{Addr: base, Pages: 90}, {Addr: nowhere, Pages: 1, Image: 150}}}
	s, err := NewSession(&Options{Source: src, Stream: StreamNone})
	if err != nil {
		fd.Close()
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if err := s.Add(Process{ID: 1, FD: fd, PIDFD: target.PIDFD(), Layout: l}); err != nil {
		t.Fatal(err)
	}
	s.Registered()
	child := target.Fork().Must()
	child.Read(at(0, 1)).Must()
	s.mu.Lock()
	space := s.spaces[len(s.spaces)-1]
	s.mu.Unlock()
	defer space.fd.Close() // nobody else does
	cancel()
	if err := <-done; !errors.Is(err, ErrKilled) {
		t.Errorf("Run() = %v, want ErrKilled", err)
	}
	// Where the userfaultfd is closed this one reads as zeros.
	read := child.Read(at(95, 1))
	await(t, "the page is waited for", func() bool { return read.Finished() || waiting(t, child.PID()) == 1 })
	if read.Finished() {
		t.Error("the userfaultfd was closed")
	}
	child.Kill()
}

func TestStoppedSessionNeverLeavesZeros(t *testing.T) {
	t.Run("a process with a pidfd is killed", func(t *testing.T) {
		f := begin(t, oneRegion(1000, 1000), newTestSource(1000), Options{Stream: StreamNone})
		f.Registered()
		f.target.Read(at(0, 1)).Must()
		f.cancel()
		if err := f.wait(); !errors.Is(err, ErrKilled) {
			t.Errorf("Run() = %v, want ErrKilled", err)
		}
		<-f.target.Gone()
	})
	t.Run("in a forked child the missing pages are poisoned", func(t *testing.T) {
		src := newTestSource(1000)
		f := begin(t, oneRegion(1000, 900), src, Options{Stream: StreamNone})
		f.Registered()
		child := f.target.Fork().Must()
		child.Read(at(0, 1)).Must()
		f.cancel()
		if err := f.wait(); !errors.Is(err, ErrKilled) {
			t.Errorf("Run() = %v, want ErrKilled", err)
		}
		expect(t, child, at(0, 1), original(oneRegion(1000, 900), src)) // what it had it keeps
		var sig *uffdtest.SignalError
		if err := child.Read(at(500, 1)).Err(); !errors.As(err, &sig) || sig.Signal != unix.SIGBUS {
			t.Errorf("read of a missing page: %v, want SIGBUS", err)
		}
		expect(t, child, at(900, 100), original(oneRegion(1000, 900), src)) // empty memory stays usable
	})
	t.Run("a restore that failed is killed", func(t *testing.T) {
		f := begin(t, oneRegion(100, 100), newTestSource(100), Options{Stream: StreamNone})
		f.target.Read(at(0, 1)).Must()
		f.Abort(errors.New("connection closed before the restore had finished"))
		if err := f.wait(); !errors.Is(err, ErrAborted) {
			t.Errorf("Run() = %v, want ErrAborted", err)
		}
		<-f.target.Gone()
	})
}

func TestDrainCompletesEverything(t *testing.T) {
	src := newTestSource(3000)
	l := oneRegion(4000, 3000)
	f := begin(t, l, src, Options{Stream: StreamNone})
	f.Registered()
	child := f.target.Fork().Must()
	f.Drain()
	if err := f.wait(); err != nil {
		t.Fatalf("Run() = %v", err)
	}
	expect(t, f.target, at(0, 4000), original(l, src))
	expect(t, child, at(0, 4000), original(l, src))
}

func TestSeveralProcessesInOneRestore(t *testing.T) {
	src := newTestSource(2000)
	l1, l2 := oneRegion(1000, 1000), &Layout{Regions: []Region{{Start: base, End: base + 1000*pg}}, Extents: []Extent{{Addr: base, Pages: 1000, Image: 1000}}}
	f := begin(t, l1, src, Options{})
	second := f.another(t, l2)
	f.Registered()
	expect(t, second, at(0, 1000), original(l2, src))
	expect(t, f.target, at(0, 1000), original(l1, src))
	if err := f.wait(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestAddOwnsTheDescriptorOnError(t *testing.T) {
	target := uffdtest.Start(t)
	s, err := NewSession(&Options{Source: newTestSource(1)})
	if err != nil {
		t.Fatal(err)
	}
	bad := &Layout{Regions: []Region{{Start: 1, End: 2}}}
	if err := s.Add(Process{FD: target.Open(uffdtest.CRIUFeatures).Must(), PIDFD: target.PIDFD(), Layout: bad}); !errors.Is(err, ErrLayout) {
		t.Errorf("Add() = %v, want ErrLayout", err)
	}
	s.Registered()
	if err := s.Run(t.Context()); err != nil {
		t.Errorf("Run() of a session without processes = %v", err)
	}
	if err := s.Add(Process{FD: target.Open(uffdtest.CRIUFeatures).Must(), Layout: oneRegion(1, 1)}); !errors.Is(err, ErrEnded) {
		t.Errorf("Add() after Run = %v, want ErrEnded", err)
	}
}

// TestFaultPathAllocatesNothing measures the attempts themselves: the messages come from the kernel.
func TestFaultPathAllocatesNothing(t *testing.T) {
	src := &flatSource{bytes: newTestSource(4000).bytes}
	target := uffdtest.Start(t)
	target.Map(at(0, 4000)).Must()
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	defer fd.Close()
	target.Register(at(0, 4000), uffd.ModeMissing).Must()
	s, err := NewSession(&Options{Source: src})
	if err != nil {
		t.Fatal(err)
	}
	a := s.newSpace(Process{FD: fd, Layout: oneRegion(4000, 2000)})
	r := newReader(&Server{}, nil)
	var m uffd.Message
	page := uint64(0)
	allocs := testing.AllocsPerRun(1000, func() {
		f := fault{a: a, want: a.around.want(base+page*pg, page%2 == 0)}
		page += 3
		r.finish(f, r.try(&f))
		m = r.msgs[0]
	})
	_ = m
	if allocs != 0 {
		t.Errorf("%v allocations for a fault", allocs)
	}
}

// flatSource has all of its pages at hand, like a pack that has been verified.
type flatSource struct{ bytes []byte }

func (s *flatSource) Ready(page uint64, limit int) ([]byte, int) {
	n := min(uint64(limit), uint64(len(s.bytes))/pg-page)
	return s.bytes[page*pg : (page+n)*pg], int(n)
}

func (s *flatSource) Load(page uint64, limit int) ([]byte, int, error) {
	data, n := s.Ready(page, limit)
	return data, n, nil
}

func (s *flatSource) Prefetch(page, pages uint64) {}

func BenchmarkFill(b *testing.B) {
	const pages = 64 << 10 // 256 MiB
	src := &flatSource{bytes: make([]byte, pages*pg)}
	for i := range src.bytes {
		src.bytes[i] = byte(i >> 12)
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.SetBytes(pages * pg)
			for b.Loop() {
				b.StopTimer()
				target := uffdtest.Start(b)
				target.Map(at(0, pages)).Must()
				fd := target.Open(uffdtest.CRIUFeatures).Must()
				target.Register(at(0, pages), uffd.ModeMissing).Must()
				target.Drop().Must()
				s, err := NewSession(&Options{Source: src, Workers: workers})
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Add(Process{FD: fd, PIDFD: target.PIDFD(), Layout: oneRegion(pages, pages)}); err != nil {
					b.Fatal(err)
				}
				s.Registered()
				b.StartTimer()
				if err := s.Run(context.Background()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				target.Kill()
				<-target.Gone()
				b.StartTimer()
			}
		})
	}
}

func TestPageThatFailsBeforeItIsRegisteredIsNotForgotten(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(at(0, 10)).Must()
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	src := newTestSource(10)
	src.bad[3] = errBad
	s, err := NewSession(&Options{Source: src})
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- s.Run(t.Context()) }()
	if err := s.Add(Process{FD: fd, PIDFD: target.PIDFD(), Layout: oneRegion(10, 10)}); err != nil {
		t.Fatal(err)
	}
	for src.loads.Load() == 0 { // the stream has begun; nothing is registered
		runtime.Gosched()
	}
	target.Register(at(0, 10), uffd.ModeMissing).Must()
	target.Drop().Must()
	s.Registered()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	var sig *uffdtest.SignalError
	if err := target.Read(at(3, 1)).Err(); !errors.As(err, &sig) || sig.Signal != unix.SIGBUS {
		t.Errorf("read of the bad page: %v, want SIGBUS", err)
	}
	if n := s.Stats().PagesFailed; n != 1 {
		t.Errorf("%d pages failed, want 1", n)
	}
}

func TestDrainEndsTheWaitForTheRate(t *testing.T) {
	src := newTestSource(1000)
	f := begin(t, oneRegion(1000, 1000), src, Options{Rate: 1}) // a page in an hour
	f.Registered()
	f.Drain()
	if err := f.wait(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestNothingRegisteredIsNotBelievedWhileTheAddressSpaceChanges(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(at(0, 10)).Must()
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	target.Register(at(0, 10), uffd.ModeMissing).Must()
	s, err := NewSession(&Options{Source: newTestSource(10)})
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	a := s.newSpace(Process{FD: fd, Layout: oneRegion(10, 10)})
	none := uffd.Result{Outcome: uffd.NotRegistered}

	if got := a.trueOutcome(none).Outcome; got != uffd.NotRegistered {
		t.Errorf("at rest: %v", got)
	}
	unmap := target.Munmap(at(0, 5)) // sleeps until its event is read
	ready := []unix.PollFd{{Fd: int32(fd.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(ready, 30_000); n != 1 {
		t.Fatalf("no event: %v", err)
	}
	if got := a.trueOutcome(none).Outcome; got != uffd.Again {
		t.Errorf("with an event unread: %v, want Again", got)
	}
	if _, _, err := newReader(&Server{}, nil).read(a); err != nil {
		t.Fatal(err)
	}
	unmap.Must()
	if got := a.trueOutcome(none).Outcome; got != uffd.NotRegistered {
		t.Errorf("afterwards: %v", got)
	}
}
