package function

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"thaw/cpu"
	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/function/runner"
	"thaw/function/version"
)

func TestLaterBootsAreRestored(t *testing.T) {
	for _, c := range []struct {
		name   string
		after  int
		object version.Object
		want   []BootKind
		open   bool
	}{
		{"by default after two", 0, object("Cart"), []BootKind{BootCold, BootCold, BootRestored, BootRestored}, false},
		{"after the first if wanted", 1, object("Cart"), []BootKind{BootCold, BootRestored}, false},
		{"never if unwanted", -1, object("Cart"), []BootKind{BootCold, BootCold, BootCold, BootCold}, false},
		{"never without the flag", 1, object("Cart", func(o *version.Object) { o.Snapshot = false }), []BootKind{BootCold, BootCold, BootCold}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(o *Options) { o.FreezeAfter = c.after }, func(w *world) {
				w.boots("Cart", c.want...)
				for _, i := range w.host.instances() {
					if i.spec.Open != c.open {
						w.Errorf("instance has network and devices from the start: %t, want %t", i.spec.Open, c.open)
					}
				}
				for _, i := range w.host.instances(opFreeze) {
					if i.has(opBoot) {
						w.Error("an instance that serves was frozen")
					}
				}
			}, c.object)
		})
	}
}

func TestNoCallWaitsForAFreeze(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
		g := w.host.hold(opFreeze)
		w.boots("Cart", BootCold, BootCold, BootCold)
		if n := len(w.host.instances(opPrepare)); n != 1 {
			w.Errorf("%d instances are being frozen, want 1", n)
		}
		g.pass(nil)
		w.boots("Cart", BootRestored)
	})
}

func TestOneRestoreThatFailsTakesNoNewSnapshot(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
		w.boots("Cart", BootCold, BootRestored)
		w.host.fail(opRestore, errTest)
		w.boots("Cart", BootCold)
		w.host.on(opRestore, nil)
		w.boots("Cart", BootRestored)
		if n := len(w.stats(w.current()).Snapshots); n != 1 {
			w.Errorf("%d snapshots, want the one that there was", n)
		}
	})
}

func TestSnapshotThatFailsIsSetAsideAndReplaced(t *testing.T) {
	for _, fails := range []op{opRestore, opBoot} {
		t.Run("by "+string(fails), func(t *testing.T) {
			inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
				w.boots("Cart", BootCold, BootRestored)
				bad := w.stats(w.current()).Snapshots[0].Name
				// One that does well stands on it.
				stands := w.call("Cart")
				w.wantBoot(stands, BootRestored)
				hold := w.host.hold(opCall)
				busy := w.later(context.Background(), "Cart")
				w.host.on(fails, func(_ context.Context, i *fakeInstance) error {
					if i.from == bad {
						return errTest
					}
					return nil
				})
				var calls []chan answer
				for range DefaultFailures {
					calls = append(calls, w.later(context.Background(), "Cart"))
				}
				for _, i := range w.host.instances(opBoot) {
					if i.from == "" && i.closed == 0 && i.calls == 0 {
						w.Error("a cold instance has no call")
					}
				}
				hold.open()
				w.host.on(opCall, nil)
				for _, c := range calls {
					w.wantBoot(<-c, BootCold)
				}
				w.wantBoot(<-busy, BootNone)
				settle()
				snaps := w.stats(w.current()).Snapshots
				if len(snaps) != 2 || snaps[0].Name != bad || snaps[0].State != "set aside" || snaps[0].Reason != errTest.Error() || snaps[1].State != "good" {
					w.Fatalf("snapshots are %+v, want the bad one with its reason, and a good one", snaps)
				}
				if len(w.host.removed) != 0 {
					w.Errorf("%v was removed under an instance", w.host.removed)
				}
				w.endAll()
				if snaps := w.stats(w.current()).Snapshots; len(snaps) != 1 || len(w.host.removed) != 1 || w.host.removed[0] != bad {
					w.Errorf("with the last instance on it gone there are %+v, and %v was removed", snaps, w.host.removed)
				}
				w.boots("Cart", BootRestored)
			})
		})
	}
}

