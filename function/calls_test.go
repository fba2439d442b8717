package function

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"thaw/function/rootfs"
	"thaw/function/runner"
	"thaw/function/version"
)

func TestCallsAndEndpoints(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		target := &Target{App: app, Object: "Cart"}
		r, o, err := w.server.Call(w.Context(), target, &runner.Call{Method: "run"})
		if err != nil || string(r.Value) != `"`+o.Instance+`"` {
			w.Errorf("Call = %v, %v, want the value that instance %v returned", r, err, o)
		}
		resp, _, err := w.server.HTTP(w.Context(), target, "page", &runner.Request{})
		if err != nil || resp.Status != 200 {
			w.Errorf("HTTP = %v, %v", resp, err)
		}
		for _, c := range []struct {
			t              Target
			method         string
			want           error
			text, httpText string
		}{
			{Target{App: "none", Object: "Cart"}, "run", ErrNotDeployed, "app none", "app none"},
			{Target{App: "no/name", Object: "Cart"}, "run", ErrNotDeployed, "no/name", "no/name"},
			{Target{App: app, Object: "None"}, "run", ErrNotDeployed, "None of app shop: not deployed: the app has Cart, Sized", "None of app shop"},
			{Target{App: app, Object: "Cart"}, "none", ErrNotDeployed, "method none of shop/Cart: not deployed: shop/Cart has run", "endpoint none of shop/Cart"},
			{Target{App: app, Object: "Cart", Parameters: []byte(`[1]`)}, "run", ErrParameters, "JSON object", "JSON object"},
			{Target{App: app, Object: "Cart", Parameters: []byte(`{} {}`)}, "run", ErrParameters, "there is more", "there is more"},
			{Target{App: app, Object: "Cart", Parameters: []byte(`{"size": 1}`)}, "run", ErrParameters, `"size"`, `"size"`},
			{Target{App: app, Object: "Sized"}, "run", ErrParameters, `needs the parameter "size"`, `needs the parameter "size"`},
		} {
			if _, _, err := w.server.Call(w.Context(), &c.t, &runner.Call{Method: c.method}); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				w.Errorf("Call of %v.%s = %v, want %v with %q", c.t, c.method, err, c.want, c.text)
			}
			if _, _, err := w.server.HTTP(w.Context(), &c.t, c.method, &runner.Request{}); !errors.Is(err, ErrNotDeployed) && !errors.Is(err, c.want) {
				w.Errorf("HTTP of %v.%s = %v, want %v with %q", c.t, c.method, err, c.want, c.httpText)
			}
		}
		if _, _, err := w.server.Call(w.Context(), target, &runner.Call{Method: "page"}); !errors.Is(err, ErrNotDeployed) || !strings.Contains(err.Error(), "it is a web endpoint") {
			w.Errorf("Call of an endpoint = %v", err)
		}
		if _, _, err := w.server.HTTP(w.Context(), target, "run", &runner.Request{}); !errors.Is(err, ErrNotDeployed) {
			w.Errorf("HTTP request to a method = %v", err)
		}
	}, object("Cart"), object("Sized", func(o *version.Object) {
		o.Parameters = []version.Parameter{{Name: "size", Required: true}}
	}))
}

func TestParametersInAnyOrderAreTheSame(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for _, p := range []string{
			`{"a": 1, "b": {"x": 1, "y": 2}}`, `{"b":{"y":2,"x":1},"a":1}`, // one
			`{"a": 2}`,         // another
			``, `{}`, ` null `, // none
		} {
			if _, _, err := w.server.Call(w.Context(), &Target{App: app, Object: "Cart", Parameters: []byte(p)}, &runner.Call{Method: "run"}); err != nil {
				w.Fatal(err)
			}
		}
		var got []string
		for _, i := range w.host.instances(opLoad) {
			got = append(got, string(i.loaded.Parameters))
		}
		if want := `{"a":1,"b":{"x":1,"y":2}} {"a":2} `; strings.Join(got, " ") != want {
			w.Errorf("instances were constructed with %q, want %q", got, want)
		}
	}, object("Cart", func(o *version.Object) { o.Parameters = []version.Parameter{{Name: "a"}, {Name: "b"}} }))
}

