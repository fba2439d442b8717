package function

import (
	"context"
	"errors"
	"testing"
	"time"

	"thaw/function/runner"
)

func TestCloseWaitsForCallsAndExitHooks(t *testing.T) {
	inWorld(t, func(o *Options) { o.MaxInstances = 1 }, func(w *world) {
		call, stop := w.host.hold(opCall), w.host.hold(opStop)
		running, waits := w.later(w.Context(), "Cart"), w.later(w.Context(), "Cart")
		closed := make(chan error, 2)
		for range 2 {
			go func() { closed <- w.server.Close(context.Background()) }()
		}
		settle()
		if a := <-waits; !errors.Is(a.err, ErrClosing) {
			w.Errorf("call that waits = %v, want ErrClosing", a.err)
		}
		if a := w.call("Cart"); !errors.Is(a.err, ErrClosing) {
			w.Errorf("call that comes = %v, want ErrClosing", a.err)
		}
		if _, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Cart"}); !errors.Is(err, ErrClosing) {
			w.Errorf("Freeze = %v, want ErrClosing", err)
		}
		if !pending(running) || len(closed) > 0 {
			w.Error("Close has not waited for a call")
		}
		call.open()
		w.wantBoot(<-running, BootCold)
		if len(closed) > 0 {
			w.Error("Close has not waited for an exit hook")
		}
		stop.open()
		for range 2 {
			if err := <-closed; err != nil {
				w.Errorf("Close = %v", err)
			}
		}
		if i := w.host.live(); len(i) != 0 {
			w.Errorf("%d instances are left", len(i))
		}
	})
}

func TestCloseGivesUpBootsAndFreezes(t *testing.T) {
	for _, o := range []op{opStart, opLoad, opPrepare, opFreeze, opBoot, opRestore, opImport} {
		t.Run(string(o), func(t *testing.T) {
			inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
				if o == opRestore {
					w.boots("Cart", BootCold)
				}
				w.host.hold(o)
				c := w.later(w.Context(), "Cart")
				if pending(c) {
					w.later(w.Context(), "Cart")
				}
				settle()
				w.stop()
				if a := <-c; a.err != nil && !errors.Is(a.err, ErrClosing) {
					w.Errorf("call = %v, want ErrClosing", a.err)
				}
				if n := len(w.host.live()); n != 0 {
					w.Errorf("%d instances are left", n)
				}
			}, object("Cart", onTemplate))
		})
	}
}

func TestBootThatComesUpTooLateIsStopped(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		late := make(chan struct{})
		w.host.on(opBoot, func(context.Context, *fakeInstance) error { <-late; return nil }) // deaf to its context
		c := w.later(w.Context(), "Cart")
		go func() { time.Sleep(time.Second); close(late) }()
		w.stop()
		if a := <-c; !errors.Is(a.err, ErrClosing) {
			w.Errorf("call = %v, want ErrClosing", a.err)
		}
		if n := len(w.host.instances(opStop)); n != 1 {
			w.Errorf("%d instances had their exit hooks run, want 1", n)
		}
	})
}

func TestCloseKillsWhenItsContextEnds(t *testing.T) {
	for _, o := range []op{opCall, opStop} {
		inWorld(t, nil, func(w *world) {
			w.host.hold(o)
			c := w.later(w.Context(), "Cart")
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			begin := time.Now()
			if err := w.server.Close(ctx); err != nil {
				w.Errorf("Close = %v", err)
			}
			if took := time.Since(begin); took != time.Second {
				w.Errorf("Close returned after %v of the bubble's time, want 1 s", took)
			}
			var ended *runner.EndedError
			if a := <-c; o == opCall && !errors.As(a.err, &ended) {
				w.Errorf("call = %v, want that the instance has ended", a.err)
			}
		})
	}
}

func TestInstancesHaveTheirPatience(t *testing.T) {
	inWorld(t, func(o *Options) { o.StopPatience = 5 * time.Second; o.Idle = time.Minute }, func(w *world) {
		w.host.hold(opStop)
		w.wantBoot(w.call("Cart"), BootCold)
		time.Sleep(time.Minute + time.Second)
		settle()
		if n := len(w.host.live()); n != 1 {
			w.Errorf("%d instances, want the one whose exit hook runs", n)
		}
		// Close leaves it the time that it has.
		begin := time.Now()
		w.stop()
		if took := time.Since(begin); took <= 0 || took > 5*time.Second {
			w.Errorf("Close took %v", took)
		}
		if n := len(w.host.live()); n != 0 {
			w.Errorf("%d instances are left", n)
		}
	})
}

func TestFreezeOnDemandEndsWithTheServer(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.host.hold(opFreeze)
		c := make(chan error, 1)
		go func() {
			_, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Cart"})
			c <- err
		}()
		settle()
		w.stop()
		if err := <-c; !errors.Is(err, ErrClosing) {
			w.Errorf("Freeze = %v, want ErrClosing", err)
		}
	})
}

func TestCloseSaysWhatIsLeft(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.wantBoot(w.call("Cart"), BootCold)
		w.host.mu.Lock()
		w.host.closeErr = errTest
		w.host.mu.Unlock()
		for range 2 {
			if err := w.server.Close(context.Background()); !errors.Is(err, errTest) {
				w.Errorf("Close = %v, want %v", err, errTest)
			}
		}
		w.start()
	})
}