// dieInCalls has restored instances end in each call.
func (w *world) dieInCalls() {
	w.host.on(opCall, func(_ context.Context, i *fakeInstance) error {
		if i.from == "" {
			return nil
		}
		i.die()
		return &runner.EndedError{}
	})
}

func TestSnapshotIsSetAsideIfWhatComesUpFromItEndsInItsFirstCall(t *testing.T) {
	page := errors.New("page 7 of its memory could not be had")
	for _, c := range []struct {
		name   string
		lost   error
		reason string
	}{
		{"without a word", nil, errNoCall.Error()},
		{"for want of a page", page, page.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(o *Options) { o.FreezeAfter = 2 }, func(w *world) {
				w.boots("Cart", BootCold, BootCold, BootRestored)
				bad := w.stats(w.current()).Snapshots[0].Name
				w.dieInCalls()
				w.host.lost = c.lost
				for n := 1; n <= DefaultFailures; n++ {
					var ended *runner.EndedError
					if a := w.call("Cart"); !errors.As(a.err, &ended) {
						w.Errorf("call %d = %v, want that the instance has ended", n, a.err)
					}
					if s := w.stats(w.current()).Snapshot(bad); s.FailuresInRow != n || s.Reason != c.reason {
						w.Fatalf("after call %d the snapshot is %+v", n, s)
					}
				}
				if s := w.stats(w.current()).Snapshot(bad); s.State != registry.StateSetAside {
					w.Errorf("snapshot is %+v, want it set aside", s)
				}
				w.boots("Cart", BootCold)
			})
		})
	}
}

func TestSnapshotIsBlamedForTheEndOfAnInstanceOnlyIfItMayBeItsFault(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter, o.Failures = 1, 2 }, func(w *world) {
		failures := func(when string, all uint64, row int) {
			w.Helper()
			if s := w.stats(w.current()).Snapshots[0]; s.Failures != all || s.FailuresInRow != row || s.State != registry.StateGood {
				w.Errorf("%s: %+v, want %d failures, %d of them in a row", when, s, all, row)
			}
		}
		w.boots("Cart", BootCold)
		w.wantBoot(w.call("Cart"), BootRestored)
		w.dieInCalls()
		w.call("Cart")
		failures("one that had finished a call", 0, 0)

		w.call("Cart")
		failures("one that had not", 1, 1)

		// That one comes up says nothing, that a method raises says that it works.
		w.host.fail(opCall, &runner.CallError{Kind: "exception", Type: "ValueError"})
		w.call("Cart")
		failures("one whose method has raised", 1, 0)

		w.host.lost = errors.New("page 7 of its memory could not be had")
		w.dieInCalls()
		w.call("Cart")
		failures("one that had finished a call, and lacked a page", 2, 1)

		w.host.lost = instance.ErrNoThawd
		w.call("Cart")
		failures("one whose memory nobody was there to bring", 2, 1)
	})
}

func TestInstancesAreOfTheServersNamespace(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1; o.Namespace = "tenant" }, func(w *world) {
		w.boots("Cart", BootCold)
		all := slices.Concat(w.host.instances(opStart), w.host.instances(opFreeze))
		if len(all) < 2 {
			t.Fatalf("%d instances, want one that serves and one that was frozen", len(all))
		}
		for _, i := range all {
			if i.spec.Namespace != "tenant" {
				t.Errorf("an instance is of namespace %q", i.spec.Namespace)
			}
		}
	})
}

func TestWhatFailsAfterEachRestoreIsFrozenMoreAndMoreSeldom(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1; o.Failures = 1 }, func(w *world) {
		w.host.fail(opRestore, errTest)
		var freezes []int
		for range 16 {
			w.boots("Cart", BootCold)
			freezes = append(freezes, len(w.host.instances(opFreeze)))
		}
		// Each boot but the first tries the snapshot that there is; the boot that sees it fail counts as one towards the next.
		for i := range freezes[1:] {
			if grown := freezes[i+1] - freezes[i]; grown > 1 {
				t.Errorf("boot %d took %d snapshots", i+1, grown)
			}
		}
		if n := freezes[len(freezes)-1]; n < 3 || n > 6 {
			t.Errorf("16 boots that all failed to be restores took %d snapshots, want some, and fewer and fewer: %v", n, freezes)
		}
		w.host.on(opRestore, nil)
	})
}