func TestInstancesTakeAsManyCallsAsTheyMay(t *testing.T) {
	inWorld(t, func(o *Options) { o.MaxInstances = 2 }, func(w *world) {
		g := w.host.hold(opCall)
		var calls []chan answer
		for range 7 { // three for each, and one that waits
			calls = append(calls, w.later(w.Context(), "Many"))
		}
		busy := 0
		for _, i := range w.server.Instances() {
			busy += i.Busy
		}
		if n := len(w.server.Instances()); n != 2 || busy != 6 {
			w.Errorf("%d instances have %d calls, want 2 with 6", n, busy)
		}
		g.pass(nil)
		if n := len(w.host.instances(opCall)); n != 2 {
			w.Errorf("%d instances had calls", n)
		}
		g.open()
		none := 0
		for _, c := range calls {
			a := <-c
			if a.err != nil {
				w.Error(a.err)
			} else if a.Boot == BootNone {
				none++
			}
		}
		if none == 0 {
			w.Error("each call waited for a boot")
		}
	}, object("Many"))
}

func TestCallsAreServedInOrder(t *testing.T) {
	inWorld(t, func(o *Options) { o.MaxInstances = 1 }, func(w *world) {
		g := w.host.hold(opCall)
		var calls []chan answer
		for range 5 {
			calls = append(calls, w.later(w.Context(), "Cart"))
		}
		for n, c := range calls {
			g.pass(nil)
			if pending(c) {
				w.Fatalf("call %d has no answer yet", n)
			}
			<-c
			for _, later := range calls[n+1:] {
				if !pending(later) {
					w.Errorf("a call that came after %d was served before it", n)
				}
			}
		}
	})
}

func TestBootsAtTheSameTimeAreBounded(t *testing.T) {
	inWorld(t, func(o *Options) { o.Boots = 2 }, func(w *world) {
		g := w.host.hold(opLoad)
		var calls []chan answer
		for n := range 5 {
			calls = append(calls, w.later(w.Context(), []string{"Cart", "Other"}[n%2]))
		}
		if n := len(w.host.instances()); n != 2 {
			w.Errorf("%d instances boot, want 2", n)
		}
		g.pass(nil)
		if n := len(w.host.instances()); n != 3 {
			w.Errorf("%d instances were begun when one is up, want 3", n)
		}
		g.open()
		for _, c := range calls {
			if a := <-c; a.err != nil {
				w.Error(a.err)
			}
		}
	}, object("Cart"), object("Other"))
}

func TestBootsThatNobodyNeedsAnyMoreDoNotBegin(t *testing.T) {
	inWorld(t, func(o *Options) { o.Boots = 1 }, func(w *world) {
		g := w.host.hold(opLoad)
		var calls []chan answer
		for range 10 {
			calls = append(calls, w.later(w.Context(), "Cart"))
		}
		g.pass(nil) // all are served by the one
		for _, c := range calls {
			if a := <-c; a.err != nil {
				w.Error(a.err)
			}
		}
		if n := len(w.host.instances()); n > 2 {
			w.Errorf("%d instances were begun for calls that one has served", n)
		}
		g.open()
	})
}

func TestFailingBootFailsOneCall(t *testing.T) {
	inWorld(t, func(o *Options) { o.MaxInstances = 1 }, func(w *world) {
		g := w.host.hold(opLoad)
		var calls []chan answer
		for range 3 {
			calls = append(calls, w.later(w.Context(), "Cart"))
		}
		g.pass(errTest)
		var boot *BootError
		if a := <-calls[0]; !errors.As(a.err, &boot) || boot.Target != "shop/Cart" || !errors.Is(a.err, errTest) {
			w.Errorf("first call = %v, want a BootError", a.err)
		}
		if !pending(calls[1]) || !pending(calls[2]) {
			w.Error("another call has an answer")
		}
		g.open()
		w.wantBoot(<-calls[1], BootCold)
		w.wantBoot(<-calls[2], BootNone)
	})
}

