package workingset

import (
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"thaw/restore/tracer/trace"
)

const ms = time.Millisecond

// restored is the trace of a process that was restored, made two children, of which one executed another program.
func restored(lost uint64) *trace.Trace {
	b := trace.NewBuilder(trace.PointFentry, time.Unix(0, 0), "")
	b.Choose(1, 100)
	touch := func(at time.Duration, space uint32, addr uint64, write bool) {
		b.Add(trace.Event{Time: at, Kind: trace.KindTouch, Space: space, PID: 99, TID: 99, Addr: addr, Write: write})
	}
	touch(1*ms, 1, 0x10000, false)   // image page 5, before it ran
	touch(3*ms, 1, 0x11fff, true)    // image page 6
	touch(12*ms, 1, 0x20000, false)  // image page 9, after the request was made
	touch(13*ms, 1, 0x20000, true)   // and written
	touch(13*ms, 1, 0x700000, false) // the file, page 3
	touch(14*ms, 1, 0x701000, false) // page 40 of the image, though there is the file
	touch(14*ms, 1, 0x12000, true)   // nothing of the snapshot
	touch(14*ms, 1, 0x900000, true)  // nor this
	touch(14*ms, 1, 0x702000, false) // the file, page 5
	touch(14*ms, 1, 0x800000, true)  // another file
	touch(15*ms, 77, 0x10000, false) // nobody that is known
	b.Add(trace.Event{Time: 20 * ms, Kind: trace.KindFork, Space: 2, Parent: 1, PID: 101})
	touch(21*ms, 2, 0x10000, true) // the child writes page 5
	b.Add(trace.Event{Time: 22 * ms, Kind: trace.KindFork, Space: 3, Parent: 2, PID: 102})
	touch(23*ms, 3, 0x10000, false) // page 30: this one is named
	b.Add(trace.Event{Time: 24 * ms, Kind: trace.KindExec, Space: 4, Parent: 2, PID: 101})
	touch(25*ms, 4, 0x20000, true) // of another program
	b.Add(trace.Event{Time: 26 * ms, Kind: trace.KindFork, Space: 5, Parent: 4, PID: 103})
	touch(27*ms, 5, 0x20000, true) // of its child
	return b.Finish(trace.Ending{End: trace.EndStopped, LostRing: lost})
}

func options() *TraceOptions {
	return &TraceOptions{
		Digest: [32]byte{1}, ImagePages: 50,
		Spaces: map[uint32]Memory{
			100: {
				Extents: []Extent{{0x10000, 2, 5}, {0x20000, 1, 9}, {0x701000, 1, 40}},
				Files:   []FileRange{{0x700000, 3, "/lib/a.so", 3}, {0x800000, 1, "/lib/b.so", 0}},
			},
			102: {Extents: []Extent{{0x10000, 1, 30}}},
			101: {Extents: []Extent{{0x10000, 2, 5}, {0x20000, 1, 9}}},
		},
		Running: 2 * ms, Ready: 10 * ms, Answered: 20 * ms,
		Hidden: []Run{{Page: 7, Pages: 1}},
	}
}

func TestTraceBecomesARecording(t *testing.T) {
	got, err := FromTrace(restored(0), options())
	if err != nil {
		t.Fatal(err)
	}
	want := &Recording{
		Digest: [32]byte{1}, ImagePages: 50, Outside: 2,
		Image: []Touch{
			{5, -1 * ms, PhaseStart, false}, {6, 1 * ms, PhaseStart, true},
			{9, 10 * ms, PhaseRequest, false}, {9, 11 * ms, PhaseRequest, true}, {40, 12 * ms, PhaseRequest, false},
			{5, 19 * ms, PhaseLater, true}, {30, 21 * ms, PhaseLater, false},
		},
		Files: []FileTouches{
			{"/lib/a.so", []Touch{{3, 11 * ms, PhaseRequest, false}, {5, 12 * ms, PhaseRequest, false}}},
			{"/lib/b.so", []Touch{{0, 12 * ms, PhaseRequest, true}}},
		},
		Hidden: []Run{{Page: 7, Pages: 1}},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s := NewSet([32]byte{1}, 50)
	mustAdd(t, s, got)
	if e := s.Image()[0]; e.Page != 5 || e.Bucket != 0 || !e.Write || e.Start != 1 {
		t.Errorf("the entry of page 5 is %+v", e)
	}
}

func TestForkedChildHasItsParentsMemory(t *testing.T) {
	o := options()
	delete(o.Spaces, 101)
	got, err := FromTrace(restored(0), o)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.Image); n != 7 || got.Image[5].Page != 5 {
		t.Errorf("touches of the image are %v", got.Image)
	}
}

