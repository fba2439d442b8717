package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/pagestore"
)

// A BootKind says how an instance came up.
type BootKind string

// How instances come up.
const (
	BootNone     BootKind = "none"     // it was there
	BootCold     BootKind = "cold"     // it was started
	BootTemplate BootKind = "template" // it was restored from what it shares with others, and loaded
	BootRestored BootKind = "restored" // it was restored from a snapshot of its own
)

// bootOne starts an instance in the best way that there is.
func (p *pool) bootOne(ctx context.Context) (*worker, error) {
	begin := time.Now()
	w, err := p.bestBoot(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, ErrClosing // it was given up
	}
	p.s.metrics.booted(p, w.boot, time.Since(begin), err)
	if err != nil {
		p.say("instance could not be started: %v", err)
		return nil, &BootError{p.key.app + "/" + p.key.object, err}
	}
	w.since = time.Now()
	return w, nil
}

// bestBoot restores, or starts cold if that is not possible: nobody has to do without an instance because a snapshot is bad. It returns what
// has been tried last with errors, too.
func (p *pool) bestBoot(ctx context.Context) (*worker, error) {
	env, err := p.bootEnv()
	if err != nil {
		return &worker{boot: BootCold}, err
	}
	snap := p.claim()
	if snap == nil {
		return p.coldBoot(ctx, env)
	}
	w, bad := p.restore(ctx, snap, env)
	if bad == nil {
		return w, nil
	}
	p.disclaim(snap.Name)
	if ctx.Err() != nil {
		return w, bad
	}
	p.s.metrics.fallbacks.WithLabelValues(p.key.app, p.key.object).Inc()
	p.say("restore from snapshot %s failed, the instance is started cold: %v", snap.Name, bad)
	p.s.opts.Logger.Warn("restore failed, starting cold", "app", p.key.app, "object", p.key.object, "snapshot", snap.Name, "err", bad)
	w, err = p.coldBoot(ctx, env)
	if err == nil {
		p.blame(snap.Name, bad) // a start without it has done better
	}
	return w, err
}

// snapshot returns the one to restore from, nil if there is none.
func (p *pool) snapshot() *registry.Snapshot {
	if !p.object.Snapshot {
		return nil
	}
	stats, err := p.s.opts.Registry.VersionStats(p.key.app, p.key.version)
	if err != nil {
		p.s.opts.Logger.Warn("snapshots are not known: instances start cold", "app", p.key.app, "err", err)
		return nil
	}
	return stats.Best(p.key.object, p.key.parameters, p.may.Features)
}

// restore makes an instance from a snapshot and boots it.
func (p *pool) restore(ctx context.Context, snap *registry.Snapshot, env map[string]*string) (*worker, error) {
	ctx, cancel := p.patience(ctx)
	defer cancel()
	w := &worker{boot: BootRestored, from: snap.Name}
	begin := time.Now()
	i, err := p.startFrom(ctx, snap)
	if err != nil {
		return w, err
	}
	if _, err := i.Boot(ctx, instance.BootOptions{Env: env, FrozenAt: snap.Created}); err != nil {
		return w, errors.Join(err, i.Close())
	}
	w.Instance, w.took = i, time.Since(begin)
	return w, nil
}

// coldBoot starts an instance, or restores a template and loads the object there.
func (p *pool) coldBoot(ctx context.Context, env map[string]*string) (*worker, error) {
	begin := time.Now()
	i, on, err := p.build(ctx, env, func(ctx context.Context, i Instance, on *registry.Snapshot) error {
		o := instance.BootOptions{Env: env}
		if on != nil {
			o.FrozenAt = on.Created
		}
		_, err := i.Boot(ctx, o)
		return err
	})
	w := &worker{Instance: i, boot: BootCold, took: time.Since(begin)}
	if on != nil {
		w.boot = BootTemplate
	}
	return w, err
}