func TestSnapshotIsNotBlamedForWhatFailsColdToo(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1; o.Failures = 1 }, func(w *world) {
		w.boots("Cart", BootCold, BootRestored)
		w.host.fail(opBoot, &runner.FailedError{Stage: runner.StageEnter, Type: "OSError"})
		var failed *runner.FailedError
		if a := w.call("Cart"); !errors.As(a.err, &failed) {
			w.Errorf("call = %v, want the author's error", a.err)
		}
		w.host.on(opBoot, nil)
		w.boots("Cart", BootRestored)
	})
}

func TestFreezeThatFailsIsTriedAgainAfterMoreBoots(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
		w.host.fail(opFreeze, errTest)
		var tries []int
		for range 8 {
			w.boots("Cart", BootCold)
			tries = append(tries, len(w.host.instances(opFreeze)))
		}
		if want := []int{1, 1, 2, 2, 2, 2, 3, 3}; !equal(tries, want) {
			w.Errorf("tries after each boot are %v, want %v", tries, want)
		}
	})
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestWhatCannotBeFrozenIsNamed(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.host.prepared = decode[runner.Prepared](w.T, `{"problems": [{"kind": "connection", "what": "10.0.0.1:5432", "hint": "close it", "blocks": true}]}`)
		_, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Cart"})
		var problems *ProblemsError
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), "connection: 10.0.0.1:5432 (close it)") {
			w.Errorf("Freeze = %v, want the connection named", err)
		}
		if n := len(w.host.instances(opFreeze)); n != 0 {
			w.Errorf("%d instances were frozen", n)
		}
		w.host.prepared = decode[runner.Prepared](w.T, `{"generators": [{"where": "app.RNG", "type": "numpy.random.Generator"}]}`)
		f, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Cart"})
		if err != nil || len(f.Generators) != 1 || f.Generators[0] != "app.RNG (numpy.random.Generator)" {
			w.Errorf("Freeze = %+v, %v, want the generator named", f, err)
		}
		w.boots("Cart", BootRestored)
	})
}

func TestFreezeOnDemand(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		target := &Target{App: app, Object: "Cart"}
		if _, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Plain"}); !errors.Is(err, ErrNoSnapshots) {
			w.Errorf("Freeze of one without the flag = %v", err)
		}
		g := w.host.hold(opFreeze)
		ctx, cancel := context.WithCancel(w.Context())
		first := make(chan error, 1)
		go func() {
			_, err := w.server.Freeze(ctx, target)
			first <- err
		}()
		settle()
		if _, err := w.server.Freeze(w.Context(), target); err == nil || !strings.Contains(err.Error(), "already") {
			w.Errorf("second Freeze at the same time = %v", err)
		}
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			w.Errorf("Freeze that was given up = %v", err)
		}
		g.open()
		f, err := w.server.Freeze(w.Context(), target)
		if err != nil {
			w.Fatal(err)
		}
		if snap := w.stats(w.current()).Snapshot(f.Name); snap == nil || snap.Bytes != 100*4096 || snap.NewBytes != 10*4096 {
			w.Errorf("snapshot is known as %+v", snap)
		}
	}, object("Cart"), object("Plain", func(o *version.Object) { o.Snapshot = false }))
}

