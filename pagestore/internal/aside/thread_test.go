package aside

import (
	"testing"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// priority returns the nice value and the class for the disk of the calling thread.
func priority(t *testing.T) (value, class int) {
	t.Helper()
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	io, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, whoProcess, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return 20 - raw, int(io) >> 13
}

func TestAThreadGivesWayUntilItHurries(t *testing.T) {
	testenv.NeedRoot(t)
	was, _ := priority(t)
	done := make(chan struct{})
	go func() { // whose thread ends with it
		defer close(done)
		thread := GiveWay()
		if value, class := priority(t); value != max(nice, was) || class != idleClass>>13 {
			t.Errorf("nice value %d, class %d", value, class)
		}
		for range 2 {
			thread.Hurry()
			if value, class := priority(t); value != was || class == idleClass>>13 {
				t.Errorf("in a hurry: nice value %d, class %d", value, class)
			}
		}
	}()
	<-done
}
