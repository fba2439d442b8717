package function

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/function/version"
	"thaw/pagestore"
)

// A template is what a pool's instances share with those of other objects and versions: a process that has imported modules.
type template struct {
	pool    *pool
	key     version.Key
	modules []string
}

// template returns the pool's; nil if it has none.
func (p *pool) template() *template {
	t := p.object.Template
	if t == nil {
		t = p.record.Description.Template
	}
	if t == nil || len(t.Modules) == 0 || !p.object.Snapshot {
		return nil
	}
	return &template{p, p.record.TemplateKey(t.Modules), t.Modules}
}

// snapshot returns the template's, nil if there is none that this host may have.
func (t *template) snapshot() *registry.Snapshot {
	stats, err := t.pool.s.opts.Registry.TemplateStats(t.key)
	if err != nil {
		t.pool.s.opts.Logger.Warn("template is not known", "template", t.key.Short(), "err", err)
		return nil
	}
	return stats.Best("", "", t.pool.may.Features)
}

// note notes how an instance has fared that was started on the template's snapshot; nil: it came up after that time.
func (t *template) note(name string, took time.Duration, err error) {
	t.update(func(s *registry.Stats) {
		if known := s.Snapshot(name); known == nil || errors.Is(err, instance.ErrNoThawd) {
			return
		} else if err != nil {
			known.Failed(time.Now(), err.Error(), t.pool.s.opts.Failures)
		} else {
			known.CameUp(time.Now(), took)
			known.Proven()
		}
	})
}

// ensure takes the template's snapshot if there is none.
func (t *template) ensure(ctx context.Context) error {
	unlock, err := t.pool.s.templates.lock(ctx, t.key)
	if err != nil {
		return err
	}
	defer unlock()
	if t.snapshot() != nil {
		return nil
	}
	return t.take(ctx)
}

func (t *template) take(ctx context.Context) error {
	p := t.pool
	spec, err := t.spec()
	if err != nil {
		return err
	}
	early, cancel := p.patience(ctx)
	defer cancel()
	i, err := p.start(early, spec)
	if err != nil {
		return err
	}
	_, err = i.Import(early, t.modules)
	var report *instance.FreezeReport
	if err == nil {
		name := "template." + t.key.Short() + "." + random()
		report, _, err = p.freezeInstance(ctx, i, instance.FreezeOptions{Name: name, CPU: p.may.Features})
	}
	p.closeFrozen(i)
	if err != nil {
		return fmt.Errorf("import %v: %w", t.modules, err)
	}
	snap := registry.Snapshot{
		Name: report.Name.String(), Kind: registry.KindTemplate, Key: t.key, CPU: p.may.Features, Bytes: report.Import.Pages * pagestore.PageSize,
		NewBytes: report.Import.NewPages * pagestore.PageSize, Created: time.Now(), State: registry.StateGood,
	}
	err = p.s.opts.Registry.UpdateTemplate(ctx, t.key, func(s *registry.Stats) error {
		s.Snapshots = append(s.Snapshots, snap)
		return nil
	})
	if err != nil {
		return errors.Join(err, p.s.removeSnapshots(snap.Name))
	}
	return nil
}

// spec is that of the pool, but with nothing of the app: others are restored from it with their own code in its place.
func (t *template) spec() (instance.Spec, error) {
	spec := t.pool.spec()
	spec.Name, spec.Code = "template-"+t.key.Short(), filepath.Join(t.pool.s.opts.Registry.Dir(), "no-code")
	spec.Network, spec.Devices = false, nil
	return spec, os.MkdirAll(spec.Code, 0o700)
}

func (t *template) update(change func(*registry.Stats)) {
	err := t.pool.s.opts.Registry.UpdateTemplate(context.Background(), t.key, func(s *registry.Stats) error {
		change(s)
		return nil
	})
	if err != nil {
		t.pool.s.opts.Logger.Warn("what is known of a template could not be written", "template", t.key.Short(), "err", err)
	}
}