func TestSecrets(t *testing.T) {
	wants := func(snapshot bool) version.Object {
		return object("Cart", func(o *version.Object) {
			o.Snapshot, o.Secrets, o.Env = snapshot, []string{"TOKEN"}, map[string]string{"MODE": "fast"}
		})
	}
	for _, snapshot := range []bool{true, false} {
		secrets := map[string]string{}
		inWorld(t, func(o *Options) {
			o.FreezeAfter, o.Failures = 1, 1
			o.Secret = func(name string) (string, bool) { v, ok := secrets[name]; return v, ok }
		}, func(w *world) {
			secrets["TOKEN"] = "s3cret"
			w.boots("Cart", BootCold)
			for _, i := range w.host.instances(opLoad) {
				if *i.loaded.Env["MODE"] != "fast" {
					w.Error("the object's own environment is not there at the load")
				}
				if atLoad := i.loaded.Env["TOKEN"] != nil; atLoad == snapshot {
					w.Errorf("secret at the load: %t, where a snapshot may be taken: %t", atLoad, snapshot)
				}
			}
			for _, i := range w.host.instances(opBoot) {
				if v := i.booted.Env["TOKEN"]; v == nil || *v != "s3cret" {
					w.Error("the secret is not there at the boot")
				}
			}
			delete(secrets, "TOKEN")
			if a := w.call("Cart"); !errors.Is(a.err, ErrSecret) || !strings.Contains(a.err.Error(), "TOKEN") {
				w.Errorf("call without the secret = %v", a.err)
			}
			// And the snapshot is as good as it was.
			secrets["TOKEN"] = "new"
			w.boots("Cart", map[bool]BootKind{true: BootRestored, false: BootCold}[snapshot])
		}, wants(snapshot))
	}
}

func TestTheAuthorsChoiceOfGPUsComesWithEachBoot(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
		w.boots("Cart", BootCold, BootRestored)
		for _, i := range w.host.instances(opBoot) {
			if v := i.booted.Env[instance.HideGPUs]; v == nil || *v != "1" {
				w.Errorf("instance from %q is booted without it", i.from)
			}
		}
	}, object("Cart", func(o *version.Object) { o.Env = map[string]string{instance.HideGPUs: "1"} }))
}

func TestHostsGetSnapshotsOfWhatTheyHave(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
		w.boots("Cart", BootCold, BootRestored)
		w.stop()
		// A weaker one, by its nature.
		w.options.CPU = &cpu.Host{Features: cpu.New("sse2")}
		w.start()
		w.boots("Cart", BootCold, BootRestored)
		frozen := w.host.instances(opFreeze)
		if weak := frozen[1]; !weak.frozen.CPU.Equal(cpu.New("sse2")) || len(weak.spec.Env) != 0 {
			w.Errorf("the weaker host froze %v with the environment %v", weak.frozen.CPU, weak.spec.Env)
		}
		w.stop()
		// One whose features are hidden: it has what the weaker one has, and must not use more.
		w.options.CPU = &cpu.Host{Features: cpu.New("avx", "sse2"), Hidden: cpu.New("avx2")}
		w.start()
		w.boots("Cart", BootRestored)
		if i := last(w.host.instances(opRestore)); i.spec.Env["GLIBC_TUNABLES"] == "" || i.from != "" && i.from != w.stats(w.current()).Snapshots[1].Name {
			w.Errorf("instance of %s has the environment %v", i.from, i.spec.Env)
		}
		w.stop()
		// One that has more than the version may use hides it.
		w.options.CPU = &cpu.Host{Features: cpu.New("avx", "avx2", "avx512f", "sse2")}
		w.start()
		w.boots("Cart", BootRestored)
		if i := last(w.host.instances(opRestore)); !strings.Contains(i.spec.Env["GLIBC_TUNABLES"], "-AVX512F") {
			w.Errorf("on a stronger host the environment is %v", i.spec.Env)
		}
	})
}

func last[T any](all []T) T { return all[len(all)-1] }

func TestNamesThatContainersDoNotTake(t *testing.T) {
	for name, want := range map[[2]string]string{
		{"shop", "Cart"}: "shop-Cart", {"_shop", "Cart"}: "fn_shop-Cart",
		{strings.Repeat("a", 64), strings.Repeat("b", 64)}: strings.Repeat("a", 20) + "-" + strings.Repeat("b", 20),
	} {
		if got := instanceName(name[0], name[1]); got != want {
			t.Errorf("instanceName(%q, %q) = %q, want %q", name[0], name[1], got, want)
		}
	}
}

