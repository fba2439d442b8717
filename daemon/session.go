package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"thaw/control"
	"thaw/restore"
	"thaw/restore/criu"
)

var (
	errCancelled    = errors.New("cancelled before a runtime connected")
	errDrainedIdle  = fmt.Errorf("%w: thawd is ending", errCancelled)
	errNeverArrived = errors.New("no runtime connected in time")
)

// A session is one restore, from the request until it is forgotten.
//
// The fields without a comment are immutable after newSession.
type session struct {
	id        string
	log       *slog.Logger
	request   control.SessionRequest
	created   time.Time
	patience  time.Duration // for the runtime to connect
	readAhead int64         // bytes to read before the runtime connects

	origin   *origin
	work     workDir
	mapped   *mappedImages // the daemon's
	listener *criu.Listener
	pages    *restore.Session

	tiers    *tiers   // nil: nothing comes from afar
	known    *touched // the daemon's
	sight    *foresight
	record   *recording      // nil: nothing is recorded
	serveCtx context.Context // set by serve; ends when the memory is dealt with
	looks    sync.WaitGroup  // of goroutines that look into the processes

	restored func() // tells the daemon's Remote that what else is to be done here need not be put off any more

	cancel context.CancelCauseFunc // ends the context below, with the reason
	asked  context.Context         // ends when the session is told to end; run waits for it
	done   chan struct{}           // closed at the end of run

	mu      sync.Mutex
	running time.Time     // protected by mu; when the finish message came
	ended   time.Time     // protected by mu
	final   control.State // protected by mu; set together with ended
	err     error         // protected by mu; why the session failed, or was cancelled
}

// open makes everything that a session needs but its goroutine.
func (d *Daemon) open(ctx context.Context, r *control.SessionRequest) (_ *session, err error) {
	s := &session{
		id: newID(), request: *r, created: time.Now(), patience: d.opts.ConnectTimeout, readAhead: d.opts.ReadAhead,
		known: &d.touched, mapped: &d.mapped, done: make(chan struct{}), restored: func() {},
	}
	if d.opts.Remote != nil {
		s.restored = d.opts.Remote.Restoring()
	}
	if s.request.Stream == "" {
		s.request.Stream = control.StreamAll
	}
	s.log = d.opts.Logger.With("session", s.id)
	s.asked, s.cancel = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			s.discard()
		}
	}()

	if r.WorkDir != "" {
		s.work, err = givenWorkDir(r.WorkDir)
	} else {
		s.work, err = makeWorkDir(d.opts.RunDir, s.id)
	}
	if err != nil {
		return nil, err
	}
	if r.Snapshot != "" {
		s.origin, err = d.snapshot(ctx, r.Snapshot)
	} else {
		s.origin, err = openImages(r.ImagesDir)
	}
	if err != nil {
		return nil, err
	}
	if s.tiers, err = d.tiersOf(s.origin); err != nil {
		return nil, err
	}
	s.origin.partly = s.tiers.partly()
	s.sight = d.foresee(s)
	s.record = d.recordingOf(s)
	binds := r.Binds
	if r.Record {
		binds = nil // what is mapped is not seen page by page
	}
	if err := s.origin.mapImages(s.mapped, binds, s.sight); err != nil {
		s.log.Warn("all memory is copied, none mapped", "snapshot", s.origin.name, "err", err)
	}
	stream, err := restore.ParseStreamPolicy(string(s.request.Stream))
	if err != nil {
		return nil, &control.Error{Code: control.CodeInvalid, Message: err.Error()}
	}
	s.pages, err = restore.NewSession(&restore.Options{
		Source: s.origin.source, Server: d.server, Stream: stream, Rate: r.RateBytesPerSecond, Failure: d.opts.Failure,
		Hold: s.hold(&d.opts), HoldRate: s.holdRate(), Quiet: s.quiet(), SinglePages: s.record != nil, Guard: d.opts.Guard, Logger: s.log, Metrics: d.faults, Added: s.added, Demanded: s.record.demand(),
	})
	if err != nil {
		return nil, err
	}
	// Last, because whoever sees the socket may connect.
	s.listener, err = criu.Listen(s.work.socket())
	return s, err
}

