package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"thaw/control"
	"thaw/internal/testenv"
)

// optimizedTarget freezes a target as "web", makes thawd ready, and lets thaw learn what the target touches.
func optimizedTarget(t *testing.T) (*place, *frozen, *server, optimized) {
	t.Helper()
	testenv.NeedTracing(t)
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	s := p.serve(t, "--hold", "20s") // for whatever else the machine does
	p.freeze(t, f, "web")
	<-f.gone
	var o optimized
	// It says its sum, for which it reads all its memory; the request has its answer when the sum is there.
	ask := fmt.Sprintf(`n=$(wc -l <%[1]s); kill -USR1 $THAW_PID; while [ $(wc -l <%[1]s) -eq $n ]; do :; done`, f.sums)
	p.must(t, &o, "snapshot", "optimize", "web", "--runs", "2", "--request", ask, "--json")
	return p, f, s, o
}

func TestASnapshotIsOptimized(t *testing.T) {
	p, f, s, o := optimizedTarget(t)
	const pages = targetMemory / 4096
	if o.Recordings != 2 || len(o.Runs) != 2 || o.PagesMust < pages || o.PagesPacked == 0 || o.PagesPacked > o.PagesMust/2 {
		t.Errorf("optimize printed %+v", o)
	}
	for i, r := range o.Runs {
		if r.State != control.RecordingLearned || !r.Complete || r.PagesTouched < pages || r.PagesOfFiles == 0 {
			t.Errorf("run %d: %+v", i, r)
		}
	}
	var shown shownJSON
	p.must(t, &shown, "trace", "show", "--snapshot", "web", "--json")
	if shown.Recordings != 2 || shown.Kind != "working set" {
		t.Errorf("trace show printed %+v", shown)
	}

	restoreAnd := func(want bool, more ...string) *control.Session {
		t.Helper()
		var back restored
		p.must(t, &back, append([]string{"restore", "web", "--detach", "--json"}, more...)...)
		if (back.WorkingSet != nil) != want {
			t.Errorf("restore %q printed the working set %+v, want one: %v", more, back.WorkingSet, want)
		}
		f.mustRemember(t)
		got := s.waitState(t, back.Session, control.StateComplete)
		if (got.WorkingSet != nil) != want || got.Error != "" {
			t.Errorf("restore %q: working set %+v, want one: %v; error %q", more, got.WorkingSet, want, got.Error)
		}
		f.kill(t)
		return got
	}
	got := restoreAnd(true, "--copy")
	// CRIU itself touches the process's memory before it lets it run, and so it runs when all is there. Of the gaps between musts some pages
	// are zero, which nobody brings.
	if w := got.WorkingSet; w == nil || w.PagesMust != o.PagesMust || w.PagesBeforeRun < w.PagesMust-w.PagesMust/100 || w.HeldInVain || w.Recordings != 2 {
		t.Errorf("the working set was worth %+v", w)
	}
	// Little is left: what the recording could not see, or what chance touches.
	if c := got.Counters; c.DemandMissed > o.PagesMust/50 {
		t.Errorf("%d of %d pages were waited for although they are in no set", c.DemandMissed, o.PagesMust)
	}
	if w := restoreAnd(true).WorkingSet; w == nil || w.Populated == 0 {
		t.Errorf("nothing of what is mapped was entered into page tables: %+v", w)
	}
	restoreAnd(false, "--no-working-set")
	var gone dropped
	p.must(t, &gone, "trace", "drop", "web", "--json")
	if gone.HintBytes == 0 || gone.PackedBytes == 0 {
		t.Errorf("trace drop printed %+v", gone)
	}
	restoreAnd(false)
	if r := p.thaw(t, "trace", "show", "--snapshot", "web"); r.code != 3 {
		t.Errorf("show of a set that was dropped: exit code %d, want 3: %s", r.code, r.stderr)
	}
}

