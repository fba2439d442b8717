package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"thaw/function/cpu"
	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/function/rootfs"
	"thaw/function/sdk"
	"thaw/function/version"
)

// A pool has the instances of one object of one version, constructed with the same parameters.
//
// The fields without a comment are immutable.
type pool struct {
	s      *Server
	key    poolKey
	record *registry.Record
	object *version.Object
	lease  *registry.Lease
	root   *rootfs.Root
	may    cpu.Confinement // what its processes may use
	most   int             // instances
	idle   time.Duration

	mu      sync.Mutex
	workers []*worker // protected by mu; the one that was used last at the end
	waiting []*waiter // protected by mu; the one that came first at the beginning
	booting int       // protected by mu
	retired bool      // protected by mu; another version is current
	closed  bool      // protected by mu
	freezes freezing  // protected by mu
}

// A worker is an instance that serves.
type worker struct {
	Instance
	boot  BootKind
	since time.Time

	busy  int         // protected by pool.mu
	calls uint64      // protected by pool.mu
	gone  bool        // protected by pool.mu; it takes no more calls
	rest  *time.Timer // protected by pool.mu; ends it when it is idle for long
}

// A waiter is a call without an instance. Its channel has room for the answer.
type waiter struct{ got chan grant }

type grant struct {
	w   *worker
	err error
	// boot is what the call has waited for.
	boot BootKind
}

func newPool(s *Server, k poolKey) (_ *pool, err error) {
	record, err := s.opts.Registry.Version(k.app, k.version)
	if err != nil {
		return nil, err
	}
	object := record.Description.Object(k.object)
	if object == nil {
		return nil, fmt.Errorf("%s of app %s: %w", k.object, k.app, ErrNotDeployed)
	}
	if err := checkParameters(object, k.parameters); err != nil {
		return nil, err
	}
	root, err := s.roots.get(record.Root)
	if err != nil {
		return nil, err
	}
	lease, err := s.opts.Registry.Lease(k.app, k.version)
	if err != nil {
		return nil, err
	}
	p := &pool{s: s, key: k, record: record, object: object, lease: lease, root: root, most: s.opts.MaxInstances, idle: s.opts.Idle}
	p.may = confine(&record.CPU, s.opts.CPU)
	if object.IdleTimeout != nil {
		p.idle = time.Duration(*object.IdleTimeout * float64(time.Second))
	}
	p.freezes.next = s.opts.FreezeAfter
	return p, nil
}

// confine returns what processes of a version may use on a host: what the version may, as far as the host has it.
func confine(may *cpu.Confinement, host *cpu.Host) cpu.Confinement {
	return cpu.Confinement{
		Features: may.Features.Minus(may.Features.Minus(host.Features)),
		Masked:   may.Masked || len(host.Hidden) > 0,
	}
}

// checkParameters compares the names of parameters with those that the object takes. Their values are the constructor's business.
func checkParameters(o *version.Object, parameters string) error {
	given := make(map[string]json.RawMessage)
	if parameters != "" {
		if err := json.Unmarshal([]byte(parameters), &given); err != nil {
			return fmt.Errorf("%w: %w", ErrParameters, err)
		}
	}
	for name := range given {
		if !slices.ContainsFunc(o.Parameters, func(p version.Parameter) bool { return p.Name == name }) {
			return fmt.Errorf("%w: %s has no parameter %q", ErrParameters, o.Name, name)
		}
	}
	for _, p := range o.Parameters {
		if _, ok := given[p.Name]; p.Required && !ok {
			return fmt.Errorf("%w: %s needs the parameter %q", ErrParameters, o.Name, p.Name)
		}
	}
	return nil
}

