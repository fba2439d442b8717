package function

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// restLocked has an instance end after a while if it has nothing to do. The time begins anew.
func (p *pool) restLocked(w *worker) {
	if w.busy > 0 || w.gone || p.closed {
		return
	}
	idle := p.idle
	if p.retired {
		idle = 0
	}
	if w.rest != nil {
		w.rest.Stop()
	}
	var mine *time.Timer
	mine = time.AfterFunc(idle, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		// It may have come too late to be stopped.
		if w.rest != mine || !p.retired && len(p.workers) <= p.object.MinInstances {
			return
		}
		p.dropLocked(w)
		p.s.group.Go(func() { p.endAlone(w) }) // before Close waits for the group, which drops all instances first
	})
	w.rest = mine
}

// dropLocked takes an instance out: it gets no more calls, and another one may have its place. The caller ends or removes it.
func (p *pool) dropLocked(w *worker) {
	w.gone = true
	if w.rest != nil {
		w.rest.Stop()
		w.rest = nil
	}
	p.workers = slices.DeleteFunc(p.workers, func(o *worker) bool { return o == w })
	p.ending++
	p.growLocked()
}

// end stops an instance that was dropped, with its exit hooks, and removes it.
func (p *pool) end(w *worker) error {
	ctx, cancel := context.WithTimeout(p.s.patience, p.s.opts.StopPatience)
	defer cancel()
	if err := w.Stop(ctx); err != nil {
		p.s.opts.Logger.Warn("instance did not stop by itself", "instance", w.ID(), "err", err)
	}
	return p.remove(w)
}

// endAlone is end where nobody hears of an error.
func (p *pool) endAlone(w *worker) {
	if err := p.end(w); err != nil {
		p.s.opts.Logger.Error("something of an instance is left", "instance", w.ID(), "err", err)
	}
}

// remove removes an instance that was dropped.
func (p *pool) remove(w *worker) error {
	err := w.Close()
	if w.from != "" {
		p.disclaim(w.from)
	}
	p.mu.Lock()
	p.ending--
	p.mu.Unlock()
	p.leave()
	return err
}

// watch takes an instance out that has ended by itself.
func (p *pool) watch(w *worker) {
	select {
	case <-w.Ended():
	case <-p.s.running.Done():
		return
	}
	p.mu.Lock()
	mine, works := !w.gone, w.works
	if mine {
		p.dropLocked(w)
	}
	p.mu.Unlock()
	if !mine {
		return
	}
	p.say("instance has ended by itself")
	p.s.opts.Logger.Warn("instance has ended by itself", "app", p.key.app, "object", p.key.object, "instance", w.ID())
	p.s.metrics.ended.WithLabelValues(p.key.app, p.key.object).Inc()
	if w.from != "" {
		p.judge(w, works)
	}
	if err := p.remove(w); err != nil {
		p.s.opts.Logger.Error("something of an instance is left", "instance", w.ID(), "err", err)
	}
}

// retire has the pool end when its calls have: another version is current. The caller is in the server's group.
func (p *pool) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired {
		return
	}
	p.retired = true
	for _, w := range p.workers {
		p.restLocked(w)
	}
	p.s.group.Go(p.leave)
}

// revive takes a pool back that was to end: its version is current again. It reports whether that is possible.
func (p *pool) revive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.over {
		return false
	}
	p.retired = false
	for _, w := range p.workers {
		p.restLocked(w)
	}
	return true
}

// close ends all instances, and those who wait.
func (p *pool) close() error {
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
	defer p.leave()
	var g sync.WaitGroup
	errs := make([]error, len(workers))
	for i, w := range workers {
		g.Go(func() { errs[i] = p.end(w) })
	}
	g.Wait()
	return errors.Join(errs...)
}

// leave ends a pool that is to end, with the last of what it has. Whoever takes the last away calls it.
func (p *pool) leave() {
	p.mu.Lock()
	busy := len(p.workers)+len(p.waiting)+p.booting+p.ending > 0 || p.freezes.running
	last := (p.retired || p.closed) && !busy && !p.over
	if last {
		p.over = true
	}
	p.mu.Unlock()
	if !last {
		return
	}
	p.s.forget(p)
	if err := p.lease.Close(); err != nil {
		p.s.opts.Logger.Warn("lease on a version stays", "app", p.key.app, "err", err)
	}
}
