package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"thaw/control"
	"thaw/restore"
	"thaw/restore/criu"
	"thaw/restore/tracer"
	"thaw/restore/tracer/trace"
	"thaw/restore/workingset"
)

const (
	// recordAtMost is how long a recording that was asked for lasts if nobody marks its end.
	recordAtMost = time.Minute
	// recordSample is how long one of a share of all restores is recorded, from where the processes run: the first call of a function is
	// over by then.
	recordSample = 2 * time.Second
	// recordHold bounds how long recorded processes are held until the recorder has them.
	recordHold = 2 * time.Second
)

// A recording has the touches of a session's processes recorded, and the snapshot's working set learn from them. The processes are held
// until the recorder has them, and go on without it if it cannot be had.
type recording struct {
	s     *session
	learn func(context.Context, *workingset.Recording) error
	asked bool // by the client, who marks when it is over; else one of a share

	ready  chan struct{} // closed when the recorder waits for processes, or has failed
	client *tracer.Client
	stop   context.CancelFunc // ends the recording
	until  context.Context

	mu      sync.Mutex
	spaces  map[uint32]recorded     // protected by mu; by pid here
	present map[string]pageSet      // protected by mu; pages of files that the processes had at the end
	running time.Time               // protected by mu; these are zero as long as it has not come to that
	request time.Time               // protected by mu; the first one was made
	answer  time.Time               // protected by mu
	report  control.RecordingReport // protected by mu
	own     []demanded              // protected by mu; what thawd itself has seen
}

// demanded is a page that a thread waited for.
type demanded struct {
	image uint64
	at    time.Time
	write bool
}

// demand returns what notes the pages that thawd itself sees somebody wait for, nil if nothing is recorded. The recorder does not see those that
// are touched before it knows the process, or by the kernel on another's behalf. It is called on the fault path, for as long as the session
// lasts.
func (r *recording) demand() func(image uint64, write bool) {
	if r == nil {
		return nil
	}
	return func(image uint64, write bool) {
		if r.until.Err() != nil {
			return
		}
		d := demanded{image, time.Now(), write}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.own = append(r.own, d)
	}
}

