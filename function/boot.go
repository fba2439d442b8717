package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	if err := p.s.boots.Acquire(ctx, 1); err != nil {
		return nil, ErrClosing
	}
	defer p.s.boots.Release(1)
	begin := time.Now()
	i, kind, err := p.bestBoot(ctx)
	p.s.metrics.booted(p, kind, time.Since(begin), err)
	if err != nil {
		p.say("instance could not be started: %v", err)
		return nil, &BootError{p.key.app + "/" + p.key.object, err}
	}
	return &worker{Instance: i, boot: kind, since: time.Now()}, nil
}

// bestBoot restores, or starts cold if that is not possible: nobody has to do without an instance because a snapshot is bad.
func (p *pool) bestBoot(ctx context.Context) (Instance, BootKind, error) {
	if snap := p.snapshot(); snap != nil {
		begin := time.Now()
		i, err := p.restore(ctx, snap)
		if err == nil {
			p.noteRestored(snap.Name, time.Since(begin))
			return i, BootRestored, nil
		}
		if ctx.Err() != nil {
			return nil, BootRestored, ErrClosing
		}
		p.noteFailed(snap.Name, err)
	}
	begin := time.Now()
	i, kind, err := p.coldBoot(ctx)
	if err != nil && ctx.Err() != nil {
		err = ErrClosing
	}
	if err == nil {
		p.noteCold(time.Since(begin))
	}
	return i, kind, err
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
func (p *pool) restore(ctx context.Context, snap *registry.Snapshot) (Instance, error) {
	name, err := pagestore.ParseName(snap.Name)
	if err != nil {
		return nil, err
	}
	env, err := p.bootEnv()
	if err != nil {
		return nil, err
	}
	spec := p.logged(p.spec())
	i, err := p.s.opts.Host.Restore(ctx, spec, name)
	if err != nil {
		return nil, err
	}
	if _, err := i.Boot(ctx, instance.BootOptions{Env: env, FrozenAt: snap.Created}); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

// coldBoot starts an instance, or restores a template and loads the object there.
func (p *pool) coldBoot(ctx context.Context) (Instance, BootKind, error) {
	env, err := p.bootEnv()
	if err != nil {
		return nil, BootCold, err
	}
	i, kind, err := p.loaded(ctx, env)
	if err != nil {
		return nil, kind, err
	}
	if _, err := i.Boot(ctx, instance.BootOptions{Env: env}); err != nil {
		return nil, kind, errors.Join(err, i.Close())
	}
	return i, kind, nil
}

// loaded returns an instance that has its object. secrets are given to it at once if it will never be frozen.
func (p *pool) loaded(ctx context.Context, secrets map[string]*string) (Instance, BootKind, error) {
	load := instance.LoadOptions{File: p.file(), Object: p.key.object, Env: make(map[string]*string)}
	if p.key.parameters != "" {
		load.Parameters = json.RawMessage(p.key.parameters)
	}
	for k, v := range p.object.Env {
		load.Env[k] = &v
	}
	if !p.object.Snapshot {
		for k, v := range secrets {
			load.Env[k] = v
		}
	}
	i, kind, err := p.started(ctx)
	if err != nil {
		return nil, kind, err
	}
	if _, err := i.Load(ctx, load); err != nil {
		return nil, kind, errors.Join(err, i.Close())
	}
	return i, kind, nil
}

// started returns an instance without an object: with the template's modules if there is a snapshot of it.
func (p *pool) started(ctx context.Context) (Instance, BootKind, error) {
	if t := p.template(); t != nil {
		if snap := t.snapshot(); snap != nil {
			i, err := t.restore(ctx, snap)
			if err == nil {
				return i, BootTemplate, nil
			}
			if ctx.Err() != nil {
				return nil, BootTemplate, err
			}
		}
	}
	i, err := p.s.opts.Host.Start(ctx, p.logged(p.spec()))
	return i, BootCold, err
}

// bootEnv returns what changes in the environment with each boot: secrets.
func (p *pool) bootEnv() (map[string]*string, error) {
	env := make(map[string]*string)
	for _, name := range p.object.Secrets {
		value, ok := p.s.opts.Secret(name)
		if !ok {
			return nil, fmt.Errorf("%w: %s", ErrSecret, name)
		}
		env[name] = &value
	}
	return env, nil
}

// logged has what an instance prints go to the app's log.
func (p *pool) logged(spec instance.Spec) instance.Spec {
	if p.s.opts.Log != nil {
		spec.Log = p.s.opts.Log.writer(p.key.app, fmt.Sprintf("%s-%d", p.key.object, p.s.labels.Add(1)))
	}
	return spec
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

func (p *pool) noteCold(took time.Duration) {
	p.update(func(s *registry.Stats) { s.AddCold(p.key.object, took) })
}

func (p *pool) noteRestored(name string, took time.Duration) {
	p.update(func(s *registry.Stats) {
		if snap := s.Snapshot(name); snap != nil {
			snap.CameUp(time.Now(), took)
		}
	})
}

// noteFailed notes a restore that has failed, and sets the snapshot aside after a few.
func (p *pool) noteFailed(name string, err error) {
	p.s.metrics.fallbacks.WithLabelValues(p.key.app, p.key.object).Inc()
	p.say("restore from snapshot %s failed, the instance is started cold: %v", name, err)
	p.s.opts.Logger.Warn("restore failed, starting cold", "app", p.key.app, "object", p.key.object, "snapshot", name, "err", err)
	aside := false
	p.update(func(s *registry.Stats) {
		if snap := s.Snapshot(name); snap != nil {
			before := snap.State
			snap.Failed(time.Now(), err.Error(), p.s.opts.Failures)
			aside = snap.State != before
		}
	})
	if aside {
		p.s.metrics.setAside.WithLabelValues(p.key.app, p.key.object).Inc()
		p.say("snapshot %s is set aside: %d restores in a row have failed", name, p.s.opts.Failures)
		p.againLater()
	}
}
