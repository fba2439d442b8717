package perfswitch

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestHoldIsAnEventOfAProcessUntilItIsClosed(t *testing.T) {
	f, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if link, err := os.Readlink(path); err != nil || !strings.Contains(link, "perf_event") {
		t.Errorf("the file is %q, %v", link, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if link, err := os.Readlink(path); err == nil && strings.Contains(link, "perf_event") {
		t.Error("the event is still there")
	}
}