// spec returns the kind of container that the pool's instances are.
func (p *pool) spec() instance.Spec {
	spec := instance.Spec{
		Name: short(p.key.app, 20) + "-" + short(p.key.object, 20), Root: p.root, Code: p.lease.Code(),
		SDK: sdk.Folder(p.s.opts.Registry.SDKs(), p.record.Runtime.SDKDigest), Env: p.may.Environment(),
		Network: p.s.opts.Network, Open: !p.object.Snapshot,
	}
	if p.object.CPU != nil {
		spec.Limits.CPUs = *p.object.CPU
	}
	if p.object.Memory != nil {
		spec.Limits.MemoryBytes = *p.object.Memory
	}
	spec.Limits.PIDs = maxProcesses
	if p.object.GPU != "" {
		spec.Devices = p.s.opts.Devices
	}
	return spec
}

// maxProcesses bounds the processes and threads of an instance, so that one cannot starve the node of them.
const maxProcesses = 4096

func short(s string, n int) string { return s[:min(len(s), n)] }

// file is the path of the app's module below the code folder.
func (p *pool) file() string { return filepath.Base(p.record.Entry) }

// acquire returns an instance with room for a call, which the caller releases. It starts one if there is none.
func (p *pool) acquire(ctx context.Context) (*worker, BootKind, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, "", ErrClosing
	}
	if w := p.freeLocked(); w != nil {
		p.takeLocked(w)
		p.mu.Unlock()
		return w, BootNone, nil
	}
	me := &waiter{make(chan grant, 1)}
	p.waiting = append(p.waiting, me)
	p.growLocked()
	p.mu.Unlock()
	select {
	case g := <-me.got:
		return g.w, g.boot, g.err
	case <-ctx.Done():
		p.giveUp(me)
		return nil, "", context.Cause(ctx)
	}
}

// giveUp takes a waiter back, and what it has been given meanwhile.
func (p *pool) giveUp(me *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiting, me); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		return
	}
	if g := <-me.got; g.w != nil {
		g.w.calls--
		p.releaseLocked(g.w)
	}
}

// freeLocked returns an instance with room: the one that was used last, so that others may rest.
func (p *pool) freeLocked() *worker {
	for _, w := range slices.Backward(p.workers) {
		if !w.gone && w.busy < max(p.object.Concurrency, 1) {
			return w
		}
	}
	return nil
}

func (p *pool) takeLocked(w *worker) {
	w.busy++
	w.calls++
	if w.rest != nil {
		w.rest.Stop()
		w.rest = nil
	}
	i := slices.Index(p.workers, w)
	p.workers = append(slices.Delete(p.workers, i, i+1), w)
}

// growLocked starts instances until each waiter has one to wait for, or there are as many as may be.
func (p *pool) growLocked() {
	room := max(p.object.Concurrency, 1)
	for p.booting*room < len(p.waiting) && p.booting+len(p.workers) < p.most && !p.closed {
		p.booting++
		p.s.group.Go(p.boot)
	}
}

// boot starts one instance, and gives it to those who wait.
func (p *pool) boot() {
	w, err := p.bootOne(p.s.running)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.booting--
	if err != nil {
		if len(p.waiting) > 0 {
			p.waiting[0].got <- grant{err: err}
			p.waiting = p.waiting[1:]
		}
		p.growLocked()
		return
	}
	p.workers = append(p.workers, w)
	p.s.group.Go(func() { p.watch(w) })
	p.serveLocked(w, w.boot)
	p.restLocked(w)
	p.freezeIfDueLocked(w.boot)
}

// serveLocked gives an instance to those who wait, as long as it has room.
func (p *pool) serveLocked(w *worker, boot BootKind) {
	for len(p.waiting) > 0 && !w.gone && w.busy < max(p.object.Concurrency, 1) {
		p.takeLocked(w)
		p.waiting[0].got <- grant{w: w, boot: boot}
		p.waiting = p.waiting[1:]
	}
}

func (p *pool) release(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseLocked(w)
}

func (p *pool) releaseLocked(w *worker) {
	w.busy--
	p.serveLocked(w, BootNone)
	p.restLocked(w)
}

