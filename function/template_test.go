package function

import (
	"context"
	"errors"
	"strings"
	"testing"

	"thaw/function/registry"
	"thaw/function/version"
)

// onTemplate says that an object is to be loaded on a template.
func onTemplate(o *version.Object) { o.Template = &version.Template{Modules: []string{"torch"}} }

func (w *world) templates() []registry.Snapshot {
	w.Helper()
	keys, err := w.reg.Templates()
	if err != nil || len(keys) != 1 {
		w.Fatalf("templates are %v, %v, want one", keys, err)
	}
	stats, err := w.reg.TemplateStats(keys[0])
	if err != nil {
		w.Fatal(err)
	}
	return stats.Snapshots
}

func TestTemplateIsTakenOnceForAll(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
		g := w.host.hold(opImport)
		one, two := w.later(w.Context(), "Cart"), w.later(w.Context(), "Other")
		w.wantBoot(<-one, BootCold)
		w.wantBoot(<-two, BootCold)
		g.open()
		imports := w.host.instances(opImport)
		if len(imports) != 1 {
			t.Fatalf("%d instances import for the template, want 1", len(imports))
		}
		if i := imports[0]; i.spec.Network || i.spec.Open || i.has(opLoad) || !strings.HasSuffix(i.spec.Code, "no-code") {
			w.Errorf("the template's instance is %+v, and did %v", i.spec, i.did)
		}
		template := w.templates()[0]
		snaps := w.stats(w.current()).Snapshots
		if len(snaps) != 2 {
			w.Fatalf("%d snapshots, want 2", len(snaps))
		}
		for _, s := range snaps {
			if s.Template != template.Name {
				w.Errorf("snapshot of %s is on template %q, want %q", s.Object, s.Template, template.Name)
			}
		}
		if template.Uses != 2 {
			w.Errorf("the template came up %d times, want 2", template.Uses)
		}
		w.endAll()
		w.boots("Cart", BootRestored)
		// A third one, of another version, starts on it.
		w.deploy("2", object("Third", onTemplate))
		w.wantBoot(w.call("Third"), BootTemplate)
		if i := w.server.Instances(); i[0].Boot != BootTemplate {
			w.Errorf("instance is %+v", i[0])
		}
		for _, i := range w.host.instances(opRestore, opLoad, opBoot) {
			if !i.booted.FrozenAt.Equal(template.Created) {
				w.Errorf("it was frozen at %v, want %v", i.booted.FrozenAt, template.Created)
			}
		}
		if n := len(w.host.instances(opImport)); n != 1 {
			w.Errorf("%d instances import for the template, want 1", n)
		}
	}, object("Cart", onTemplate), object("Other", onTemplate))
}

func TestTemplateOfTheApp(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.deployApp(version.Description{Template: &version.Template{Modules: []string{"numpy"}}}, "2")
		f, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Cart"})
		if err != nil || f.Template != w.templates()[0].Name {
			w.Errorf("Freeze = %+v, %v, want one on the template", f, err)
		}
	})
}

func TestTemplateThatCannotBeTaken(t *testing.T) {
	for _, o := range []op{opImport, opStart} {
		inWorld(t, func(o *Options) { o.FreezeAfter = 1 }, func(w *world) {
			w.host.on(o, func(_ context.Context, i *fakeInstance) error {
				if strings.HasPrefix(i.spec.Name, "template") {
					return errTest
				}
				return nil
			})
			w.boots("Cart", BootCold, BootRestored)
			if s := w.stats(w.current()).Snapshots; len(s) != 1 || s[0].Template != "" {
				w.Errorf("snapshots are %+v, want one without a template", s)
			}
		}, object("Cart", onTemplate))
	}
}

func TestTemplateThatHangsIsDoneWithout(t *testing.T) {
	for _, hangs := range []op{opImport, opFreeze} {
		t.Run("in "+string(hangs), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				free := make(chan struct{})
				w.host.on(hangs, func(ctx context.Context, i *fakeInstance) error {
					if !strings.HasPrefix(i.spec.Name, "template") {
						return nil
					}
					select {
					case <-free:
						return nil
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				})
				if f, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Cart"}); err != nil || f.Template != "" {
					w.Errorf("Freeze = %+v, %v, want one without a template", f, err)
				}
				close(free)
				if f, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Other"}); err != nil || f.Template == "" {
					w.Errorf("Freeze = %+v, %v, want one on the template", f, err)
				}
			}, object("Cart", onTemplate), object("Other", onTemplate))
		})
	}
}

func TestTemplateThatFails(t *testing.T) {
	for _, fails := range []op{opRestore, opLoad, opBoot} {
		t.Run("at "+string(fails), func(t *testing.T) {
			inWorld(t, func(o *Options) { o.FreezeAfter = 100; o.Failures = 2 }, func(w *world) {
				if _, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Other"}); err != nil {
					w.Fatal(err)
				}
				w.boots("Cart", BootTemplate)
				w.host.on(fails, func(_ context.Context, i *fakeInstance) error {
					if i.from != "" {
						return errTest
					}
					return nil
				})
				w.boots("Cart", BootCold, BootCold)
				if s := w.templates()[0]; s.State != registry.StateSetAside || s.Reason != errTest.Error() {
					w.Errorf("template is %+v, want it set aside", s)
				}
				restores := len(w.host.instances(opRestore))
				w.boots("Cart", BootCold)
				if n := len(w.host.instances(opRestore)); n != restores {
					w.Error("a template that was set aside is used")
				}
				w.host.on(fails, nil)
				if f, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Cart"}); err != nil || f.Template != w.templates()[1].Name {
					w.Errorf("Freeze = %+v, %v, want one on a new template", f, err)
				}
			}, object("Cart", onTemplate), object("Other", onTemplate))
		})
	}
}

func TestTemplateIsNotBlamedForTheAuthorsCode(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 100; o.Failures = 1 }, func(w *world) {
		if _, err := w.server.Freeze(w.Context(), &Target{App: app, Object: "Other"}); err != nil {
			w.Fatal(err)
		}
		w.host.fail(opLoad, errTest)
		if a := w.call("Cart"); !errors.Is(a.err, errTest) {
			w.Errorf("call = %v", a.err)
		}
		w.host.on(opLoad, nil)
		w.boots("Cart", BootTemplate)
	}, object("Cart", onTemplate), object("Other", onTemplate))
}
