package function

import (
	"context"
	"errors"
	"testing"

	"thaw/function/runner"
)

// Moments that no sequence of calls brings about for sure are made by hand here.

func (w *world) pool() *pool {
	w.Helper()
	p, err := w.server.pool(&Target{App: app, Object: "Cart"})
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func TestCallThatCameToAPoolThatHasEnded(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		p := w.pool()
		p.mu.Lock()
		p.retired, p.over = true, true // and still in the server's list
		p.mu.Unlock()
		if _, _, err := p.acquire(w.Context()); !errors.Is(err, errOver) {
			w.Errorf("acquire = %v, want errOver", err)
		}
		if err := p.beginFreeze(); !errors.Is(err, errOver) {
			w.Errorf("beginFreeze = %v, want errOver", err)
		}
		w.wantBoot(w.call("Cart"), BootCold)
		if w.pool() == p {
			w.Error("the pool that has ended is in use")
		}
		if err := p.lease.Close(); err != nil {
			w.Error(err)
		}
	})
}

func TestCallFromBehindBringsNoOldVersionBack(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old := w.pool().key
		w.deploy("2")
		p := w.pool()
		if got, err := w.server.serve(old); got != nil || err != nil {
			w.Errorf("serve of the old version = %v, %v, want nothing", got, err)
		}
		if !p.serves() {
			w.Error("the new version was retired")
		}
	})
}

func TestInstanceOfACallerWhoGivesUpJustThen(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.wantBoot(w.call("Cart"), BootCold)
		p := w.pool()
		p.mu.Lock()
		me := &waiter{make(chan grant, 1)}
		p.waiting = append(p.waiting, me)
		p.serveLocked(p.workers[0], BootNone)
		p.mu.Unlock()
		p.giveUp(me)
		if i := w.server.Instances(); i[0].Busy != 0 || i[0].Calls != 1 {
			w.Errorf("instance is %+v, want it at rest after its one call", i[0])
		}
	})
}

func TestDeadInstanceTakesNoCall(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.wantBoot(w.call("Cart"), BootCold)
		p := w.pool()
		p.mu.Lock()
		w.host.live()[0].die() // which nobody can notice while the lock is held
		if p.freeLocked() != nil {
			w.Error("a dead instance is free")
		}
		p.mu.Unlock()
	})
}

func TestOneBootServesAllThatItHasRoomFor(t *testing.T) {
	inWorld(t, func(o *Options) { o.MaxInstances = 1 }, func(w *world) {
		load, call := w.host.hold(opLoad), w.host.hold(opCall)
		var calls []chan answer
		for range 4 {
			calls = append(calls, w.later(w.Context(), "Many"))
		}
		load.open()
		if i := w.server.Instances(); len(i) != 1 || i[0].Busy != 3 {
			w.Errorf("instances are %+v, want one with three calls", i)
		}
		call.open()
		for _, c := range calls {
			if a := <-c; a.err != nil {
				w.Error(a.err)
			}
		}
	}, object("Many"))
}

func TestOldVersionIsNotFrozen(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
		g := w.host.hold(opLoad)
		running := w.later(w.Context(), "Cart")
		w.deploy("2")
		fresh := w.later(w.Context(), "Cart")
		g.open()
		w.wantBoot(<-running, BootCold)
		w.wantBoot(<-fresh, BootCold)
		settle()
		if n := len(w.host.instances(opFreeze)); n != 1 {
			w.Errorf("%d instances were frozen, want that of the new version", n)
		}
	})
}

func TestKeyedLocks(t *testing.T) {
	var l keyed[string]
	unlock, err := l.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("lock of what is held = %v", err)
	}
	unlock()
	again, err := l.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
	if len(l.held) != 0 {
		t.Errorf("%v is held", l.held)
	}
}

func TestErrorsKeepTheirCause(t *testing.T) {
	failed := &runner.FailedError{Stage: "load", Type: "ValueError", Message: "no"}
	err := error(&BootError{"shop/Cart", failed})
	var got *runner.FailedError
	if !errors.As(err, &got) || err.Error() != "start shop/Cart: load failed: ValueError: no" {
		t.Errorf("error is %v", err)
	}
}
