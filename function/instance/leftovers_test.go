package instance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// expectNothingLeft fails the test at its end if it has left something on this machine: a process, a mount, a namespace, an interface, a
// cgroup, or a file. Only what has a name of ours is looked at, for other tests run beside.
func expectNothingLeft(t *testing.T) {
	t.Helper()
	before := leftovers(t)
	t.Cleanup(func() {
		for _, l := range leftovers(t) {
			if !slices.Contains(before, l) {
				t.Errorf("left: %s", l)
			}
		}
	})
}

// mark is in the names of all that the tests of this package make: containers are called after the function.
const mark = "thaw-probe-"

// leftovers lists what is there now.
func leftovers(t *testing.T) []string {
	t.Helper()
	var all []string
	add := func(kind, what string) { all = append(all, kind+" "+what) }

	// Of the processes of a container the environment tells, whatever their names are; a zombie has none.
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "PYTHONPATH="+sdkTarget+"\x00") {
			add("process", filepath.Base(filepath.Dir(path)))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, "/thaw-inst-") {
			add("mount", fmt.Sprint(fields[3], " at ", fields[4]))
		}
	}
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/" + mark + "*")
	more, _ := filepath.Glob("/sys/fs/cgroup/" + mark + "*")
	for _, path := range append(cgroups, more...) {
		add("cgroup", path)
	}
	links, _ := filepath.Glob("/sys/class/net/*")
	for _, path := range links {
		if name := filepath.Base(path); strings.HasPrefix(name, "tv") || strings.HasPrefix(name, "thawtest") {
			add("interface", name)
		}
	}
	files, _ := filepath.Glob("/var/tmp/thaw-inst-*")
	for _, path := range files {
		add("folder", path)
	}
	return all
}