// discard releases what open made, for a session that never runs.
func (s *session) discard() {
	s.cancel(nil)
	s.restored()
	if s.listener != nil {
		s.listener.Close()
	}
	if s.origin != nil {
		if err := s.origin.close(); err != nil {
			s.log.Warn("close snapshot", "err", err)
		}
	}
	s.releaseImages()
	s.forget()
}

// releaseImages gives the folder of images back that memory is mapped with: no runtime reads it any more.
func (s *session) releaseImages() {
	if s.origin == nil || s.origin.folder == nil {
		return
	}
	if err := s.mapped.release(s.origin.folder); err != nil {
		s.log.Warn("folder of images stays", "err", err)
	}
}

// forget removes the work folder, if it is ours.
func (s *session) forget() {
	if err := s.work.remove(); err != nil {
		s.log.Warn("work folder stays", "err", err)
	}
}

// run serves the session until it has ended. If ctx ends before, processes that miss memory are killed.
func (s *session) run(ctx context.Context) {
	defer close(s.done)
	s.log.Info("session waits for its runtime", "snapshot", s.origin.name, "images", s.origin.images,
		"socket", s.work.socket(), "pages", s.origin.pages, "stream", s.request.Stream)

	// A session is told to end by the daemon's context or by its own; the reason of whichever was first counts.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopAsked := context.AfterFunc(s.asked, func() { cancel(context.Cause(s.asked)) })
	defer stopAsked()
	patience := time.AfterFunc(s.patience, func() { s.cancelWaiting(fmt.Errorf("%w (%v)", errNeverArrived, s.patience)) })
	defer patience.Stop()

	err := s.serve(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	s.restored()
	s.releaseImages()
	s.finish(err)
	if s.record != nil {
		s.record.over()
	}
	s.looks.Wait()
	if err := s.origin.close(); err != nil {
		s.log.Warn("close snapshot", "err", err)
	}
}

// serve runs the server of the socket, the session of the memory, and the reading ahead until all have ended.
func (s *session) serve(ctx context.Context) error {
	// The socket is of no use when the memory is dealt with, as after the death of a process in mid-restore.
	serveCtx, stopServing := context.WithCancel(ctx)
	defer stopServing()
	s.serveCtx = serveCtx
	var g sync.WaitGroup
	var serveErr, runErr error
	g.Go(func() { s.origin.readAhead(serveCtx, s.readAhead, s.request.Binds, s.sight) })
	layouts := s.sight.preload(s.origin.layouts)
	if s.record != nil {
		s.looks.Go(func() { s.record.run(ctx) })
	}
	g.Go(func() {
		if serveErr = criu.Serve(serveCtx, s.listener, s.pages, layouts); serveErr == nil {
			s.noteRunning()
			if s.record != nil {
				s.record.noteRunning()
			}
			if len(s.origin.fromPacks) > 0 {
				s.looks.Go(func() { s.known.watch(ctx, s.origin, s.sight, s.pages.Processes) })
			}
		}
	})
	g.Go(func() {
		defer stopServing()
		runErr = s.pages.Run(ctx)
	})
	g.Wait()

	switch st := s.pages.Stats(); {
	case runErr != nil:
		return runErr
	case serveErr != nil:
		return serveErr
	case st.PagesFailed > 0:
		return fmt.Errorf("pages that could not be had: %d, the last one: %s", st.PagesFailed, st.LastError)
	}
	return nil
}

// added is told of each process that the runtime has handed over.
func (s *session) added(p restore.ProcessInfo) {
	if s.record != nil {
		s.record.add(p, s.origin.files(p.ID))
	}
	s.looks.Go(func() {
		// Before that, to enter pages and to map files would keep each other waiting.
		select {
		case <-s.pages.Touched():
		case <-s.serveCtx.Done():
		}
		s.sight.populate(s.serveCtx, s.origin, p, s.record != nil)
	})
}

// hold is how long the processes are held at most.
func (s *session) hold(opts *Options) time.Duration {
	switch {
	case s.record != nil:
		return recordHold
	case s.origin.partly:
		return opts.HoldFar
	}
	return opts.Hold
}

// holdRate is how fast pages have to come for the processes to be held on.
func (s *session) holdRate() float64 {
	if s.record == nil && s.origin.partly {
		return restore.DefaultHoldFarRate
	}
	return 0
}

// quiet is how long nothing is streamed; 0: as long as is usual.
func (s *session) quiet() time.Duration {
	if s.record != nil {
		return s.record.lasts()
	}
	return 0
}

// noteRunning notes that the finish message has come.
func (s *session) noteRunning() {
	s.mu.Lock()
	s.running = time.Now()
	took := s.running.Sub(s.created)
	s.mu.Unlock()
	if s.request.Stream != control.StreamAll || s.request.RateBytesPerSecond > 0 {
		s.restored() // it may go on for as long as the processes live
	}
	s.log.Info("processes are restored", "seconds", took.Seconds(), "processes", s.pages.Stats().Processes)
}

// finish notes how the session ended.
func (s *session) finish(err error) {
	s.mu.Lock()
	s.ended, s.err, s.final = time.Now(), err, control.StateComplete
	switch {
	case errors.Is(err, errCancelled):
		s.final = control.StateCancelled
	case err != nil:
		s.final = control.StateFailed
	}
	final, took := s.final, s.ended.Sub(s.created)
	s.mu.Unlock()

	st := s.pages.Stats()
	attrs := []any{"state", final, "seconds", took.Seconds(), "processes", st.Processes, "bytes_demand", st.BytesDemand,
		"bytes_streamed", st.BytesStream, "pages", st.PagesSettled, "pages_failed", st.PagesFailed}
	if final == control.StateFailed {
		s.log.Error("session failed", append(attrs, "err", err)...)
		return
	}
	s.log.Info("session ended", attrs...)
}

// cancelWaiting ends the session if no runtime has handed over a process yet, and reports whether that was so.
func (s *session) cancelWaiting(reason error) bool {
	if s.state() != control.StateWaiting {
		return false
	}
	s.cancel(reason)
	return true
}

// drain brings the session to its end: at once if nobody depends on it, else by bringing all memory at full speed.
func (s *session) drain() {
	if !s.cancelWaiting(errDrainedIdle) {
		s.pages.Drain()
	}
}

func (s *session) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.final != ""
}

