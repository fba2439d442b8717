package function

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"thaw/function/registry"
	"thaw/function/runner"
	"thaw/function/version"
)

var (
	modelSeed = flag.Uint64("model.seed", 0, "seed of the one run of TestModel; 0: some runs with seeds of their own")
	modelRuns = flag.Int("model.runs", 12, "runs of TestModel, each with a seed of its own")
)

// TestModel has a random sequence of calls, faults, deployments, deaths and freezes, and Close at some time, and looks at what must hold
// whatever happens. The fakes look at most of it: calls on one instance, instances of one pool, who is closed, what is removed.
func TestModel(t *testing.T) {
	if *modelSeed != 0 {
		runModel(t, *modelSeed)
		return
	}
	for range *modelRuns {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed) })
	}
}

func runModel(t *testing.T, seed uint64) {
	r := &locked{r: rand.New(rand.NewPCG(seed, 1))}
	change := func(o *Options) {
		o.FreezeAfter, o.MaxInstances, o.Boots, o.Failures = 1+r.n(3), 1+r.n(4), 1+r.n(4), 1+r.n(3)
		o.Idle, o.StopPatience = time.Duration(1+r.n(2000))*time.Millisecond, time.Duration(1+r.n(300))*time.Millisecond
	}
	plain := func(o *version.Object) { o.Snapshot = false }
	kept := func(o *version.Object) { o.MinInstances = 1 }
	objects := []version.Object{object("Cart", onTemplate), object("Many", onTemplate, kept), object("Plain", plain)}
	inWorld(t, change, func(w *world) {
		m := &model{world: w, r: r, objects: objects}
		w.host.most = w.options.MaxInstances
		w.host.onRestore = m.checkRestore
		faults := r.n(30)
		for _, o := range []op{opStart, opRestore, opImport, opLoad, opPrepare, opFreeze, opBoot, opCall, opStop} {
			w.host.on(o, m.hook(o, faults))
		}
		for range 150 {
			m.step()
		}
		if r.n(2) == 0 {
			m.quiesce()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.n(500))*time.Millisecond)
		defer cancel()
		if err := w.server.Close(ctx); err != nil {
			w.Errorf("Close = %v", err)
		}
		if n := len(w.host.live()); n != 0 {
			w.Errorf("%d instances outlive Close", n)
		}
		m.calls.Wait()
		if m.asked.Load() != m.answered.Load() {
			w.Errorf("%d calls have %d answers", m.asked.Load(), m.answered.Load())
		}
		if w.Failed() {
			w.Logf("again with -model.seed=%d", seed)
		}
	}, objects...)
}

// locked is a source of random numbers for several goroutines.
type locked struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (l *locked) n(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.IntN(n)
}

type model struct {
	*world
	r       *locked
	objects []version.Object

	calls           sync.WaitGroup
	asked, answered atomic.Int64
}

// hook has operations take some time, and fail or die in so many of a hundred cases.
func (m *model) hook(o op, faults int) hook {
	return func(ctx context.Context, i *fakeInstance) error {
		timer := time.NewTimer(time.Duration(m.r.n(100)) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-i.ended:
			return &runner.EndedError{}
		}
		switch n := m.r.n(200); {
		case n < faults:
			return errTest
		case n < 2*faults && o != opStart && o != opRestore:
			i.die()
			return &runner.EndedError{}
		}
		return nil
	}
}

func (m *model) step() {
	target := &Target{App: app, Object: m.objects[m.r.n(len(m.objects))].Name}
	switch n := m.r.n(100); {
	case n < 70:
		m.call(target)
	case n < 75:
		if live := m.host.instances(opBoot); len(live) > 0 {
			live[m.r.n(len(live))].die()
		}
	case n < 80:
		m.deploy(fmt.Sprint(m.r.n(3)), m.objects...)
	case n < 84:
		m.calls.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(m.r.n(1000))*time.Millisecond)
			defer cancel()
			_, _ = m.server.Freeze(ctx, target) // it may fail, but must end
		})
	case n < 95:
		time.Sleep(time.Duration(m.r.n(50)) * time.Millisecond)
	default:
		time.Sleep(time.Duration(m.r.n(3000)) * time.Millisecond)
	}
}

func (m *model) call(t *Target) {
	m.asked.Add(1)
	m.calls.Go(func() {
		defer m.answered.Add(1)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if m.r.n(4) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(m.r.n(400))*time.Millisecond)
			defer cancel()
		}
		r, o, err := m.server.Call(ctx, t, &runner.Call{Method: "run"})
		var ended *runner.EndedError
		switch {
		case err == nil:
			if string(r.Value) != `"`+o.Instance+`"` {
				m.Errorf("answer of %s is from %s", o.Instance, r.Value)
			}
		case errors.Is(err, errTest), errors.As(err, &ended), errors.Is(err, ErrClosing), errors.Is(err, context.DeadlineExceeded):
		default:
			m.Errorf("call = %v", err)
		}
	})
}

// quiesce waits until all calls have their answers, and looks at what is left.
func (m *model) quiesce() {
	m.calls.Wait()
	time.Sleep(10 * time.Second) // longer than instances are idle, stopped or frozen
	synctest.Wait()
	current := m.current()
	for _, i := range m.server.Instances() {
		if i.Object != "Many" || i.Busy != 0 {
			m.Errorf("instance %+v serves when nobody calls", i)
		}
	}
	if live, serving := len(m.host.live()), len(m.server.Instances()); live != serving {
		m.Errorf("%d instances are there, and %d serve", live, serving)
	}
	// Whatever there was before, a fault or not, a call is answered.
	for _, o := range []op{opStart, opRestore, opImport, opLoad, opPrepare, opFreeze, opBoot, opCall, opStop} {
		m.host.on(o, nil)
	}
	for _, o := range m.objects {
		if a := m.world.call(o.Name); a.err != nil {
			m.Errorf("call of %s without faults = %v", o.Name, a.err)
		}
	}
	for _, i := range m.server.Instances() {
		if i.Version != current {
			m.Errorf("after a call of the current version there is %+v", i)
		}
	}
	if m.kept() != m.inStore() {
		m.Errorf("%d snapshots are known, %d in the store", m.kept(), m.inStore())
	}
}

// checkRestore complains of a restore from a snapshot that was set aside before this moment.
func (m *model) checkRestore(name string) {
	for _, s := range m.known() {
		if s.Name == name && s.State == registry.StateSetAside && s.SetAside.Before(time.Now()) {
			m.Errorf("snapshot %s, which was set aside at %v, is used", name, s.SetAside)
		}
	}
}

// known returns all snapshots that the registry knows.
func (m *model) known() (all []registry.Snapshot) {
	a, err := m.reg.App(app)
	if err != nil {
		m.Error(err)
		return nil
	}
	for _, v := range a.Versions {
		if v.Err != nil {
			m.Error(v.Err)
			continue
		}
		all = append(all, v.Stats.Snapshots...)
	}
	keys, err := m.reg.Templates()
	if err != nil {
		m.Error(err)
	}
	for _, k := range keys {
		stats, err := m.reg.TemplateStats(k)
		if err != nil {
			m.Error(err)
			continue
		}
		all = append(all, stats.Snapshots...)
	}
	return all
}

func (m *model) kept() int { return len(m.known()) }

func (m *model) inStore() int {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	return len(m.host.snapshots)
}