func TestASetOfAnotherHostIsMergedIntoASnapshots(t *testing.T) {
	p, _, _, _ := optimizedTarget(t)
	file := filepath.Join(p.dir, "store", "namespaces", "default", "snapshots", "web", "workingset")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := p.file(t, "other.ws", data)
	var shown shownJSON
	p.must(t, &shown, "trace", "merge", "--into", "web", other, "--json")
	if shown.Recordings != 4 {
		t.Errorf("after the merge the set has learned from %d recordings, want 4", shown.Recordings)
	}
	foreign := p.learned(t, "foreign.ws", 1, 2)
	if r := p.thaw(t, "trace", "merge", "--into", "web", foreign); r.code != 2 || !strings.Contains(r.stderr, "another snapshot") {
		t.Errorf("merge of a foreign set: exit code %d: %s", r.code, r.stderr)
	}
	var packed optimized
	p.must(t, &packed, "snapshot", "optimize", "web", "--pack-only", "--json")
	if packed.Recordings != 4 || packed.PagesPacked == 0 {
		t.Errorf("optimize --pack-only printed %+v", packed)
	}
}

func TestAContainerIsOptimized(t *testing.T) {
	testenv.NeedTracing(t)
	p := newPlace(t)
	c := newContainers(t, p)
	s := p.serve(t, "--hold", "20s")
	in, out := c.start(t, "one")
	talk(t, in, out, "before")
	p.must(t, nil, "snapshot", "create", "--container", "one", "--runc-root", c.root, "--name", "web")
	var o optimized
	p.must(t, &o, "snapshot", "optimize", "web", "--runc-root", c.root, "--bundle", c.bundle(t, "two"), "--runs", "2", "--json",
		"--request", `echo "hello from $THAW_CONTAINER"; read -r line && [ "$line" = "hello from $THAW_CONTAINER" ]`)
	if o.Recordings != 2 || o.PagesMust == 0 {
		t.Errorf("optimize printed %+v", o)
	}
	cmd, in, out := c.restore(t, "web", "three")
	talk(t, in, out, "after")
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("thaw restore: %v", err)
	}
	sessions := mustSessions(t, s)
	if w := sessions[len(sessions)-1].WorkingSet; w == nil || w.PagesBeforeRun < w.PagesMust || w.HeldInVain {
		t.Errorf("under runc the working set was worth %+v", w)
	}
	if ids, err := c.tools.Containers(); err != nil || len(ids) != 0 {
		t.Errorf("containers are left: %v, %v", ids, err)
	}
}

func TestOptimizeThatFailsLeavesNothing(t *testing.T) {
	testenv.NeedTracing(t)
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	s := p.serve(t)
	p.freeze(t, f, "web")
	<-f.gone
	for _, tc := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"a request that fails", []string{"web", "--request", "exit 9"}, 1, "exit 9"},
		{"a snapshot that there is not", []string{"nosuch", "--request", "true"}, 3, "nosuch"},
		{"no request", []string{"web"}, 2, "request"},
		{"no runs", []string{"web", "--request", "true", "--runs", "0"}, 2, "--runs"},
		{"nothing to pack", []string{"web", "--pack-only"}, 3, "web"},
		// The lease of the session keeps what is being recorded, and there is nothing to write a set to.
		{"a snapshot that is removed meanwhile", []string{"web", "--runs", "1", "--request", p.shell("snapshot", "rm", "web")}, 1, "web"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := p.thaw(t, append([]string{"snapshot", "optimize"}, tc.args...)...)
			if r.code == 0 || tc.code != 1 && r.code != tc.code || !strings.Contains(r.stderr, tc.says) {
				t.Errorf("exit code %d, want %d, and that it says %q: %s", r.code, tc.code, tc.says, r.stderr)
			}
			until(t, "no session lives", func() bool {
				for _, session := range mustSessions(t, s) {
					if !session.State.Ended() {
						return false
					}
				}
				return true
			})
		})
	}
}

// shell returns a command line for a shell that runs thaw.
func (p *place) shell(args ...string) string {
	cmd := p.command("thaw", args...)
	var line []string
	for _, v := range cmd.Env {
		if strings.HasPrefix(v, "THAW") {
			line = append(line, "'"+v+"'")
		}
	}
	return strings.Join(append(append(append([]string{"env"}, line...), cmd.Path), cmd.Args[1:]...), " ")
}
