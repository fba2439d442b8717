package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"thaw/checkpoint"
	"thaw/internal/testenv"
)

// expectNothingLeft fails the test if there is something of an instance on this machine: a process, a mount, a namespace, an interface, a cgroup,
// a socket or a file. Only what belongs to this place is looked at, for other tests run beside.
func (f *served) expectNothingLeft(t *testing.T) {
	t.Helper()
	all := f.leftovers(t)
	for _, what := range all {
		t.Errorf("left: %s", what)
	}
	if len(all) > 0 {
		f.removeLeftovers(t)
	}
}

// thawdHistory is how many sessions thawd remembers, with their logs.
const thawdHistory = 64

func (f *served) leftovers(t *testing.T) (all []string) {
	t.Helper()
	// A process in a mount namespace of its own has this place in its table of mounts: its root is there.
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range append(processes, "/proc/self") {
		text, err := os.ReadFile(dir + "/mountinfo")
		if err != nil || !bytes.Contains(text, []byte(f.dir+"/")) {
			continue
		}
		if ns, err := os.Readlink(dir + "/ns/mnt"); err == nil && ns != ours {
			all = append(all, "process "+filepath.Base(dir))
		} else if dir == "/proc/self" {
			all = append(all, "mounts below "+f.dir)
		}
	}
	// Names of containers begin with that of the app; those of templates have the names of their snapshots.
	for _, pattern := range []string{"/sys/fs/cgroup/thaw-*", "/sys/fs/cgroup/*/thaw-*"} {
		groups, _ := filepath.Glob(pattern)
		for _, path := range groups {
			if strings.Contains(filepath.Base(path), f.mark) {
				all = append(all, "cgroup "+path)
			}
		}
	}
	if bridge := "/sys/class/net/" + bridgeName(); exists(bridge) {
		all = append(all, "interface "+bridge)
	}
	for _, pattern := range []string{
		"functions/instances/instances/*", "functions/instances/state/*", "run/*.networks/ns/*", "run/*.sock", "sessions/images-*", "sessions/*/*.sock",
	} {
		files, _ := filepath.Glob(filepath.Join(f.dir, pattern))
		for _, path := range files {
			all = append(all, "file "+path)
		}
	}
	// One folder for each session that stays visible, and thawd's lock.
	if sessions, _ := os.ReadDir(filepath.Join(f.dir, "sessions")); len(sessions) > thawdHistory+1 {
		all = append(all, fmt.Sprintf("%d folders of sessions", len(sessions)))
	}
	return all
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// removeLeftovers ends containers, and takes away mounts: the place could not be removed otherwise.
func (f *served) removeLeftovers(t *testing.T) {
	t.Helper()
	tools := &checkpoint.Tools{CRIU: testenv.CRIU(t), Runc: testenv.Runc(t), StateDir: filepath.Join(f.state, "instances", "state")}
	ids, _ := tools.Containers()
	for _, id := range ids {
		c, err := tools.Container(context.Background(), id)
		if err == nil {
			err = c.Delete(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	}
	if err := checkpoint.UnmountBelow(f.dir); err != nil {
		t.Error(err)
	}
}
