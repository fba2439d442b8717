package function

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"thaw/function/version"
)

// wantRemovable complains unless nobody has a lease on an old version.
func (w *world) wantRemovable(key version.Key, want bool) {
	w.Helper()
	if err := w.reg.Remove(context.Background(), app, key); err != nil {
		w.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(w.reg.Dir(), "removed"))
	if err != nil {
		w.Fatal(err)
	}
	if removed := len(left) == 0; removed != want {
		w.Errorf("files of version %s are gone: %t, want %t", key.Short(), removed, want)
	}
}

func TestOldVersionEndsWhenItsCallsHave(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old := w.current()
		w.wantBoot(w.call("Kept"), BootCold)
		w.wantBoot(w.call("Cart"), BootCold)
		g := w.host.hold(opCall)
		running := w.later(w.Context(), "Cart")
		w.deploy("2", object("Cart"))
		fresh := w.later(w.Context(), "Cart")
		if n := len(w.server.Instances()); n != 2 {
			w.Errorf("%d instances serve, want the one with a call and the new one", n)
		}
		g.open()
		w.wantBoot(<-running, BootNone)
		w.wantBoot(<-fresh, BootCold)
		settle()
		if i := w.server.Instances(); len(i) != 1 || i[0].Version == old {
			w.Errorf("instances are %+v, want one of the new version", i)
		}
		if n := len(w.host.instances(opStop)); n != 2 {
			w.Errorf("%d instances had their exit hooks run, want 2", n)
		}
		w.wantRemovable(old, true)
	}, object("Cart"), object("Kept", func(o *version.Object) { o.MinInstances = 1 }))
}

func TestLeaseLastsAsLongAsExitHooks(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old := w.current()
		w.wantBoot(w.call("Cart"), BootCold)
		g := w.host.hold(opStop)
		w.deploy("2")
		w.wantBoot(w.call("Cart"), BootCold)
		w.wantRemovable(old, false)
		g.open()
		if err := w.reg.GC(w.Context()); err != nil {
			w.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Join(w.reg.Dir(), "removed")); len(left) != 0 {
			w.Error("the lease on the old version stays")
		}
	})
}

func TestOldVersionEndsAfterABootThatFails(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		old := w.current()
		g := w.host.hold(opLoad)
		c := w.later(w.Context(), "Cart")
		w.deploy("2")
		fresh := w.later(w.Context(), "Cart")
		g.pass(errTest)
		g.open()
		<-c
		<-fresh
		settle()
		w.wantRemovable(old, true)
	})
}

func TestOldVersionEndsAfterItsFreeze(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
		old := w.current()
		g := w.host.hold(opFreeze)
		w.wantBoot(w.call("Cart"), BootCold)
		w.deploy("2")
		w.wantBoot(w.call("Cart"), BootCold)
		w.wantRemovable(old, false)
		g.open() // and the snapshot of what is gone is removed
		if n, all := len(w.host.removed), len(w.host.snapshots); n != 1 || all != 1 {
			w.Errorf("%d snapshots were removed, %d are there, want one of each", n, all)
		}
		if err := w.reg.GC(w.Context()); err != nil {
			w.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Join(w.reg.Dir(), "removed")); len(left) != 0 {
			w.Error("the lease on the old version stays")
		}
	})
}

func TestVersionThatBecomesCurrentAgain(t *testing.T) {
	for _, drained := range []bool{false, true} {
		inWorld(t, func(o *Options) { o.Idle = time.Hour }, func(w *world) {
			first := w.current()
			g := w.host.hold(opCall)
			running := w.later(w.Context(), "Cart")
			second := w.deploy("2")
			fresh := w.later(w.Context(), "Cart")
			if drained {
				g.pass(nil)
				g.pass(nil)
			}
			w.deploy("1")
			again := w.later(w.Context(), "Cart")
			g.open()
			for _, c := range []chan answer{running, fresh, again} {
				if a := <-c; a.err != nil {
					w.Error(a.err)
				}
			}
			settle()
			for _, i := range w.server.Instances() {
				if i.Version != first {
					w.Errorf("an instance of version %s serves, want %s", i.Version.Short(), first.Short())
				}
			}
			// It lives as long as others do.
			time.Sleep(time.Minute)
			w.wantBoot(w.call("Cart"), BootNone)
			w.wantRemovable(second, true)
		})
	}
}

func TestRemovedAppEnds(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.wantBoot(w.call("Kept"), BootCold)
		if err := w.reg.RemoveApp(w.Context(), app); err != nil {
			w.Fatal(err)
		}
		if a := w.call("Kept"); !errors.Is(a.err, ErrNotDeployed) {
			w.Errorf("call = %v", a.err)
		}
		w.wantLive()
	}, object("Kept", func(o *version.Object) { o.MinInstances = 1 }))
}

func TestPoolsDoNotOutliveTheirVersion(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for _, text := range []string{"1", "2", "3", "1", "2"} {
			w.deploy(text)
			w.call("Cart")
		}
		if n := len(w.server.allPools()); n != 1 {
			w.Errorf("%d pools, want 1", n)
		}
	})
}
