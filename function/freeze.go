package function

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/pagestore"
)

// freezing is when a pool takes its next snapshot.
type freezing struct {
	boots   int  // cold ones so far
	next    int  // a freeze is due at so many
	failed  int  // in a row
	aside   int  // snapshots set aside since one was last seen to work
	running bool // one is being taken
}

// freezeIfDueLocked has a snapshot taken behind the boots if there have been enough cold ones.
func (p *pool) freezeIfDueLocked(boot BootKind) {
	f := &p.freezes
	if boot == BootRestored || !p.object.Snapshot || p.s.opts.FreezeAfter < 0 || p.closed || p.retired {
		return
	}
	if f.boots++; f.boots < f.next || f.running {
		return
	}
	f.running = true
	p.s.group.Go(p.freezeBehind)
}

// freezeBehind takes a snapshot unless there is one: cold boots are counted as long as they happen, and they happen beside a good snapshot,
// too, when a restore fails.
func (p *pool) freezeBehind() {
	if p.snapshot() == nil {
		_, _ = p.freeze(p.s.running) // the author and the log have been told
		return
	}
	p.mu.Lock()
	p.freezes.running = false
	p.mu.Unlock()
	p.leave()
}

// againLater has the next snapshot taken after as many cold boots as the first, and after twice as many each time that another one had
// to be set aside before it was seen to work: what fails after each restore would else be frozen again and again.
func (p *pool) againLater() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freezes.next = p.freezes.boots + p.s.opts.FreezeAfter<<min(p.freezes.aside, 10)
	p.freezes.aside++
}

// A Frozen is a snapshot that was taken.
type Frozen struct {
	registry.Snapshot
	Report *instance.FreezeReport
	// Took is how long it took from the start of the instance, Templates how much of that the template took, if it was made.
	Took, Templates time.Duration
	// Generators are those of random numbers that nobody has registered: each restore repeats their numbers.
	Generators []string
}

// Freeze takes a snapshot of the target's current version now, and of its template if it has one without a snapshot, and returns when it can
// be restored. Errors wrap ErrNotDeployed, ErrParameters, ErrNoSnapshots, ErrFreezing, ErrClosing, a *ProblemsError, or say what has failed.
func (s *Server) Freeze(ctx context.Context, t *Target) (*Frozen, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.group.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.running, func() { cancel(ErrClosing) })()
	for {
		p, err := s.pool(t)
		if err != nil {
			return nil, err
		}
		if !p.object.Snapshot {
			return nil, fmt.Errorf("%s: %w", t, ErrNoSnapshots)
		}
		if err := p.beginFreeze(); errors.Is(err, errOver) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		return p.freeze(ctx)
	}
}

// beginFreeze sets freezes.running.
func (p *pool) beginFreeze() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosing
	case p.over:
		return errOver
	case p.freezes.running:
		return ErrFreezing
	}
	p.freezes.running = true
	return nil
}

// freeze takes a snapshot with an instance of its own. The caller has set freezes.running.
func (p *pool) freeze(ctx context.Context) (*Frozen, error) {
	begin := time.Now()
	p.say("creating memory snapshot")
	f, err := p.takeSnapshot(ctx)
	givenUp := err != nil && ctx.Err() != nil
	p.frozen(err != nil && !givenUp)
	defer p.leave()
	if givenUp {
		return nil, context.Cause(ctx)
	}
	p.s.metrics.frozen(p, err)
	if err != nil {
		p.say("no memory snapshot: %v", err)
		p.s.opts.Logger.Warn("freeze failed", "app", p.key.app, "object", p.key.object, "err", err)
		return nil, err
	}
	f.Took = time.Since(begin)
	p.say("snapshot %s created in %.1f s; later instances are restored from it", f.Name, f.Took.Seconds())
	p.s.opts.Logger.Info("snapshot taken", "app", p.key.app, "object", p.key.object, "snapshot", f.Name, "seconds", f.Took.Seconds(), "bytes", f.Bytes, "new_bytes", f.NewBytes)
	return f, nil
}

// frozen clears freezes.running, and has the next one after a failure wait for twice as many boots as the one before.
func (p *pool) frozen(failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freezes.running = false
	if !failed {
		p.freezes.failed = 0
		return
	}
	p.freezes.failed++
	p.freezes.next = p.freezes.boots + max(p.s.opts.FreezeAfter, 1)<<min(p.freezes.failed, 10)
}

