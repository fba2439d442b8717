package pagestore

import (
	"context"
	"fmt"
	"io"
	"os"
)

// childEnv names what the test binary does instead of running tests, when a test started it as a child to kill.
const childEnv = "PAGESTORE_TEST_CHILD"

// childMain runs the child's part; ok is false in the parent.
func childMain() (code int, ok bool) {
	what := os.Getenv(childEnv)
	if what == "" {
		return 0, false
	}
	s, err := Open(os.Args[1], &Options{packPages: 256})
	if err == nil {
		switch what {
		case "lease":
			err = childLease(s)
		case "import":
			err = childImport(s)
		default:
			err = fmt.Errorf("unknown child %q", what)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// childLease opens the snapshot "a", says so, and waits to be killed.
func childLease(s *Store) error {
	snap, err := s.Snapshot(mustName("a"))
	if err != nil {
		return err
	}
	defer snap.Close()
	fmt.Println("leased")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// childImport imports the snapshot "b" and says how far it is.
func childImport(s *Store) error {
	_, err := s.Import(context.Background(), mustName("b"), seeds(1000, childPages).input(), &ImportOptions{
		Progress: func(p Progress) { fmt.Println(p.Stage, p.DoneBytes) },
	})
	return err
}

// childPages is the size of the child's import.
const childPages = 10_000
