package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"thaw/internal/testenv"
)

// newCgroup returns the folder of a new cgroup v2 with one process, and what ends the process and waits for its end.
func newCgroup(t *testing.T) (dir string, end func()) {
	t.Helper()
	testenv.NeedRoot(t)
	name := "/thaw-test-" + strconv.Itoa(os.Getpid()) + "-" + t.Name()
	dir = filepath.Join(unifiedMount(t), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cat := exec.Command("/bin/cat")
	stdin, err := cat.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		if err := errors.Join(stdin.Close(), cat.Wait()); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cat.Process.Pid)), 0o600); err != nil {
		end()
		t.Fatal(err)
	}
	return dir, end
}

func unifiedMount(t *testing.T) string {
	t.Helper()
	all, err := mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.fsType == "cgroup2" {
			return m.point
		}
	}
	t.Skip("needs cgroup v2, beside v1 or alone: a host with v1 alone has no cgroup.events to wait for") // and lists processes that end
	return ""
}

func TestACgroupIsRemovedWhenItsLastProcessHasEnded(t *testing.T) {
	dir, end := newCgroup(t)
	removed := make(chan error, 1)
	go func() { removed <- removeCgroup([]string{dir}) }()
	end()
	if err := <-removed; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cgroup is still there: %v", err)
	}
}

func TestTheWaitForProcessesOfACgroupEnds(t *testing.T) {
	dir, end := newCgroup(t)
	err := awaitEmpty(dir, time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("with a process in it: %v, want an error that names %s", err, dir)
	}
	end()
	if err := removeCgroup([]string{dir}); err != nil {
		t.Error(err)
	}
}

func TestACgroupThatIsRemovedMeanwhileHasNoProcesses(t *testing.T) {
	dir, end := newCgroup(t)
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if populated, err := isPopulated(events); err != nil || !populated {
		t.Errorf("with a process in it: %v, %v", populated, err)
	}
	end()
	if err := removeCgroup([]string{dir}); err != nil {
		t.Fatal(err)
	}
	if populated, err := isPopulated(events); err != nil || populated {
		t.Errorf("removed: %v, %v", populated, err)
	}
	if err := awaitEmpty(dir, time.Minute); err != nil {
		t.Errorf("wait for what is not there: %v", err)
	}
}
