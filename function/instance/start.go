package instance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/function/rootfs"
	"thaw/pagestore"
	"thaw/snapshot"
)

// Start starts an instance cold and returns when the runner's process runs. On an error nothing of it is left.
func (h *Host) Start(ctx context.Context, spec Spec) (*Instance, error) {
	begin := time.Now()
	s, err := h.newShell(&spec, nil, spec.Network && spec.Open)
	if err != nil {
		return nil, err
	}
	i := &Instance{shell: s, state: StateStarted}
	i.timings.Shell = time.Since(begin)
	if spec.Open {
		err = s.connect(ctx)
	}
	if err == nil {
		i.container, err = h.tools.RunContainer(ctx, checkpoint.RunOptions{
			ID: s.id, Bundle: s.bundleDir(), Work: s.workDir(), Stdio: s.theirs,
		})
	}
	s.handedOver()
	if err == nil && spec.Open {
		err = s.makeDevices(i.container.PID)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start instance %s: %w", s.id, err), i.Close())
	}
	i.timings.Total = time.Since(begin)
	i.timings.Runtime = i.timings.Total - i.timings.Shell
	return i, nil
}

// Restore makes an instance from a snapshot and returns when its process runs, ready for Boot. The spec is that of the frozen one, as far as
// [Spec] says. On an error nothing of it is left.
func (h *Host) Restore(ctx context.Context, spec Spec, name pagestore.Name) (*Instance, error) {
	begin := time.Now()
	i := &Instance{state: StatePrepared, from: &name}
	spec.Namespace = name.Namespace
	layers, err := spec.layers(h, name)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", name, err)
	}
	if h.options.Thawd == nil {
		return nil, fmt.Errorf("restore %s: %w", name, ErrNoThawd)
	}
	// thawd reads ahead from the moment it knows, so it is told first.
	var pending *snapshot.Pending
	var g errgroup.Group
	g.Go(func() (err error) {
		pending, err = snapshot.Begin(ctx, h.options.Thawd, h.sessionRequest(name, spec.Root))
		if errors.Is(err, control.CodeUnavailable) {
			err = fmt.Errorf("%w: %w", ErrNoThawd, err)
		}
		i.timings.Session = time.Since(begin)
		return err
	})
	g.Go(func() (err error) {
		i.shell, err = h.newShell(&spec, layers, spec.Network && !spec.Detached)
		i.timings.Shell = time.Since(begin)
		return err
	})
	if err := g.Wait(); err != nil {
		if pending != nil {
			err = errors.Join(err, pending.Cancel(ctx))
		}
		if i.shell != nil {
			err = errors.Join(err, i.shell.remove())
		}
		return nil, fmt.Errorf("restore %s: %w", name, err)
	}
	if err := i.restore(ctx, pending); err != nil {
		return nil, errors.Join(fmt.Errorf("restore %s: %w", name, err), i.Close())
	}
	i.timings.Total = time.Since(begin)
	return i, nil
}

// ErrNoThawd is returned by [Host.Restore] and [Instance.Lost] if there is nobody who would bring the memory: it says nothing of the snapshot.
var ErrNoThawd = errors.New("there is no thawd")

// layers opens the layers of a snapshot, and those below.
func (s *Spec) layers(h *Host, name pagestore.Name) ([]*rootfs.Layer, error) {
	if err := errors.Join(s.check(), name.Validate()); err != nil {
		return nil, err
	}
	return s.Root.OpenLayers(h.layerDir(name))
}

// sessionRequest says what thawd should bring, and where the process will see what it maps.
func (h *Host) sessionRequest(name pagestore.Name, root *rootfs.Root) *control.SessionRequest {
	r := &control.SessionRequest{Snapshot: name.String(), Stream: control.StreamAll}
	if store := h.options.Store; store != nil {
		r.Binds = []control.Bind{{Source: store.PacksDir(name.Namespace), Target: packsTarget}}
		if lowers := root.Lowers(); len(lowers) == 1 {
			// Libraries are read ahead from there. What the instance has written over them is not seen here, and only read later.
			r.Binds = append(r.Binds, control.Bind{Source: lowers[0], Target: "/"})
		}
	}
	if h.options.Ask != nil {
		h.options.Ask(r)
	}
	return r
}

// restore has runc restore into the shell, and does what can be done at the same time.
func (i *Instance) restore(ctx context.Context, pending *snapshot.Pending) error {
	s, begin := i.shell, time.Now()
	var thawed *snapshot.Thawed
	var g errgroup.Group
	g.Go(func() (err error) {
		thawed, err = pending.Restore(ctx, s.host.tools, &snapshot.ContainerOptions{ID: s.id, Bundle: s.bundleDir(), Stdio: s.theirs})
		s.handedOver()
		return err
	})
	if !s.spec.Detached {
		g.Go(func() error { return s.connect(ctx) })
	}
	err := g.Wait()
	if thawed != nil {
		i.container, i.session, i.warnings = thawed.Container, thawed.Session.ID, thawed.Warnings
		i.marks = newMarks(s.host.options.Thawd, thawed.Session)
	}
	if err != nil {
		return err
	}
	i.timings.Runtime = time.Since(begin)
	if err := setHostname(i.container.PID, s.hostname()); err != nil || s.spec.Detached {
		return err
	}
	return s.makeDevices(i.container.PID)
}