func TestFailuresWhileBootingLeaveNothing(t *testing.T) {
	for _, o := range []op{opStart, opLoad, opBoot} {
		inWorld(t, nil, func(w *world) {
			w.host.fail(o, errTest)
			if a := w.call("Cart"); !errors.Is(a.err, errTest) {
				w.Errorf("call = %v", a.err)
			}
			w.host.on(o, func(_ context.Context, i *fakeInstance) error { i.die(); return &runner.EndedError{} })
			var ended *runner.EndedError
			if a := w.call("Cart"); !errors.As(a.err, &ended) {
				w.Errorf("call of one that dies while it boots = %v", a.err)
			}
			if live := w.host.live(); len(live) != 0 {
				w.Errorf("%d instances are left", len(live))
			}
			w.host.on(o, nil)
			w.boots("Cart", BootCold)
		})
	}
}

func TestCallerWhoGivesUp(t *testing.T) {
	inWorld(t, func(o *Options) { o.MaxInstances = 1 }, func(w *world) {
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(w.Context())
		g := w.host.hold(opCall)
		first := w.later(ctx, "Cart")
		waits := w.later(ctx, "Cart")
		other := w.later(w.Context(), "Cart")
		cancel(gone)
		for _, c := range []chan answer{first, waits} {
			if a := <-c; !errors.Is(a.err, gone) {
				w.Errorf("call = %v, want %v", a.err, gone)
			}
		}
		settle()
		if i := w.server.Instances(); len(i) != 1 || i[0].Busy != 1 || !pending(other) {
			w.Errorf("instances are %+v, want one that is busy until the answer", i)
		}
		g.pass(nil)
		g.pass(nil)
		w.wantBoot(<-other, BootNone)
		if i := w.server.Instances(); i[0].Busy != 0 || i[0].Calls != 2 {
			w.Errorf("instances are %+v, want one at rest that had two calls", i)
		}
		g.open()
	})
}

func TestCallerWhoGivesUpWhileItsInstanceBoots(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		g := w.host.hold(opBoot)
		ctx, cancel := context.WithCancel(w.Context())
		c := w.later(ctx, "Cart")
		cancel()
		if a := <-c; !errors.Is(a.err, context.Canceled) {
			w.Errorf("call = %v", a.err)
		}
		g.open()
		w.wantBoot(w.call("Cart"), BootNone)
	})
}

func TestInstanceThatDies(t *testing.T) {
	inWorld(t, func(o *Options) { o.MaxInstances = 1 }, func(w *world) {
		w.wantBoot(w.call("Cart"), BootCold)
		w.endAll()
		w.wantLive()
		g := w.host.hold(opCall)
		inCall, waits := w.later(w.Context(), "Cart"), w.later(w.Context(), "Cart")
		w.host.live()[0].die()
		settle()
		var ended *runner.EndedError
		if a := <-inCall; !errors.As(a.err, &ended) {
			w.Errorf("call of an instance that dies = %v", a.err)
		}
		g.open()
		if a := <-waits; a.err != nil {
			w.Errorf("call that had waited = %v, want another instance", a.err)
		}
		settle()
		w.wantLive("Cart")
	})
}

func TestOptions(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for name, change := range map[string]func(*Options){
			"no registry": func(o *Options) { o.Registry = nil },
			"no host":     func(o *Options) { o.Host = nil },
			"nobody":      func(o *Options) { o.OpenRoot = nil },
			"no CPU":      func(o *Options) { o.CPU = nil },
			"negative":    func(o *Options) { o.MaxInstances = -1 },
			"absolute":    func(o *Options) { o.Devices = []string{"null"} },
		} {
			o := w.options
			change(&o)
			if s, err := New(&o); err == nil || !strings.Contains(err.Error(), name) {
				w.Errorf("New = %v, %v, want an error with %q", s, err, name)
			}
		}
	})
}

func TestRootThatCannotBeOpened(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		n := 0
		open := w.options.OpenRoot
		w.server.roots.open = func(r version.Root) (*rootfs.Root, error) {
			if n++; n == 1 {
				return nil, fmt.Errorf("open %s: %w", r.Path, errTest)
			}
			return open(r)
		}
		if a := w.call("Cart"); !errors.Is(a.err, errTest) {
			w.Errorf("call = %v", a.err)
		}
		w.boots("Cart", BootCold)
	})
}
