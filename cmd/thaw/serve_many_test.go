package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"thaw/function"
)

func TestManyColdBootsLeaveNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("restores an instance 250 times")
	}
	const inTurn, atOnce = 200, 50
	f := newServed(t)
	flags, address := bridgeFlags()
	s := f.serveFunctions(t, append(flags, noIdle, "--freeze-after=-1")...)
	f.deploy(t, "life")
	f.freezeNow(t, "life/Counter", "")
	f.awaitNoInstances(t, "life")
	before := openFiles(t, s.cmd.Process.Pid)

	begin := time.Now()
	seen := make(map[string]bool)
	for range inTurn {
		a, err := f.client.Call(t.Context(), f.app("life"), "Counter", "add", json.RawMessage("[1]"), nil)
		if err != nil {
			t.Fatal(err)
		}
		expectBoot(t, *a, function.BootRestored)
		countOf(t, *a, 11)
		seen[a.Instance] = true
		until(t, "the instance is on its way out", func() bool { return len(f.instances(t, "life")) == 0 })
	}
	if len(seen) != inTurn {
		t.Errorf("%d calls in turn were taken by %d instances", inTurn, len(seen))
	}
	t.Logf("%d cold boots in turn: %.1f s", inTurn, time.Since(begin).Seconds())

	// None gets its answer before all are there.
	begin = time.Now()
	m := newMeeting(t, address, atOnce)
	args := json.RawMessage(jsonOf(t, []any{m.host, m.port}))
	together(atOnce, func(int) {
		a, err := f.client.Call(t.Context(), f.app("life"), "Counter", "meet", args, nil)
		if err != nil {
			t.Error(err)
			return
		}
		expectBoot(t, *a, function.BootRestored)
		if string(a.Value) != `"hello\n"` {
			t.Errorf("one was told %s", a.Value)
		}
	})
	t.Logf("%d at the same time: %.1f s", atOnce, time.Since(begin).Seconds())

	// The server still runs.
	f.awaitNoInstances(t, "life")
	until(t, "nothing is left of the instances", func() bool { return len(f.leftoversOfInstances(t)) == 0 })
	if snap := f.awaitSnapshot(t, "life", "Counter"); snap.Uses != inTurn+atOnce || snap.Failures != 0 {
		t.Errorf("the snapshot was used %d times and failed %d times, want %d and 0", snap.Uses, snap.Failures, inTurn+atOnce)
	}
	// Idle connections of ours, and files that Go keeps, come and go.
	f.client.Close()
	until(t, "the server has no more descriptors than before", func() bool { return openFiles(t, s.cmd.Process.Pid) <= before+2 })
}

// openFiles returns how many descriptors a process has.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// leftoversOfInstances returns what is there of instances while the servers run.
func (f *served) leftoversOfInstances(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(f.leftovers(t), func(what string) bool {
		return strings.Contains(what, ".sock") || strings.Contains(what, "images-") || strings.HasPrefix(what, "interface ") || strings.HasSuffix(what, " folders of sessions")
	})
}