func TestIdleInstancesEnd(t *testing.T) {
	timeout := 10.0
	inWorld(t, func(o *Options) { o.Idle = time.Minute }, func(w *world) {
		for _, name := range []string{"Cart", "Short", "Kept"} {
			w.wantBoot(w.call(name), BootCold)
		}
		w.wantLive("Cart", "Short", "Kept")
		time.Sleep(9 * time.Second)
		w.wantBoot(w.call("Short"), BootNone) // the time begins anew
		time.Sleep(9 * time.Second)
		settle()
		w.wantLive("Cart", "Short", "Kept")
		time.Sleep(time.Second)
		settle()
		w.wantLive("Cart", "Kept")
		time.Sleep(time.Hour)
		settle()
		w.wantLive("Kept")
		if stopped := w.host.instances(opStop); len(stopped) != 2 {
			w.Errorf("%d instances had their exit hooks run, want 2", len(stopped))
		}
		// It is kept for its version only.
		w.deploy("2")
		w.wantBoot(w.call("Cart"), BootCold)
		w.wantLive("Cart")
	}, object("Cart"), object("Short", func(o *version.Object) { o.IdleTimeout = &timeout }),
		object("Kept", func(o *version.Object) { o.MinInstances = 1 }))
}

func TestBusyInstancesDoNotEnd(t *testing.T) {
	inWorld(t, func(o *Options) { o.Idle = time.Minute }, func(w *world) {
		g := w.host.hold(opCall)
		one, two := w.later(w.Context(), "Many"), w.later(w.Context(), "Many")
		g.pass(nil)
		time.Sleep(time.Hour)
		settle()
		w.wantLive("Many")
		g.open()
		w.wantBoot(<-one, BootCold)
		w.wantBoot(<-two, BootNone)
		time.Sleep(time.Minute)
		settle()
		w.wantLive()
	}, object("Many"))
}

// wantLive complains unless the instances that serve are one of each of these.
func (w *world) wantLive(objects ...string) {
	w.Helper()
	var got []string
	for _, i := range w.server.Instances() {
		got = append(got, i.Object)
	}
	if strings.Join(got, " ") != strings.Join(objects, " ") {
		w.Errorf("instances of %v serve, want %v", got, objects)
	}
	if n := len(w.host.live()); n != len(objects) {
		w.Errorf("%d instances are there, want %d", n, len(objects))
	}
}

func TestAHookThatHangsIsGivenUp(t *testing.T) {
	inWorld(t, func(o *Options) { o.BootPatience = time.Minute }, func(w *world) {
		g := w.host.hold(opLoad)
		a := w.call("Cart")
		var boot *BootError
		if !errors.As(a.err, &boot) || !errors.Is(a.err, ErrSlow) {
			w.Errorf("a call to an instance that does not get ready: %v, want ErrSlow", a.err)
		}
		g.open()
		w.boots("Cart", BootCold)
	})
}

func TestAFreezeThatHangsIsGivenUpAndTriedAgain(t *testing.T) {
	for _, hangs := range []op{opPrepare, opFreeze} {
		t.Run("in "+string(hangs), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				g := w.host.hold(hangs)
				if _, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Cart"}); !errors.Is(err, ErrSlow) {
					w.Errorf("Freeze = %v, want ErrSlow", err)
				}
				g.open()
				w.wantLive()
				// That it has failed puts the next one off, and an old pool may end.
				w.boots("Cart", BootCold, BootCold, BootCold, BootCold, BootRestored)
			})
		})
	}
}

func TestARestoreThatHangsIsAColdStart(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter, o.BootPatience = 1, time.Minute }, func(w *world) {
		w.boots("Cart", BootCold)
		g := w.host.hold(opRestore)
		w.wantBoot(w.call("Cart"), BootCold)
		g.open()
	})
}