func TestTraceThatIsNotCompleteBecomesAPartialRecording(t *testing.T) {
	got, err := FromTrace(restored(1), options())
	if err != nil || !got.Partial {
		t.Errorf("partial: %t, %v", got != nil && got.Partial, err)
	}
}

func TestPhasesOfMarksThatAreNotKnown(t *testing.T) {
	for _, tt := range []struct {
		name            string
		ready, answered time.Duration
		want            [3]Phase // after 5, 15 and 25 ms
	}{
		{"none", 0, 0, [3]Phase{PhaseStart, PhaseStart, PhaseStart}},
		{"no answer", 10 * ms, 0, [3]Phase{PhaseStart, PhaseRequest, PhaseRequest}},
		{"no request", 0, 20 * ms, [3]Phase{PhaseStart, PhaseStart, PhaseLater}},
		{"both", 10 * ms, 20 * ms, [3]Phase{PhaseStart, PhaseRequest, PhaseLater}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &TraceOptions{Ready: tt.ready, Answered: tt.answered}
			if got := [3]Phase{o.PhaseAt(5 * ms), o.PhaseAt(15 * ms), o.PhaseAt(25 * ms)}; got != tt.want {
				t.Errorf("phases are %v, want %v", got, tt.want)
			}
		})
	}
}

func TestMemoryThatCannotBeIsRefused(t *testing.T) {
	for name, change := range map[string]func(o *TraceOptions, m *Memory){
		"an extent behind the image":         func(_ *TraceOptions, m *Memory) { m.Extents = []Extent{{0x1000, 2, 49}} },
		"extents that overlap":               func(_ *TraceOptions, m *Memory) { m.Extents = []Extent{{0x1000, 2, 0}, {0x2000, 1, 5}} },
		"an extent that is not aligned":      func(_ *TraceOptions, m *Memory) { m.Extents = []Extent{{0x1001, 2, 0}} },
		"an extent of nothing":               func(_ *TraceOptions, m *Memory) { m.Extents = []Extent{{0x1000, 0, 0}} },
		"an extent that goes round":          func(_ *TraceOptions, m *Memory) { m.Extents = []Extent{{0x1000, 1 << 60, 0}} },
		"a file without a name":              func(_ *TraceOptions, m *Memory) { m.Files = []FileRange{{0x1000, 1, "", 0}} },
		"a page that no file has":            func(_ *TraceOptions, m *Memory) { m.Files = []FileRange{{0x1000, 1, "/a", 1 << 51}} },
		"files out of order":                 func(_ *TraceOptions, m *Memory) { m.Files = []FileRange{{0x2000, 1, "/a", 0}, {0x1000, 1, "/a", 0}} },
		"an image that is too large":         func(o *TraceOptions, _ *Memory) { o.ImagePages = MaxImagePages + 1 },
		"a request before the processes ran": func(o *TraceOptions, _ *Memory) { o.Ready = 1 * ms },
		"an answer before the request":       func(o *TraceOptions, _ *Memory) { o.Answered = 9 * ms },
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			var m Memory
			change(o, &m)
			o.Spaces[100] = m
			if r, err := FromTrace(restored(0), o); err == nil || r != nil || !strings.HasPrefix(err.Error(), "memory of") {
				t.Errorf("FromTrace returns %v, %v", r, err)
			}
		})
	}
}
