package checkpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestScriptFreezesACgroupBeforeADumpAndAtNoOtherStage(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(dir string) *freezer
		files map[string]string // in the folder, before
		want  string            // of the file that is written
	}{
		"v1": {freezerV1, map[string]string{"freezer.state": "THAWED\n"}, "FROZEN\n"},
		"v2": {freezerV2, map[string]string{"cgroup.freeze": "0\n", "cgroup.events": "populated 1\nfrozen 1\n"}, "1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := c.make(t.TempDir())
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(f.dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			script := writeFile(t, "script", f.script())
			for _, stage := range []string{"network-lock", "pre-dump"} {
				cmd := exec.Command("sh", script)
				cmd.Env = []string{"CRTOOLS_SCRIPT_ACTION=" + stage}
				if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
					t.Fatalf("stage %s: %v: %s", stage, err, out)
				}
				want := c.files[f.file]
				if stage == "pre-dump" {
					want = c.want
				}
				if got, err := os.ReadFile(filepath.Join(f.dir, f.file)); err != nil || string(got) != want {
					t.Errorf("stage %s: %s has %q, %v, want %q", stage, f.file, got, err, want)
				}
			}
			if !f.frozenNow() {
				t.Error("it does not look frozen")
			}
			if err := f.thaw(); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(filepath.Join(f.dir, f.file)); !strings.HasPrefix(string(got), f.thawed) {
				t.Errorf("thawed: %s has %q", f.file, got)
			}
		})
	}
}

func TestCgroupThatIsGoneIsThawed(t *testing.T) {
	if err := freezerV1(filepath.Join(t.TempDir(), "none")).thaw(); err != nil {
		t.Error(err)
	}
}

func TestContainerStandsStillBeforeCRIUAsks(t *testing.T) {
	f := newFixture(t)
	f.freeze(t)
	log, err := os.ReadFile(filepath.Join(f.path("work-dump"), "dump.log"))
	if err != nil {
		t.Fatal(err)
	}
	// Otherwise it begins with FREEZING, or THAWED, and CRIU waits.
	if _, rest, found := strings.Cut(string(log), "freezer.state="); found && !strings.HasPrefix(rest, "FROZEN") {
		t.Errorf("CRIU found the freezer in the state %q", rest[:8])
	}
	for _, name := range []string{"stop-ahead", "stop-ahead.conf"} {
		if _, err := os.Lstat(filepath.Join(f.path("work-dump"), name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
}

// TestContainerThatIsFrozenIsNotLostByWhatIsLeftBehind has the name of a file taken by a folder while CRIU works, so that it cannot be removed. Who hears of an error
// removes the images, which are all that is left of the container.
func TestContainerThatIsFrozenIsNotLostByWhatIsLeftBehind(t *testing.T) {
	f := newFixture(t)
	name := filepath.Join(f.path("work-dump"), "stop-ahead.conf")
	c, _ := f.runWithScript(t, "[ \"$CRTOOLS_SCRIPT_ACTION\" != post-dump ] || { rm "+name+" && mkdir -p "+name+"/full; }")
	if err := f.tools.CheckpointContainer(t.Context(), c.ID, DumpOptions{Images: f.path("images"), Work: f.path("work-dump")}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(name, "full")); err != nil {
		t.Errorf("the name was not taken: %v", err)
	}
}

func TestContainerWhoseDumpFailsGoesOn(t *testing.T) {
	f := newFixture(t)
	// A stage at which the container stands still.
	c, s := f.runWithScript(t, "[ \"$CRTOOLS_SCRIPT_ACTION\" != network-lock ]")
	if err := f.tools.CheckpointContainer(t.Context(), c.ID, DumpOptions{Images: f.path("images"), Work: f.path("work-dump")}); err == nil {
		t.Fatal("the dump did not fail")
	}
	s.write(t, "still here")
	s.expect(t, "still here")
}

// runWithScript runs cat in a container with a script that CRIU runs at each stage, a line of shell.
func (f *fixture) runWithScript(t *testing.T, line string) (*Container, *streams) {
	t.Helper()
	script := f.path("script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+line+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	stdio, s := pipes(t)
	b := f.cat("one")
	b.CRIU.ActionScript = script
	c, err := f.tools.RunContainer(t.Context(), RunOptions{ID: "one", Bundle: f.write(t, "one", b), Work: f.path("work"), Stdio: stdio})
	if err != nil {
		t.Fatal(err)
	}
	deleteLater(t, c)
	return c, s
}
