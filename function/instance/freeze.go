package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/cpu"
	"thaw/function/rootfs"
	"thaw/pagestore"
	"thaw/snapshot"
)

// FreezeOptions say what becomes of a frozen instance.
type FreezeOptions struct {
	// Name is that of the snapshot, in the namespace of the spec.
	Name string
	// CPU are the features that its process may use. Nil: all that this host's CPU has.
	CPU cpu.Set
	// Progress is called up to ten times a second while pages enter the store. Nil: nobody is told.
	Progress func(pagestore.Progress)
}

// FreezeReport says what a freeze did.
type FreezeReport struct {
	Name   pagestore.Name
	Import *pagestore.Report
	Layer  *rootfs.Layer // what it had written

	Stopped time.Duration // how long the process stood still at most, from when CRIU began to stop it
	Writing time.Duration // how much of that CRIU needed to write pages
	Dump    time.Duration // runc and CRIU, from their start to their end
	Total   time.Duration
}

// Freeze takes a prepared instance into the store: its memory, and what it has written. The container is gone then; Close is still to be
// called. If the dump fails the instance is as it was, and can be booted. If what follows fails it is gone, and nothing is in the store.
func (i *Instance) Freeze(ctx context.Context, o FreezeOptions) (*FreezeReport, error) {
	if err := i.need("freeze", StatePrepared); err != nil {
		return nil, err
	}
	s := i.shell
	name := pagestore.Name{Namespace: s.spec.namespace(), Snapshot: o.Name}
	switch {
	case s.host.options.Store == nil:
		return nil, fmt.Errorf("freeze instance %s: %w", s.id, errNoStore)
	case s.spec.Open:
		return nil, fmt.Errorf("freeze instance %s: %w: it has had its network and devices from the start", s.id, ErrState)
	case i.Restored() && !s.spec.Detached:
		return nil, fmt.Errorf("freeze instance %s: %w: it was not restored to be frozen again, and has its network and devices", s.id, ErrState)
	}
	begin := time.Now()
	if err := i.settle(ctx); err != nil {
		return nil, fmt.Errorf("freeze instance %s: %w", s.id, err)
	}
	f := &freeze{instance: i, report: &FreezeReport{Name: name}}
	err := f.run(ctx, &o)
	f.report.Total = time.Since(begin)
	if err != nil {
		return nil, fmt.Errorf("freeze instance %s: %w", s.id, err)
	}
	return f.report, nil
}

// settleInterval is how often thawd is asked whether a restored instance has all its memory.
const settleInterval = 5 * time.Millisecond

// settle waits until a restored instance has all its memory: what is missing could not be frozen.
func (i *Instance) settle(ctx context.Context) error {
	if i.session == "" {
		return nil
	}
	tick := time.NewTicker(settleInterval)
	defer tick.Stop()
	for {
		now, err := i.shell.host.options.Thawd.Session(ctx, i.session)
		switch {
		case errors.Is(err, control.CodeNotFound):
			return nil // it has been over for long
		case err != nil:
			return err
		case now.State == control.StateFailed:
			return fmt.Errorf("its memory could not be brought: %s", now.Error)
		case now.State.Ended():
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// freeze is one freeze of an instance.
type freeze struct {
	instance *Instance
	report   *FreezeReport
}

func (f *freeze) run(ctx context.Context, options *FreezeOptions) error {
	i := f.instance
	s := i.shell
	o := snapshot.FreezeOptions{
		Container: s.id,
		TempDir:   s.dir,
		CPU:       options.CPU,
		Import:    snapshot.ImportOptions{Name: f.report.Name, Progress: options.Progress},
		Dumped:    f.capture,
	}
	if i.from != nil {
		o.Import.Parent = *i.from
	}
	report, err := snapshot.Freeze(ctx, s.host.options.Store, s.host.tools, o)
	if kept := (*snapshot.KeptError)(nil); errors.As(err, &kept) {
		// Images without the files that belong to them are of no use.
		i.move(StateFrozen)
		err = errors.Join(kept.Err, checkpoint.UnmountBelow(kept.ImagesDir), checkpoint.RemoveAll(kept.ImagesDir))
		if f.report.Layer != nil {
			err = errors.Join(err, rootfs.RemoveLayer(s.host.layerDir(f.report.Name)))
		}
		return err
	}
	if err != nil {
		return err
	}
	i.move(StateFrozen)
	f.report.Import, f.report.Dump, f.report.Stopped, f.report.Writing = report.Import, report.Dump, report.Stopped, report.Writing
	return nil
}

// capture takes what the instance has written. It is there before the snapshot: a layer without a snapshot is found and removed, and a
// snapshot without its layer could not be restored.
func (f *freeze) capture(ctx context.Context) error {
	s := f.instance.shell
	// runc forgets the container by itself when it is frozen; its cgroup is ours.
	if err := f.instance.container.Delete(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	dir := s.host.layerDir(f.report.Name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	// No snapshot has this name, so nobody needs a layer of it.
	if err := rootfs.RemoveLayer(dir); err != nil {
		return err
	}
	layer, err := s.overlay.Capture(dir, s.spec.Root, s.layers)
	f.report.Layer = layer
	return err
}
