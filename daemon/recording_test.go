package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/restore"
	"thaw/restore/criu"
	"thaw/restore/tracer"
	"thaw/restore/workingset"
)

// learnedOf returns the working set of the snapshot "web".
func learnedOf(t *testing.T, store *pagestore.Store) *workingset.Set {
	t.Helper()
	data, err := webOf(t, store).WorkingSet()
	if err != nil {
		t.Fatal(err)
	}
	set, err := workingset.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// recorded waits until the recording of a session has ended.
func (r *running) recorded(t *testing.T, id string) *control.RecordingReport {
	t.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		s := r.session(t, id)
		if s.Recording != nil && s.Recording.State.Ended() {
			return s.Recording
		}
		if time.Now().After(deadline) {
			t.Fatalf("the recording does not end: %+v", s.Recording)
		}
	}
}

func TestRecordedRestoreTeachesTheWorkingSet(t *testing.T) {
	testenv.NeedTracing(t)
	const n = 2000
	store := newStore(t, n)
	d := start(t, store, nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web", Record: true})
	mustCode(t, d.Mark(s.ID, control.MarkReady), control.CodeNotRecorded) // nothing runs
	r := connect(t, s, n)
	r.target.Read(pages(3, 1)).Must() // the restorer's
	r.finish()
	await(t, "the process is recorded", func() bool {
		now := d.session(t, s.ID)
		return now.Running != nil && now.Recording.State == control.RecordingRuns
	})
	r.target.Read(pages(10, 2)).Must()
	if err := d.Mark(s.ID, control.MarkReady); err != nil {
		t.Fatal(err)
	}
	r.target.Write(pages(500, 1).Start, []byte{1}).Must()
	r.target.Read(pages(n+5, 1)).Must() // has no content
	if err := d.Mark(s.ID, control.MarkAnswered); err != nil {
		t.Fatal(err)
	}
	got := d.recorded(t, s.ID)
	if got.State != control.RecordingLearned || got.PagesTouched != 4 || got.Point == "" {
		t.Errorf("recording: %+v", got)
	}
	mustCode(t, d.Mark(s.ID, control.MarkAnswered), control.CodeNotRecorded)

	type entry struct {
		Page  uint64
		Phase workingset.Phase
		Write bool
		Early bool
	}
	var entries []entry
	for _, e := range learnedOf(t, store).Image() {
		entries = append(entries, entry{e.Page, e.Phase(), e.Write, e.Bucket == 0})
	}
	want := []entry{{3, workingset.PhaseStart, false, true}, {10, workingset.PhaseStart, false, false}, {11, workingset.PhaseStart, false, false}, {500, workingset.PhaseRequest, true, false}}
	if diff := cmp.Diff(want, entries); diff != "" {
		t.Errorf("what was learned (-want +got):\n%s", diff)
	}
	r.target.Kill()
	if done := d.ended(t, s.ID); done.State != control.StateComplete {
		t.Errorf("the session ended as %+v", done)
	}
}

func TestSampledRestoreUsesTheSetAndTeachesIt(t *testing.T) {
	testenv.NeedTracing(t)
	const n = 4000
	store := newStore(t, n)
	var set []uint64
	for p := uint64(0); p < 2000; p++ {
		set = append(set, p)
	}
	keepSet(t, store, setOf(t, store, nil, set))
	d := start(t, store, &Options{RecordShare: 1})
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	r := connect(t, s, n)
	r.target.Read(pages(3, 1)).Must()
	r.finish()
	await(t, "the process is recorded", func() bool {
		now := d.session(t, s.ID)
		return now.Running != nil && now.Recording.State == control.RecordingRuns && now.Counters.BytesPreloaded > 1000*4096
	})
	r.target.Read(pages(0, 1000)).Must()
	r.target.Read(pages(3000, 7)).Must()
	r.target.Kill() // the recording ends with it
	got := d.recorded(t, s.ID)
	if got.State != control.RecordingLearned || got.Missed != 7 || got.Used == 0 || got.Unused == 0 || got.Precision == nil {
		t.Errorf("recording: %+v", got)
	}
	now := learnedOf(t, store)
	if now.Learned() != 2 {
		t.Errorf("the set has learned from %d recordings, want 2", now.Learned())
	}
	// Of the pages that were brought nothing is known anew; of those that were left out it is whether they were needed.
	kept := 0
	for _, e := range now.Image() {
		switch seen, known := e.Support(); {
		case e.Page < 2000 && seen == 1 && known == 1:
			kept++
		case e.Page < 1000 && seen == 2 && known == 2, e.Page >= 1000 && e.Page < 2000 && seen == 1 && known == 2:
		case e.Page >= 3000 && seen == 1 && known == 2:
		default:
			t.Errorf("page %d was seen in %d of %d recordings", e.Page, seen, known)
		}
	}
	if kept < 1500 || kept == 2000 {
		t.Errorf("nothing is known anew of %d of 2000 pages", kept)
	}
}

func TestRestoreGoesOnWithoutARecorder(t *testing.T) {
	t.Setenv(noTracer, "1")
	const n = 300
	store := newStore(t, n)
	d := start(t, store, nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web", Record: true})
	r := connect(t, s, n)
	if got := r.target.Read(pages(3, 1)).Must(); string(got) != string(want(t, 3, 1)) {
		t.Error("wrong content before the process runs")
	}
	r.finish()
	if got := r.target.Read(pages(0, n)).Must(); string(got) != string(want(t, 0, n)) {
		t.Error("wrong content")
	}
	if got := d.recorded(t, s.ID); got.State != control.RecordingFailed || got.Error == "" {
		t.Errorf("recording: %+v", got)
	}
	mustCode(t, d.Mark(s.ID, control.MarkReady), control.CodeNotRecorded)
}

func TestRecordingOfARestoreThatFailsEnds(t *testing.T) {
	testenv.NeedTracing(t)
	store := newStore(t, 100)
	d := start(t, store, nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web", Record: true})
	if err := d.Delete(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if got := d.ended(t, s.ID); got.Recording.State != control.RecordingFailed {
		t.Errorf("recording: %+v", got.Recording)
	}
	if _, err := webOf(t, store).WorkingSet(); err == nil {
		t.Error("a restore that never was has taught something")
	}
	other := d.create(t, control.SessionRequest{Snapshot: "web"})
	mustCode(t, d.Mark(other.ID, control.MarkReady), control.CodeNotRecorded)
	if err := d.Mark("none", control.MarkReady); !errors.Is(err, control.CodeNotFound) {
		t.Errorf("mark of a session that there is not: %v", err)
	}
}

// await gives the CPU away until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestRecorderThatCannotBeHadSaysWhatToGrant(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("attach: %w", tracer.ErrNotPermitted): "CAP_BPF",
		fmt.Errorf("attach: %w", tracer.ErrNotSupported): "thaw doctor",
	} {
		if got := advise(err); !errors.Is(got, errors.Unwrap(err)) || !strings.Contains(got.Error(), want) {
			t.Errorf("advice on %q: %q, want that it says %q", err, got, want)
		}
	}
}

func TestTwoRestoresAreRecordedAtTheSameTime(t *testing.T) {
	testenv.NeedTracing(t)
	const n = 1000
	store := newStore(t, n)
	d := start(t, store, nil)
	var ids [2]string
	var processes [2]*criuStandIn
	for i := range ids {
		s := d.create(t, control.SessionRequest{Snapshot: "web", Record: true})
		ids[i], processes[i] = s.ID, connect(t, s, n)
	}
	for i, r := range processes {
		r.finish()
		await(t, "the process is recorded", func() bool {
			now := d.session(t, ids[i])
			return now.Running != nil && now.Recording.State == control.RecordingRuns
		})
	}
	// Both touch page 5, and one each that the other does not.
	for i, r := range processes {
		r.target.Read(pages(5, 1)).Must()
		r.target.Read(pages(uint64(100+i), 1)).Must()
	}
	for i, r := range processes {
		if err := d.Mark(ids[i], control.MarkAnswered); err != nil {
			t.Fatal(err)
		}
		r.target.Kill()
		if got := d.recorded(t, ids[i]); got.State != control.RecordingLearned || got.PagesTouched != 2 {
			t.Errorf("recording %d: %+v", i, got)
		}
	}
	support := make(map[uint64]int)
	set := learnedOf(t, store)
	for _, e := range set.Image() {
		support[e.Page], _ = e.Support()
	}
	if diff := cmp.Diff(map[uint64]int{5: 2, 100: 1, 101: 1}, support); diff != "" || set.Learned() != 2 {
		t.Errorf("of %d recordings (-want +got):\n%s", set.Learned(), diff)
	}
}

func TestRecordingDoesNotHoldUpTheEndOfThawd(t *testing.T) {
	testenv.NeedTracing(t)
	const n = 100
	store := newStore(t, n)
	d := start(t, store, nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web", Record: true})
	r := connect(t, s, n)
	r.target.Read(pages(3, 1)).Must()
	r.finish()
	await(t, "the process is recorded", func() bool {
		now := d.session(t, s.ID)
		return now.Running != nil && now.Recording.State == control.RecordingRuns
	})
	// Another writer has the store, and keeps it.
	lock, err := os.Open(filepath.Join(store.Dir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := d.Mark(s.ID, control.MarkAnswered); err != nil {
		t.Fatal(err)
	}
	d.stop(nil)
	ended := make(chan error, 1)
	go func() { ended <- d.wait() }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("thawd waits for a writer that has nothing to do with it")
	}
}

// A lookout reports whether faults would wait while the pages of processes are looked at, which asks its context now and then.
type lookout struct {
	context.Context
	t     *testing.T
	r     *recording
	asked int
}

func (l *lookout) Err() error {
	l.asked++
	if l.r.mu.TryLock() {
		l.r.mu.Unlock()
	} else {
		l.t.Error("pages are looked at with the lock that faults take")
	}
	return l.Context.Err()
}

func TestFaultsDoNotWaitForALookAtFiles(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code := uint64(reflect.ValueOf(TestFaultsDoNotWaitForALookAtFiles).Pointer()) &^ (restore.PageSize - 1)
	r := newRecording(nil, true, nil)
	defer r.stop()
	r.spaces[uint32(os.Getpid())] = recorded{files: []criu.FileRange{{PageRange: criu.PageRange{Addr: code, Pages: 1}, Path: exe}}}
	out := &lookout{Context: r.until, t: t, r: r}
	r.until = out
	r.look()
	if out.asked == 0 || !r.present[exe].has(0) {
		t.Errorf("nothing was looked at: %v", r.present)
	}
}

func TestRecordingThatIsOverTakesNoMoreNotes(t *testing.T) {
	t.Setenv(noTracer, "1")
	r := newRecording(&session{log: slog.New(slog.DiscardHandler), asked: t.Context()}, false, nil)
	demand := r.demand()
	demand(1, false)
	if len(r.own) != 1 {
		t.Errorf("of a recording that goes on: %v", r.own)
	}
	r.run(t.Context())
	demand(2, true)
	if r.report.State != control.RecordingFailed || len(r.own) != 0 {
		t.Errorf("of a recording that has %s: %v", r.report.State, r.own)
	}
}

func TestNewSnapshotsAreRecordedMoreOften(t *testing.T) {
	learnedFrom := func(n uint32) *learned { return &learned{set: &workingset.Set{Recordings: n}} }
	for _, tt := range []struct {
		name  string
		share float64
		known *learned
		want  float64
	}{
		{"nothing is known", 0.02, nil, firstShare},
		{"little is known", 0.02, learnedFrom(firstRecordings - 1), firstShare},
		{"enough is known", 0.02, learnedFrom(firstRecordings), 0.02},
		{"more is wanted", 0.5, nil, 0.5},
		{"none is wanted", -1, nil, -1},
	} {
		d := &Daemon{opts: Options{RecordShare: tt.share}}
		if got := d.recordShare(&foresight{known: tt.known}); got != tt.want {
			t.Errorf("%s: the share is %v, want %v", tt.name, got, tt.want)
		}
	}
}