// state derives the state from what the layers below know.
func (s *session) state() control.State {
	st := s.pages.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stateLocked(&st)
}

func (s *session) stateLocked(st *restore.Stats) control.State {
	switch {
	case s.final != "":
		return s.final
	case !s.running.IsZero():
		return control.StateServing
	case st.Processes > 0:
		return control.StateRestoring
	default:
		return control.StateWaiting
	}
}

// info returns what the API tells about the session.
func (s *session) info() control.Session {
	st := s.pages.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	info := control.Session{
		ID: s.id, Snapshot: s.origin.name, Host: s.origin.host, ImagesDir: s.origin.images, WorkDir: s.work.path, Socket: s.work.socket(),
		Stream: s.request.Stream, RateBytesPerSecond: s.request.RateBytesPerSecond,
		State: s.stateLocked(&st), Created: s.created.UTC(), Running: timeOrNil(s.running), Ended: timeOrNil(s.ended),
		Progress: control.Progress{
			Processes: st.Processes, Live: st.Live,
			PagesTotal: st.PagesTotal, PagesMapped: s.origin.mapped, PagesDone: st.PagesSettled, PagesFailed: st.PagesFailed,
		},
		Counters: control.Counters{
			Faults: st.Faults, BytesDemand: st.BytesDemand, BytesStreamed: st.BytesStream, BytesZero: st.BytesZero,
			BytesPreloaded: st.BytesPreload, DemandLate: st.DemandLate, DemandMissed: st.DemandMissed, Waited: st.Waited.Seconds(),
		},
		WorkingSet: s.sight.report(&st), Recording: s.record.info(), Tiers: s.tiers.report(),
		FailedPage: s.origin.failedPage(),
	}
	if st.Processes == 0 {
		info.Progress.PagesTotal = s.origin.pages
	}
	if s.err != nil {
		info.Error = s.err.Error()
	}
	return info
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
