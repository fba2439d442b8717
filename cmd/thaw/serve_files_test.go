package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/function"
)

func TestFilesComeBackWithTheMemory(t *testing.T) {
	f := newServed(t)
	f.serveFunctions(t, "--freeze-after=-1")
	f.deploy(t, "files")
	f.freezeNow(t, "files/Files", "")
	want := map[string]any{
		"linked": "before the freeze", "mode": "0o640", "removed": false, "rest": "the freeze", "same": true, "deleted": "deleted and open",
		"named": "deleted with a name", "memory": "in memory", "app": true,
	}
	for n := range 2 {
		a := f.ask(t, "files/Files.look")
		expectBoot(t, a, function.BootRestored)
		if diff := cmp.Diff(want, valueOf[map[string]any](t, a)); diff != "" {
			t.Errorf("restore %d (-want +got):\n%s", n, diff)
		}
		// It goes on where it was, in a copy of its own.
		for _, line := range []string{"two", "three"} {
			a = f.ask(t, "files/Files.append", line)
		}
		if got := valueOf[string](t, a); got != "one\ntwo\nthree\n" {
			t.Errorf("restore %d: the file that was open for appending has %q", n, got)
		}
		f.ask(t, "files/Files.write", "/var/data/kept", "changed")
		for _, path := range []string{"/app/app.py", "/.thaw/python/thaw/__init__.py"} {
			if !valueOf[bool](t, f.ask(t, "files/Files.refused", path)) {
				t.Errorf("an instance can write to %s", path)
			}
		}
		for _, i := range f.instances(t, "files") {
			kill(t, i.PID)
		}
		f.awaitNoInstances(t, "files")
	}
}