// restLocked has an instance end after a while if it has nothing to do.
func (p *pool) restLocked(w *worker) {
	if w.busy > 0 || w.gone || p.closed {
		return
	}
	idle := p.idle
	if p.retired {
		idle = 0
	}
	w.rest = time.AfterFunc(idle, func() {
		p.mu.Lock()
		keep := w.busy > 0 || w.gone || p.closed || !p.retired && len(p.workers) <= p.object.MinInstances
		if !keep {
			p.dropLocked(w)
			p.s.group.Add(1) // while Close has not seen the pool closed
		}
		p.mu.Unlock()
		if !keep {
			defer p.s.group.Done()
			p.end(p.s.running, w)
		}
	})
}

// dropLocked takes an instance out: it gets no more calls.
func (p *pool) dropLocked(w *worker) {
	w.gone = true
	if w.rest != nil {
		w.rest.Stop()
	}
	p.workers = slices.DeleteFunc(p.workers, func(o *worker) bool { return o == w })
}

// end stops an instance, with its exit hooks, and removes it.
func (p *pool) end(ctx context.Context, w *worker) error {
	stopCtx, cancel := context.WithTimeout(ctx, p.s.opts.StopPatience)
	defer cancel()
	err := w.Stop(stopCtx)
	if err != nil {
		p.s.opts.Logger.Warn("instance did not stop by itself", "instance", w.ID(), "err", err)
	}
	if err := w.Close(); err != nil {
		p.s.opts.Logger.Error("something of an instance is left", "instance", w.ID(), "err", err)
		return err
	}
	p.leave()
	return nil
}

// leave ends a retired pool with its last instance.
func (p *pool) leave() {
	p.mu.Lock()
	over := p.retired && !p.closed && len(p.workers)+p.booting+len(p.waiting) == 0 && !p.freezes.running
	if over {
		p.closed = true
	}
	p.mu.Unlock()
	if over {
		p.s.forget(p)
		if err := p.lease.Close(); err != nil {
			p.s.opts.Logger.Warn("lease on a version stays", "app", p.key.app, "err", err)
		}
	}
}

// watch takes an instance out that has ended by itself.
func (p *pool) watch(w *worker) {
	select {
	case <-w.Ended():
	case <-p.s.running.Done():
		return
	}
	p.mu.Lock()
	mine := !w.gone
	if mine {
		p.dropLocked(w)
		p.growLocked()
	}
	p.mu.Unlock()
	if !mine {
		return
	}
	p.s.opts.Logger.Warn("instance has ended by itself", "app", p.key.app, "object", p.key.object, "instance", w.ID())
	p.s.metrics.ended.WithLabelValues(p.key.app, p.key.object).Inc()
	if err := w.Close(); err != nil {
		p.s.opts.Logger.Error("something of an instance is left", "instance", w.ID(), "err", err)
	}
	p.leave()
}

// retire has the pool end when its calls have: another version is current.
func (p *pool) retire() {
	p.mu.Lock()
	p.retired = true
	for _, w := range p.workers {
		if w.rest != nil && w.rest.Stop() {
			p.restLocked(w)
		}
	}
	p.mu.Unlock()
	p.s.group.Go(p.leave)
}

// close ends all instances, and those who wait.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	workers := slices.Clone(p.workers)
	for _, w := range workers {
		p.dropLocked(w)
	}
	for _, w := range p.waiting {
		w.got <- grant{err: ErrClosing}
	}
	p.waiting = nil
	p.mu.Unlock()
	var g sync.WaitGroup
	errs := make([]error, len(workers))
	for i, w := range workers {
		g.Go(func() { errs[i] = p.end(ctx, w) })
	}
	g.Wait()
	return errors.Join(append(errs, p.lease.Close())...)
}

func (p *pool) info() []InstanceInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]InstanceInfo, 0, len(p.workers))
	for _, w := range p.workers {
		out = append(out, InstanceInfo{
			App: p.key.app, Object: p.key.object, Version: p.key.version, ID: w.ID(), PID: w.PID(), Boot: w.boot, Since: w.since, Calls: w.calls, Busy: w.busy,
		})
	}
	return out
}
