package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"thaw/cmd/internal/cli"
	"thaw/function"
)

// kill kills the runner of an instance.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("kill %d: %v", pid, err)
	}
}

func TestHandlersForkAndUseThreadsAndAreKilled(t *testing.T) {
	f := newServed(t)
	f.serveFunctions(t, "--freeze-after=-1")
	f.deploy(t, "busy")
	f.freezeNow(t, "busy/Busy", "")
	first := f.ask(t, "busy/Busy.ping")
	expectBoot(t, first, function.BootRestored)
	for method, want := range map[string]string{
		"thread": "1", "new_children": `["42\n", 7]`, "new_threads": "[0, 1, 2, 3, 4, 5, 6, 7]",
		"next_line": `["\"\"\"Handlers that fork, use threads, or are killed.\"\"\"\n", "\n"]`,
	} {
		if a := f.ask(t, "busy/Busy."+method); compact(a.Value) != compact([]byte(want)) || a.Instance != first.Instance {
			t.Errorf("%s: %s of %s, want %s of %s", method, a.Value, a.Instance, want, first.Instance)
		}
	}
	if got := valueOf[string](t, f.ask(t, "busy/Busy.old_child", "a line")); got != "a line\n" {
		t.Errorf("the child from before the freeze said %q", got)
	}

	t.Run("a runner that is killed while it is idle is replaced at the next call", func(t *testing.T) {
		kill(t, f.instances(t, "busy")[0].PID)
		until(t, "its end was seen", func() bool { return len(f.instances(t, "busy")) == 0 })
		a := f.ask(t, "busy/Busy.ping")
		expectBoot(t, a, function.BootRestored)
		if a.Instance == first.Instance {
			t.Error("the call was taken by the one that was killed")
		}
	})
	t.Run("a runner that is killed while it has a call fails that call alone", func(t *testing.T) {
		f.ask(t, "busy/Busy.ping")
		var r result
		var g sync.WaitGroup
		g.Go(func() { r = f.fails(t, "busy/Busy.hang") })
		f.awaitLog(t, "busy/Busy", "hanging")
		for _, i := range f.instances(t, "busy") {
			if i.Busy > 0 {
				kill(t, i.PID)
			}
		}
		g.Wait()
		if r.code != int(cli.Failure) || !strings.Contains(r.stderr, "the process has ended") {
			t.Errorf("the call: exit code %d: %s", r.code, r.stderr)
		}
		expectBoot(t, f.ask(t, "busy/Busy.ping"), function.BootRestored)
	})
}

func compact(b []byte) string { return strings.ReplaceAll(string(b), " ", "") }

func TestSecretsComeWithTheStart(t *testing.T) {
	var random [16]byte
	_, _ = rand.Read(random[:])
	token := "token-" + hex.EncodeToString(random[:])
	f := newServed(t)
	f.env = append(f.env, "E2E_TOKEN="+token)
	f.serveFunctions(t, noIdle, "--freeze-after=-1")
	f.deploy(t, "secret")
	type report struct {
		Before, Now, Given *string
		Marker             string
	}
	cold := f.ask(t, "secret/Knows.report")
	expectBoot(t, cold, function.BootCold)
	f.freezeNow(t, "secret/Knows", "")
	restored := f.ask(t, "secret/Knows.report")
	expectBoot(t, restored, function.BootRestored)
	of := valueOf[report](t, cold)
	if of.Before != nil || of.Now == nil || *of.Now != token {
		t.Errorf("the cold one has %s", cold.Value)
	}
	of = valueOf[report](t, restored)
	if of.Before != nil || of.Now == nil || *of.Now != token || of.Given == nil || *of.Given != token {
		t.Errorf("the restored one has %s", restored.Value)
	}
	ignorant := f.ask(t, "secret/Ignorant.report")
	if of := valueOf[report](t, ignorant); of.Now != nil {
		t.Errorf("an object that did not ask for the secret has %s", ignorant.Value)
	}
	if r := f.fails(t, "secret/Misses.report"); !strings.Contains(r.stderr, "E2E_MISSING") || strings.Contains(r.stderr, token) {
		t.Errorf("a secret that nobody has: %s", r.stderr)
	}

	// The store, and all that is beside it, has what was in memory, and not the secret.
	f.awaitNoInstances(t, "secret")
	if found := f.search(t, of.Marker); len(found) == 0 {
		t.Errorf("%s, which was in memory, is nowhere in the store: the search finds nothing", of.Marker)
	}
	if found := f.search(t, token); len(found) > 0 {
		t.Errorf("the secret is in %v", found)
	}
}

// search returns the files of the store and of the functions that have a text in them.
func (f *served) search(t *testing.T, text string) (found []string) {
	t.Helper()
	for _, dir := range []string{f.store, f.state} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(text)) {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func TestTwoFunctionsShareATemplate(t *testing.T) {
	f := newServed(t)
	f.serveFunctions(t, noIdle, "--freeze-after=-1")
	f.deploy(t, "template")
	first := f.freezeNow(t, "template/First", "")
	second := f.freezeNow(t, "template/second", "")
	if first.Template == "" || first.Template != second.Template || first.ForBase <= 0 {
		t.Errorf("templates are %q and %q, the first took %f s", first.Template, second.Template, first.ForBase)
	}
	share := float64(second.NewBytes) / float64(second.Bytes)
	t.Logf("of the second function's %d KiB %d KiB are new: %.1f %%; first %.2f s (template %.2f s), second %.2f s",
		second.Bytes>>10, second.NewBytes>>10, share*100, first.Took, first.ForBase, second.Took)
	if share > 0.15 {
		t.Errorf("%.1f %% of the second function's pages are new to the store, want at most 15 %%", share*100)
	}
	a := f.ask(t, "template/First.value")
	expectBoot(t, a, function.BootRestored)
	if got := valueOf[int](t, a); got != 499500 {
		t.Errorf("the first returns %d", got)
	}
	a = f.ask(t, "template/second", 3)
	expectBoot(t, a, function.BootRestored)
	if got := valueOf[string](t, a); got != "0.75" {
		t.Errorf("the second returns %s", got)
	}

	var seen struct {
		inspected
		Parent string `json:"parent"`
	}
	f.must(t, &seen, "snapshot", "inspect", second.Snapshot, "--json")
	if s := seen.Sharing; s.ParentPages*100 < s.StoredPages*80 {
		t.Errorf("the second shares %+v", s)
	}
	out := f.must(t, nil, "snapshot", "inspect", second.Snapshot).stdout
	for _, want := range []string{second.Template, "shared with parent"} {
		if !strings.Contains(out, want) {
			t.Errorf("inspect does not show %q:\n%s", want, out)
		}
	}
	for _, s := range f.current(t, "template").Snapshots {
		if s.Template != first.Template {
			t.Errorf("functions shows %s on the template %q, want %s", s.Name, s.Template, first.Template)
		}
	}
	// A third object, deployed with a change of the code, is started from the template.
	f.edit(t, "template", "app.py", "def second(", "def third(")
	f.deploy(t, "template")
	a = f.ask(t, "template/third", 5)
	expectBoot(t, a, function.BootTemplate)
	if got := valueOf[string](t, a); got != "1.25" {
		t.Errorf("the third returns %s", got)
	}
}
