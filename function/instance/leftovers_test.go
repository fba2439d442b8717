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
func expectNothingLeft(t testing.TB) {
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

// function is what the tests of this package call theirs, and mark begins the names of all that is made for it.
const (
	function = "insttest"
	mark     = "thaw-" + function + "-"

	testBridge = "thawtest1"
	testSubnet = "10.213.77.0/28" // 0ad54d00
)

// leftovers lists what is there now.
func leftovers(t testing.TB) []string {
	t.Helper()
	var all []string
	add := func(kind, what string) { all = append(all, kind+" "+what) }

	memberships, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, path := range memberships {
		dir := filepath.Dir(path)
		// One that has ended, and that its parent has not looked at yet, has no program any more.
		_, ended := os.Readlink(filepath.Join(dir, "exe"))
		if text, err := os.ReadFile(path); err == nil && ended == nil && strings.Contains(string(text), "/"+mark) {
			add("process", filepath.Base(dir))
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
		// An interface is called after its address.
		if name := filepath.Base(path); name == testBridge || strings.HasPrefix(name, "tv") && strings.HasSuffix(name[:max(0, len(name)-2)], "0ad54d") {
			add("interface", name)
		}
	}
	files, _ := filepath.Glob("/var/tmp/thaw-inst-*")
	for _, path := range files {
		add("folder", path)
	}
	return all
}
