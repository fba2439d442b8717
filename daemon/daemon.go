package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"thaw/control"
	"thaw/internal/perfswitch"
	"thaw/restore"
	"thaw/restore/criu"
)

// A Daemon holds the sessions of one node. It is safe for concurrent use.
type Daemon struct {
	opts    Options
	metrics *metrics
	faults  *restore.Metrics
	server  *restore.Server // set by Run before begun is closed
	started time.Time
	begun   chan struct{} // closed when Run has begun to take sessions
	touched touched
	sets    workingSets
	mapped  mappedImages

	mu       sync.Mutex
	running  context.Context // protected by mu; Run's context while Run takes sessions, else nil
	sessions []*session      // protected by mu; in the order they were made
	live     int             // protected by mu; sessions being made or not ended yet
	draining bool            // protected by mu
	drained  chan struct{}   // closed when draining and live is 0
	group    sync.WaitGroup  // sessions that run; Go only with mu held and running not nil
}

var _ control.Backend = (*Daemon)(nil)

// New returns a daemon without sessions. It takes sessions while [Daemon.Run] runs.
func New(opts *Options) (*Daemon, error) {
	d := &Daemon{opts: *opts, faults: restore.NewMetrics(), started: time.Now(), begun: make(chan struct{}), drained: make(chan struct{})}
	if err := d.opts.setDefaults(); err != nil {
		return nil, err
	}
	d.metrics = newMetrics(d)
	d.mapped.dir, d.mapped.write = d.opts.RunDir, criu.MapFiles
	return d, nil
}

// ErrStopped is what Run returns, wrapped, when it was stopped while processes depended on it.
var ErrStopped = errors.New("stopped before all processes had their memory")

// Run takes sessions until Drain has been called and the last session has ended, or until ctx ends. In the latter case
// the processes that still miss memory are killed, and the error wraps [ErrStopped]. It must be called once.
func (d *Daemon) Run(ctx context.Context) error {
	dir, err := openRunDir(d.opts.RunDir, d.opts.Logger)
	if err != nil {
		return err
	}
	defer dir.close()
	server, err := restore.NewServer(&d.opts.Server)
	if err != nil {
		return err
	}
	defer server.Close()
	d.server = server
	if event, err := perfswitch.Hold(); err == nil {
		defer event.Close()
	} else {
		d.opts.Logger.Debug("each restore will wait some milliseconds for its breakpoint", "err", err)
	}
	d.mu.Lock()
	d.running = ctx
	d.mu.Unlock()
	close(d.begun)

	select {
	case <-ctx.Done():
	case <-d.drained:
	}

	d.mu.Lock()
	d.running = nil
	d.draining = true
	d.mu.Unlock()
	left := d.count(control.StateRestoring) + d.count(control.StateServing)
	d.group.Wait()
	err = d.mapped.close()
	if left > 0 {
		return fmt.Errorf("%w: sessions: %d", ErrStopped, left)
	}
	return err
}

// Drain makes the daemon refuse new sessions and finish the others: sessions to which nobody has connected are cancelled,
// the others bring all memory as fast as they can. It does not wait.
func (d *Daemon) Drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining {
		return
	}
	d.draining = true
	d.opts.Logger.Info("draining", "sessions", d.live)
	for _, s := range d.sessions {
		s.drain()
	}
	d.noteDrainedLocked()
}

func (d *Daemon) noteDrainedLocked() {
	if !d.draining || d.live > 0 {
		return
	}
	select {
	case <-d.drained:
	default:
		close(d.drained)
	}
}

// Create makes a session: when it returns, the session's socket listens. Before Run has begun it waits for that.
func (d *Daemon) Create(ctx context.Context, r *control.SessionRequest) (*control.Session, error) {
	select {
	case <-d.begun:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := d.reserve(); err != nil {
		return nil, err
	}
	s, err := d.open(ctx, r)
	if err != nil {
		d.release()
		d.metrics.refused.Inc()
		return nil, apiError(err)
	}
	if err := d.start(s); err != nil {
		return nil, err
	}
	info := s.info()
	return &info, nil
}

// reserve takes a place for a session that is about to be made.
func (d *Daemon) reserve() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.draining || d.running == nil:
		return errDraining
	case d.live >= d.opts.MaxSessions:
		return &control.Error{
			Code:    control.CodeTooMany,
			Message: fmt.Sprintf("thawd holds %d sessions, as many as it may", d.live),
			Hint:    "wait for one to end, or start thawd with a larger --max-sessions",
		}
	}
	d.live++
	return nil
}

var errDraining = &control.Error{
	Code:    control.CodeDraining,
	Message: "thawd is ending and takes no new sessions",
	Hint:    "start another thawd on another socket, or wait until this one has been restarted",
}

func (d *Daemon) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live--
	d.noteDrainedLocked()
}