// addOwn adds what thawd has seen and the recorder has not.
func (r *recording) addOwn(rec *workingset.Recording, o *workingset.TraceOptions, t *trace.Trace) {
	var seen pageSet
	for _, touch := range rec.Image {
		seen = seen.add(touch.Page)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.own {
		if at := since(t, d.at); !seen.has(d.image) && (o.Answered == 0 || at < o.Answered) {
			rec.Image = append(rec.Image, workingset.Touch{Page: d.image, Time: at - o.Running, Phase: o.PhaseAt(at), Write: d.write})
		}
	}
}

// recorded is a process that is recorded.
type recorded struct {
	memory workingset.Memory
	files  []criu.FileRange
}

func newRecording(s *session, asked bool, learn func(context.Context, *workingset.Recording) error) *recording {
	r := &recording{
		s: s, learn: learn, asked: asked, ready: make(chan struct{}), spaces: make(map[uint32]recorded),
		report: control.RecordingReport{State: control.RecordingWaits},
	}
	r.until, r.stop = context.WithCancel(context.Background())
	return r
}

// lasts is how long the recording lasts at most, from where the processes run.
func (r *recording) lasts() time.Duration {
	if r.asked {
		return recordAtMost
	}
	return recordSample
}

// run records until the end is marked, the time is over, the processes are gone or ctx ends, and has the working set learn.
func (r *recording) run(ctx context.Context) {
	defer context.AfterFunc(ctx, r.stop)()
	defer r.forget()
	client, err := tracer.Start(ctx, tracer.Target{Later: true}, nil)
	r.client = client
	close(r.ready)
	if err != nil {
		r.fail(fmt.Errorf("recorder: %w", advise(err)))
		return
	}
	defer client.Close()
	t, err := tracer.Collect(r.until, client, "", nil)
	r.stop() // if it has ended by itself
	if err == nil {
		err = r.note(ctx, t)
	}
	if err != nil {
		r.fail(err)
	}
}

// forget lets go of what the recording was to be made of. The session may go on for long.
func (r *recording) forget() {
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own, r.present = nil, nil
	clear(r.spaces) // others may have their numbers
}

// advise says what to do if the recorder cannot be started.
func advise(err error) error {
	switch {
	case errors.Is(err, tracer.ErrNotPermitted):
		return fmt.Errorf("%w: grant thawd CAP_BPF and CAP_PERFMON, or have it record nothing (--record-share 0)", err)
	case errors.Is(err, tracer.ErrNotSupported):
		return fmt.Errorf("%w: thaw doctor says what this kernel lacks; thawd serve --record-share 0 records nothing", err)
	}
	return err
}

// fail notes why nothing was learned.
func (r *recording) fail(err error) {
	if ctx := r.s.asked; ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = context.Cause(ctx)
	}
	r.s.log.Warn("recording comes to nothing; the restore does not depend on it", "err", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.State, r.report.Error = control.RecordingFailed, err.Error()
}

// add has a process recorded. It holds the processes until that is so.
func (r *recording) add(p restore.ProcessInfo, files []criu.FileRange) {
	release := r.s.pages.HoldProcesses()
	r.s.looks.Go(func() {
		defer release()
		<-r.ready
		if r.client == nil {
			return
		}
		if p.HostPID == 0 {
			r.s.log.Warn("process cannot be recorded: it is in no pid namespace that is visible here", "image_pid", p.ID)
			return
		}
		r.mu.Lock()
		r.spaces[uint32(p.HostPID)] = recorded{memoryOf(r.s.origin, p.ID, files), files}
		r.mu.Unlock()
		if _, err := r.client.Choose(r.until, p.HostPID); err != nil {
			r.s.log.Warn("process is not recorded", "pid", p.HostPID, "err", err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.report.State = control.RecordingRuns
	})
}

// memoryOf says what a process has where, in the words of working sets.
func memoryOf(o *origin, pid int, files []criu.FileRange) workingset.Memory {
	var m workingset.Memory
	l := o.layouts[pid]
	for _, e := range slices.Concat(l.Extents, o.fromPacks[pid]) {
		m.Extents = append(m.Extents, workingset.Extent{Addr: e.Addr, Pages: e.Pages, Image: e.Image})
	}
	slices.SortFunc(m.Extents, func(a, b workingset.Extent) int { return cmp.Compare(a.Addr, b.Addr) })
	for _, f := range files {
		if first := uint64(f.Offset) / restore.PageSize; f.Offset >= 0 && first+f.Pages <= maxFilePages {
			m.Files = append(m.Files, workingset.FileRange{Addr: f.Addr, Pages: f.Pages, Path: f.Path, Offset: first})
		}
	}
	slices.SortFunc(m.Files, func(a, b workingset.FileRange) int { return cmp.Compare(a.Addr, b.Addr) })
	return m
}

// noteRunning says that the processes run.
func (r *recording) noteRunning() {
	r.mu.Lock()
	r.running = time.Now()
	r.mu.Unlock()
	timer := time.AfterFunc(r.lasts(), func() {
		r.look()
		r.stop()
	})
	// The processes of a recording that has ended may be gone, and others have their numbers.
	context.AfterFunc(r.until, func() { timer.Stop() })
}

// look notes which pages of files the processes have, as long as they are there: those that the runtime has touched on their behalf, and those
// that the kernel has mapped around others, are not seen to be touched.
func (r *recording) look() {
	r.mu.Lock()
	spaces := maps.Clone(r.spaces)
	r.mu.Unlock()
	found := make(map[string]pageSet)
	for pid, p := range spaces {
		pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
		if err != nil {
			continue // it has ended, or is not ours to look into
		}
		for path, pages := range presentPages(r.until, pagemap, p.files) { // takes milliseconds, in which faults must not wait for mu
			found[path] = found[path].union(pages)
		}
		pagemap.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for path, pages := range found {
		if r.present == nil {
			r.present = make(map[string]pageSet)
		}
		r.present[path] = r.present[path].union(pages)
	}
}

// over says that the session has ended. What still runs without it is recorded to the end.
func (r *recording) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running.IsZero() {
		r.stop()
	}
}

// mark notes what only the client knows.
func (r *recording) mark(m control.Mark) error {
	now := time.Now()
	if m == control.MarkAnswered {
		r.look() // before the answer: the client may end the processes then
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report.State.Ended() || r.running.IsZero() {
		return &control.Error{
			Code:    control.CodeNotRecorded,
			Message: fmt.Sprintf("the recording of session %s is %s", r.s.id, r.report.State),
			Hint:    "marks count from where the processes run until the recording ends",
		}
	}
	switch m {
	case control.MarkReady:
		r.request = now
	case control.MarkAnswered:
		r.answer = now
		r.stop()
	}
	return nil
}

// note makes a recording of the trace, and has the working set learn from it.
func (r *recording) note(ctx context.Context, t *trace.Trace) error {
	r.mu.Lock()
	o := workingset.TraceOptions{
		Digest: r.s.origin.digest, ImagePages: r.s.origin.image.Pages(), Spaces: make(map[uint32]workingset.Memory),
		Running: since(t, r.running), Ready: since(t, r.request), Answered: since(t, r.answer),
	}
	for pid, p := range r.spaces {
		o.Spaces[pid] = p.memory
	}
	present := r.present
	r.present = nil // whoever still looks must not add to it any more
	r.mu.Unlock()
	switch {
	case len(o.Spaces) == 0 || o.Running == 0:
		return errors.New("the processes never ran")
	case o.Ready == 0: // it may have been made before they ran
		o.Ready = o.Running
	}
	if !r.asked && o.Answered == 0 {
		o.Answered = o.Running + recordSample
	}
	o.Hidden = r.s.sight.hidden()
	learned, err := workingset.FromTrace(t, &o)
	if err != nil {
		return err
	}
	widen(learned, r.s.origin.fromPacks)
	r.addOwn(learned, &o, t)
	addPresent(learned, present)
	r.tell(t, learned)
	if err := r.learn(ctx, learned); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.State = control.RecordingLearned
	return nil
}

// since returns when something was, from the start of the trace; 0: it was not.
func since(t *trace.Trace, at time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	return max(at.Sub(t.Started), 1)
}

// tell says what was recorded.
func (r *recording) tell(t *trace.Trace, rec *workingset.Recording) {
	var touched []workingset.Run
	for _, x := range rec.Image {
		touched = append(touched, workingset.Run{Page: x.Page, Pages: 1})
	}
	var files uint64
	for _, f := range rec.Files {
		pages := make(map[uint64]struct{}, len(f.Touches))
		for _, x := range f.Touches {
			pages[x.Page] = struct{}{}
		}
		files += uint64(len(pages))
	}
	worth := r.s.sight.worth(touched)
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &r.report
	out.Point, out.Blind, out.Complete, out.Seconds = t.Point.String(), t.Blind.Texts(), t.Complete(), t.Length.Seconds()
	out.PagesTouched, out.PagesOfFiles, out.Outside = workingset.Compare(nil, touched).Missed, files, rec.Outside
	if worth != nil {
		out.Used, out.Unused, out.Missed, out.Precision, out.Recall = worth.Used, worth.Unused, worth.Missed, &worth.Precision, &worth.Recall
	}
}

// info returns what the API tells; nil if nothing is recorded.
func (r *recording) info() *control.RecordingReport {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	report := r.report
	return &report
}