// build makes an instance that has its object, on the template's snapshot if there is one, and has finish do the rest; nil: that is all. If
// the template fails it is done again without. The snapshot that it returns is what the instance stands on, nil if it is none.
//
// secrets are given to it at once if it will never be frozen.
func (p *pool) build(ctx context.Context, secrets map[string]*string, finish func(ctx context.Context, i Instance, on *registry.Snapshot) error) (Instance, *registry.Snapshot, error) {
	load := p.loadOptions(secrets)
	t := p.template()
	if t == nil {
		i, err := p.buildOn(ctx, nil, load, finish)
		return i, nil, err
	}
	snap := t.snapshot()
	if snap == nil {
		i, err := p.buildOn(ctx, nil, load, finish)
		return i, nil, err
	}
	begin := time.Now()
	i, bad := p.buildOn(ctx, snap, load, finish)
	if bad == nil {
		t.note(snap.Name, time.Since(begin), nil)
		return i, snap, nil
	}
	if ctx.Err() != nil {
		return nil, snap, bad
	}
	i, err := p.buildOn(ctx, nil, load, finish)
	if err == nil { // so it was not the author's code
		p.say("start on template %s failed, the instance was started without: %v", snap.Name, bad)
		t.note(snap.Name, 0, bad)
	}
	return i, nil, err
}

func (p *pool) buildOn(ctx context.Context, on *registry.Snapshot, load instance.LoadOptions, finish func(context.Context, Instance, *registry.Snapshot) error) (Instance, error) {
	ctx, cancel := p.patience(ctx)
	defer cancel()
	var i Instance
	var err error
	if on != nil {
		i, err = p.startFrom(ctx, on)
	} else {
		i, err = p.start(ctx, p.spec())
	}
	if err != nil {
		return nil, err
	}
	_, err = i.Load(ctx, load)
	if err == nil && finish != nil {
		err = finish(ctx, i, on)
	}
	if err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

// patience bounds what the author's code takes part in: a hook that hangs must not hold a place among those that boot for ever, nor keep a
// freeze from its end.
func (p *pool) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	d := p.s.opts.BootPatience
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("%w in %v", ErrSlow, d))
}

func (p *pool) loadOptions(secrets map[string]*string) instance.LoadOptions {
	load := instance.LoadOptions{File: p.record.Entry, Object: p.key.object, Env: make(map[string]*string)}
	if p.key.parameters != "" {
		load.Parameters = json.RawMessage(p.key.parameters)
	}
	for k, v := range p.object.Env {
		load.Env[k] = &v
	}
	if !p.object.Snapshot {
		maps.Copy(load.Env, secrets)
	}
	return load
}

// start starts an instance whose log is the app's.
func (p *pool) start(ctx context.Context, spec instance.Spec) (Instance, error) {
	return p.logged(spec, func(spec instance.Spec) (Instance, error) { return p.s.opts.Host.Start(ctx, spec) })
}

// startFrom restores an instance whose log is the app's.
func (p *pool) startFrom(ctx context.Context, snap *registry.Snapshot) (Instance, error) {
	name, err := pagestore.ParseName(snap.Name)
	if err != nil {
		return nil, err
	}
	spec := p.spec()
	spec.Detached = snap.Kind == registry.KindTemplate // enter(snap=True) is still to come
	return p.logged(spec, func(spec instance.Spec) (Instance, error) { return p.s.opts.Host.Restore(ctx, spec, name) })
}

// bootEnv returns what changes in the environment with each boot: secrets, and which GPUs the author wants to see, once there are any.
func (p *pool) bootEnv() (map[string]*string, error) {
	env := make(map[string]*string)
	if v, ok := p.object.Env[instance.HideGPUs]; ok {
		env[instance.HideGPUs] = &v
	}
	for _, name := range p.object.Secrets {
		value, ok := p.s.opts.Secret(name)
		if !ok {
			return nil, fmt.Errorf("%w: %s; the function server takes secrets from its environment", ErrSecret, name)
		}
		env[name] = &value
	}
	return env, nil
}

