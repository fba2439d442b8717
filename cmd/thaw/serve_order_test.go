package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/function"
)

// hooksOf returns the names of the hooks that have run in each instance of an object, by what they said in the log, and the names of the
// instances, in the order in which they came.
func (f *served) hooksOf(t *testing.T, target string) (instances []string, hooks map[string]string) {
	t.Helper()
	hooks = make(map[string]string)
	for _, l := range f.logged(t, target) {
		name, ok := strings.CutPrefix(l.Text, "* ")
		if !ok {
			continue
		}
		if hooks[l.Instance] == "" {
			instances = append(instances, l.Instance)
			hooks[l.Instance] = name
		} else {
			hooks[l.Instance] += " " + name
		}
	}
	return instances, hooks
}

func TestHooksRunInOrder(t *testing.T) {
	const (
		before   = "init base-snap override own-snap"
		freezing = "warm before-2 before-1"
		restored = "reconnect after-1 after-2"
		enter    = "base-enter own-enter"
		exit     = "base-exit own-exit"
	)
	f := newServed(t)
	f.serveFunctions(t, noIdle, "--freeze-after=-1")
	f.deploy(t, "order")
	type report struct {
		Seen       []string
		Restored   bool
		Generation string
		Age        *float64
	}
	cold := f.ask(t, "order/Derived.seen")
	f.awaitNoInstances(t, "order")
	f.freezeNow(t, "order/Derived", "")
	thawed := f.ask(t, "order/Derived.seen")
	again := f.ask(t, "order/Derived.seen")
	f.awaitNoInstances(t, "order")
	expectBoot(t, cold, function.BootCold)
	expectBoot(t, thawed, function.BootRestored)

	instances, hooks := f.hooksOf(t, "order/Derived")
	if len(instances) != 4 {
		t.Fatalf("the log has %q, want four instances", hooks)
	}
	for i, tt := range []struct{ which, want string }{
		{"cold", before + " " + enter + " " + exit},
		{"frozen", before + " " + freezing},
		{"restored", restored + " " + enter + " " + exit},
		{"restored again", restored + " " + enter + " " + exit},
	} {
		if diff := cmp.Diff(tt.want, hooks[instances[i]]); diff != "" {
			t.Errorf("hooks of the instance that was %s (-want +got):\n%s", tt.which, diff)
		}
	}

	// What is in the memory of one object.
	of := valueOf[report](t, cold)
	if got := strings.Join(of.Seen, " "); got != before+" "+enter || of.Restored || len(of.Generation) != 32 || of.Age != nil {
		t.Errorf("the cold one has %+v", of)
	}
	first, second := valueOf[report](t, thawed), valueOf[report](t, again)
	if got, want := strings.Join(first.Seen, " "), strings.Join([]string{before, freezing, restored, enter}, " "); got != want || !first.Restored || first.Age == nil {
		t.Errorf("the restored one has %+v, want %s", first, want)
	}
	if first.Generation == second.Generation || first.Generation == of.Generation {
		t.Errorf("generations are %s, %s and %s", of.Generation, first.Generation, second.Generation)
	}
}
