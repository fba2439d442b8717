package function

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"thaw/cpu"
	"thaw/function/registry"
	"thaw/function/rootfs"
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

	mu sync.Mutex
	// protected by mu
	workers []*worker // the one that was used last at the end
	waiting []*waiter // the one that came first at the beginning
	booting int
	ending  int  // workers that were dropped, and are not removed yet
	retired bool // another version is current; it may become current again
	closed  bool // the server ends
	over    bool // nothing is left, and nothing comes any more
	freezes freezing
	claims  claims
}

// A worker is an instance that serves.
type worker struct {
	Instance
	boot  BootKind
	from  string        // the snapshot that it was restored from; empty: none of the pool's
	took  time.Duration // how long that one restore, or the cold boot, took
	since time.Time

	// protected by pool.mu
	busy  int
	calls uint64
	gone  bool        // it takes no more calls
	works bool        // it has finished a call
	rest  *time.Timer // ends it when it is idle for long; nil while it is not
}

// canTake reports whether there is room for a call. One that has died has none, even if nobody has noticed yet.
func (w *worker) canTake(room int) bool {
	select {
	case <-w.Ended():
		return false
	default:
		return !w.gone && w.busy < room
	}
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
		return nil, notDeployed(err)
	}
	object := record.Description.Object(k.object)
	if object == nil {
		return nil, noObject(&record.Description, k.object)
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
		return nil, notDeployed(err)
	}
	p := &pool{s: s, key: k, record: record, object: object, lease: lease, root: root, most: s.opts.MaxInstances, idle: s.opts.Idle}
	p.may = confine(&record.CPU, s.opts.CPU)
	if object.IdleTimeout != nil {
		p.idle = time.Duration(min(*object.IdleTimeout, longestIdle.Seconds()) * float64(time.Second))
	}
	p.freezes.next = s.opts.FreezeAfter
	return p, nil
}

// longestIdle is for ever, and a number of nanoseconds.
const longestIdle = 100 * 365 * 24 * time.Hour

// notDeployed tells a version that was removed meanwhile from a disk that fails.
func notDeployed(err error) error {
	if errors.Is(err, registry.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrNotDeployed, err)
	}
	return err
}

// room is how many calls an instance takes at the same time.
func (p *pool) room() int { return max(p.object.Concurrency, 1) }

// serves reports whether the pool is that of a current version, as far as anybody has said.
func (p *pool) serves() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.retired && !p.over
}

// acquire returns an instance with room for a call, which the caller releases. It starts one if there is none. The error is errOver if the
// pool has ended since the caller got it.
func (p *pool) acquire(ctx context.Context) (*worker, BootKind, error) {
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return nil, "", ErrClosing
	case p.over:
		p.mu.Unlock()
		return nil, "", errOver
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
		if w.canTake(p.room()) {
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
	for p.booting*p.room() < len(p.waiting) && p.booting+len(p.workers) < p.most && !p.closed {
		p.booting++
		p.s.group.Go(p.boot)
	}
}

// boot starts one instance when it is its turn, and gives it to those who wait.
func (p *pool) boot() {
	defer p.leave()
	if err := p.s.boots.Acquire(p.s.running, 1); err != nil {
		p.up(nil, ErrClosing)
		return
	}
	if p.superfluous() {
		p.s.boots.Release(1)
		return
	}
	w, err := p.bootOne(p.s.running)
	p.s.boots.Release(1)
	late := p.up(w, err)
	if err == nil {
		p.note(w) // nobody waits for the disk
	}
	if late {
		p.endAlone(w)
	}
}

// superfluous gives a boot up that has not begun if nobody waits for it any more: calls were served meanwhile, or have gone.
func (p *pool) superfluous() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if (p.booting-1)*p.room() < len(p.waiting) {
		return false
	}
	p.booting--
	return true
}

// up notes the end of a boot. It reports whether the instance comes too late, when the server ends: the caller ends it.
func (p *pool) up(w *worker, err error) (late bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.booting--
	switch {
	case err != nil:
		if len(p.waiting) > 0 {
			p.waiting[0].got <- grant{err: err}
			p.waiting = p.waiting[1:]
		}
		p.growLocked()
		return false
	case p.closed:
		w.gone = true
		p.ending++
		return true
	}
	p.workers = append(p.workers, w)
	p.s.group.Go(func() { p.watch(w) })
	p.serveLocked(w, w.boot)
	p.restLocked(w)
	p.freezeIfDueLocked(w.boot)
	return false
}

// serveLocked gives an instance to those who wait, as long as it has room.
func (p *pool) serveLocked(w *worker, boot BootKind) {
	for len(p.waiting) > 0 && w.canTake(p.room()) {
		p.takeLocked(w)
		p.waiting[0].got <- grant{w: w, boot: boot}
		p.waiting = p.waiting[1:]
	}
}

// release gives back what acquire has returned. It reports whether the call is the first that the instance has finished.
func (p *pool) release(w *worker, finished bool) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first = finished && !w.works
	w.works = w.works || finished
	p.releaseLocked(w)
	return first
}

func (p *pool) releaseLocked(w *worker) {
	w.busy--
	p.serveLocked(w, BootNone)
	p.restLocked(w)
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