// logged makes an instance, and has what it prints go to the app's log.
func (p *pool) logged(spec instance.Spec, start func(instance.Spec) (Instance, error)) (Instance, error) {
	if p.s.opts.Log == nil {
		return start(spec)
	}
	log := p.s.opts.Log.writer(p.key.app, fmt.Sprintf("%s-%d", p.key.object, p.s.labels.Add(1)))
	spec.Log = log
	i, err := start(spec)
	if err != nil {
		log.flush()
		return nil, err
	}
	return &loggedInstance{i, log}, nil
}

// A loggedInstance ends its last line with its end: that of a process that dies may be without one.
type loggedInstance struct {
	Instance
	log *lineWriter
}

func (i *loggedInstance) Close() error {
	defer i.log.flush()
	return i.Instance.Close()
}

// say writes a line to the app's log, for its author.
func (p *pool) say(format string, args ...any) {
	if p.s.opts.Log == nil {
		return
	}
	w := p.s.opts.Log.writer(p.key.app, p.key.object)
	fmt.Fprintf(w, "thaw: "+format+"\n", args...)
}

// update changes what is known of the version's snapshots. What cannot be written is lost, and nothing depends on it.
func (p *pool) update(change func(*registry.Stats)) {
	err := p.s.opts.Registry.UpdateVersion(context.Background(), p.key.app, p.key.version, func(s *registry.Stats) error {
		change(s)
		return nil
	})
	if err != nil {
		p.s.opts.Logger.Warn("what is known of a version could not be written", "app", p.key.app, "err", err)
	}
}

// note notes that an instance has come up.
func (p *pool) note(w *worker) {
	p.update(func(s *registry.Stats) {
		if w.from == "" {
			s.AddCold(p.key.object, w.took)
		} else if snap := s.Snapshot(w.from); snap != nil {
			snap.CameUp(time.Now(), w.took)
		}
	})
}

// proven notes that a snapshot is good: a restored instance has finished a call. That one has come up says less, for what only a method touches
// is brought when it is called.
func (p *pool) proven(name string) {
	p.mu.Lock()
	p.freezes.aside = 0
	p.mu.Unlock()
	stats, err := p.s.opts.Registry.VersionStats(p.key.app, p.key.version)
	if err != nil {
		return // it is told where a snapshot is looked for
	}
	if snap := stats.Snapshot(name); snap == nil || snap.FailuresInRow == 0 {
		return // as nearly always: there is nothing to write
	}
	p.update(func(s *registry.Stats) {
		if snap := s.Snapshot(name); snap != nil {
			snap.Proven()
		}
	})
}

// errNoCall is why a snapshot is blamed for an instance that came up, and ended without a word.
var errNoCall = errors.New("the restored instance ended by itself before it had finished a call")

// judge blames the snapshot of a restored instance that has ended by itself, if it lacked memory, or was never seen to work. What ends one that
// has finished calls is in the author's code.
func (p *pool) judge(w *worker, works bool) {
	why := w.Lost(p.s.patience)
	switch {
	case why == nil && !works:
		why = errNoCall
	case why == nil, works && errors.Is(why, instance.ErrNoThawd):
		return
	}
	p.say("restored from snapshot %s: %v", w.from, why)
	p.blame(w.from, why)
}

// blame notes that a restore has failed, and sets the snapshot aside after a few. That there is no thawd is no fault of its.
func (p *pool) blame(name string, err error) {
	if errors.Is(err, instance.ErrNoThawd) {
		return
	}
	aside := false
	p.update(func(s *registry.Stats) {
		if snap := s.Snapshot(name); snap != nil && snap.State == registry.StateGood {
			snap.Failed(time.Now(), err.Error(), p.s.opts.Failures)
			aside = snap.State != registry.StateGood
		}
	})
	if aside {
		p.s.metrics.setAside.WithLabelValues(p.key.app, p.key.object).Inc()
		p.say("snapshot %s is set aside: %d restores in a row have failed", name, p.s.opts.Failures)
		p.againLater()
	}
}