// start runs a session in the place that reserve took.
func (d *Daemon) start(s *session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining || d.running == nil {
		// Drain came while the snapshot was opened.
		s.discard()
		d.live--
		d.noteDrainedLocked()
		return errDraining
	}
	d.sessions = append(d.sessions, s)
	ctx := d.running
	d.group.Go(func() {
		s.run(ctx)
		d.ended(s)
	})
	return nil
}

// ended counts a session that has ended and forgets the oldest ones beyond the history.
func (d *Daemon) ended(s *session) {
	info := s.info()
	d.metrics.sessionEnded(&info)
	d.mu.Lock()
	d.live--
	forgotten := d.trimLocked()
	d.noteDrainedLocked()
	d.mu.Unlock()
	for _, s := range forgotten {
		s.forget()
	}
}

// trimLocked takes the oldest ended sessions beyond the history from the list and returns them.
func (d *Daemon) trimLocked() []*session {
	ended := 0
	for _, s := range d.sessions {
		if s.hasEnded() {
			ended++
		}
	}
	var forgotten []*session
	d.sessions = slices.DeleteFunc(d.sessions, func(s *session) bool {
		if ended <= max(d.opts.History, 0) || !s.hasEnded() {
			return false
		}
		ended--
		forgotten = append(forgotten, s)
		return true
	})
	return forgotten
}

// Sessions lists live sessions and recent ended ones, oldest first.
func (d *Daemon) Sessions() []control.Session {
	d.mu.Lock()
	sessions := slices.Clone(d.sessions)
	d.mu.Unlock()
	out := make([]control.Session, 0, len(sessions))
	for _, s := range sessions {
		out = append(out, s.info())
	}
	return out
}

// Session returns one session.
func (d *Daemon) Session(id string) (*control.Session, error) {
	d.mu.Lock()
	i := d.findLocked(id)
	if i < 0 {
		d.mu.Unlock()
		return nil, noSession(id)
	}
	s := d.sessions[i]
	d.mu.Unlock()
	info := s.info()
	return &info, nil
}

// Delete cancels a session to which nobody has connected and waits for its end, or forgets one that has ended. In between
// it is refused: processes depend on the session.
func (d *Daemon) Delete(ctx context.Context, id string) error {
	d.mu.Lock()
	i := d.findLocked(id)
	if i < 0 {
		d.mu.Unlock()
		return noSession(id)
	}
	s := d.sessions[i]
	if s.hasEnded() {
		d.sessions = slices.Delete(d.sessions, i, i+1)
		d.mu.Unlock()
		s.forget()
		return nil
	}
	d.mu.Unlock()

	if !s.cancelWaiting(errCancelled) {
		return &control.Error{
			Code:    control.CodeWouldLoseMemory,
			Message: fmt.Sprintf("processes of session %s still get their memory from it", id),
			Hint:    "end the processes, or wait until the session is complete",
		}
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Mark notes that something has happened to the processes of a recorded session.
func (d *Daemon) Mark(id string, m control.Mark) error {
	d.mu.Lock()
	i := d.findLocked(id)
	if i < 0 {
		d.mu.Unlock()
		return noSession(id)
	}
	s := d.sessions[i]
	d.mu.Unlock()
	if s.record == nil {
		return &control.Error{
			Code:    control.CodeNotRecorded,
			Message: fmt.Sprintf("session %s is not recorded", id),
			Hint:    "ask for a recording when you ask for the session",
		}
	}
	return s.record.mark(m)
}

func (d *Daemon) findLocked(id string) int {
	return slices.IndexFunc(d.sessions, func(s *session) bool { return s.id == id })
}

func noSession(id string) error {
	return &control.Error{
		Code:    control.CodeNotFound,
		Message: fmt.Sprintf("there is no session %q", id),
		Hint:    "thaw sessions lists them; ended ones are forgotten after a while",
	}
}

// Health tells whether the daemon takes sessions, and how many it holds.
func (d *Daemon) Health() control.Health {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := control.Health{
		Status: control.HealthOK, Version: d.opts.Version, PID: os.Getpid(), Store: d.opts.Store.Dir(),
		Started: d.started.UTC(), Sessions: d.live,
	}
	if d.draining {
		h.Status = control.HealthDraining
	}
	return h
}

// count counts the sessions in a state.
func (d *Daemon) count(state control.State) int {
	d.mu.Lock()
	sessions := slices.Clone(d.sessions)
	d.mu.Unlock()
	n := 0
	for _, s := range sessions {
		if s.state() == state {
			n++
		}
	}
	return n
}

// Dependents returns how many processes would lose memory if the daemon were stopped now.
func (d *Daemon) Dependents() int {
	d.mu.Lock()
	sessions := slices.Clone(d.sessions)
	d.mu.Unlock()
	n := 0
	for _, s := range sessions {
		n += s.pages.Stats().Live
	}
	return n
}

// newID returns an id that nobody can guess, so that an old id never names a new session.
func newID() string { return strings.ToLower(rand.Text()[:16]) }