func (p *pool) takeSnapshot(ctx context.Context) (*Frozen, error) {
	f := &Frozen{}
	if t := p.template(); t != nil {
		begin := time.Now()
		err := t.ensure(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, err
		case err != nil:
			p.say("template: %v; the snapshot is taken without it", err)
		}
		f.Templates = time.Since(begin)
	}
	i, on, err := p.build(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	f.Report, f.Generators, err = p.freezeInstance(ctx, i, instance.FreezeOptions{Name: p.snapshotName(), CPU: p.may.Features})
	p.closeFrozen(i)
	if err != nil {
		return nil, err
	}
	for _, g := range f.Generators {
		p.say("%s: each restore repeats its numbers; register it with thaw.register_rng", g)
	}
	f.Snapshot = registry.Snapshot{
		Name: f.Report.Name.String(), Kind: registry.KindFunction, Key: p.key.version, Object: p.key.object, Parameters: p.key.parameters,
		CPU: p.may.Features, Bytes: f.Report.Import.Pages * pagestore.PageSize, NewBytes: f.Report.Import.NewPages * pagestore.PageSize,
		Created: time.Now(), State: registry.StateGood,
	}
	if on != nil {
		f.Template = on.Name
	}
	err = p.s.opts.Registry.UpdateVersion(ctx, p.key.app, p.key.version, func(s *registry.Stats) error {
		s.Snapshots = append(s.Snapshots, f.Snapshot)
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, p.s.removeSnapshots(f.Name))
	}
	p.removeReplaced()
	return f, nil
}

// closeFrozen removes an instance that was frozen, or could not be. What is left of it makes its snapshot no worse.
func (p *pool) closeFrozen(i Instance) {
	if err := i.Close(); err != nil {
		p.s.opts.Logger.Error("something of an instance is left", "instance", i.ID(), "err", err)
	}
}

// freezePatience bounds the freeze of a prepared instance: its dump, and the way of its pages into the store. That takes as long as the memory
// is large and the disk slow; an hour is 360 GB at 100 MB/s. What hangs for longer would keep all later freezes from their turn.
const freezePatience = time.Hour

// freezeInstance prepares an instance, whose hooks have the patience of a start, and freezes it. It returns what generators of random numbers
// nobody has registered.
func (p *pool) freezeInstance(ctx context.Context, i Instance, o instance.FreezeOptions) (*instance.FreezeReport, []string, error) {
	early, cancel := p.patience(ctx)
	defer cancel()
	ready, err := i.Prepare(early)
	if err != nil {
		return nil, nil, err
	}
	e := &ProblemsError{}
	for _, found := range ready.Problems {
		if found.Blocks {
			e.Problems = append(e.Problems, strings.TrimSuffix(fmt.Sprintf("%s: %s (%s)", found.Kind, found.What, found.Hint), " ()"))
		}
	}
	if len(e.Problems) > 0 {
		return nil, nil, e
	}
	var generators []string
	for _, g := range ready.Generators {
		generators = append(generators, g.Where+" ("+g.Type+")")
	}
	late, cancel := context.WithTimeoutCause(ctx, freezePatience, fmt.Errorf("%w in %v", ErrSlow, freezePatience))
	defer cancel()
	report, err := i.Freeze(late, o)
	return report, generators, err
}

// A ProblemsError says what of an instance cannot be frozen.
type ProblemsError struct{ Problems []string }

// Error names them all.
func (e *ProblemsError) Error() string {
	return "it cannot be frozen: " + strings.Join(e.Problems, "; ")
}

func (p *pool) snapshotName() string {
	return "fn." + short(p.key.app, 32) + "." + short(p.key.object, 32) + "." + p.key.version.Short() + "." + random()
}

func random() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // which does not fail
	return hex.EncodeToString(b[:])
}

// removeSnapshots removes snapshots from the store, by their full names.
func (s *Server) removeSnapshots(names ...string) (err error) {
	for _, text := range names {
		name, parseErr := pagestore.ParseName(text)
		if parseErr == nil {
			parseErr = s.opts.Host.RemoveSnapshot(context.Background(), name)
		}
		err = errors.Join(err, parseErr)
	}
	return err
}
