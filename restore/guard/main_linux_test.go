package guard

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
)

// TestMain is also the guard, and the memory server that gets killed: the test binary runs itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "guard":
			os.Exit(Main())
		case "server":
			os.Exit(serverMain(os.Args[2:]))
		}
	}
	// A guard whose server was killed becomes our child, so that its exit code can be seen.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "become a subreaper: %v\n", err)
		os.Exit(1)
	}
	// The race detector would have each guard sleep for a second before it ends.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	testenv.Main(m)
}
