package pagestore

import (
	"context"
	"fmt"
	"io"
	"os"

	"thaw/internal/durable"
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
		case "admit":
			err = childAdmit(s)
		case "working set":
			err = childWorkingSet(s)
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

// childWorkingSet gives the snapshot "a" another working set, says before each step what comes, and waits to be killed.
func childWorkingSet(s *Store) error {
	s.opts.fs = sayingFS{s.opts.fs}
	w := WorkingSet{Hint: []byte("new"), Order: []PageRun{{0, childPages}}}
	if err := setWorkingSet(context.Background(), s, "a", w); err != nil {
		return err
	}
	fmt.Println("done")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// sayingFS says what it is about to do.
type sayingFS struct{ durable.FS }

func (f sayingFS) Create(name string) (durable.File, error) {
	fmt.Println("create", name)
	return f.FS.Create(name)
}

func (f sayingFS) Mkdir(name string) error {
	fmt.Println("mkdir", name)
	return f.FS.Mkdir(name)
}

func (f sayingFS) Rename(from, to string) error {
	fmt.Println("rename", from)
	return f.FS.Rename(from, to)
}

func (f sayingFS) Remove(name string) error {
	fmt.Println("remove", name)
	return f.FS.Remove(name)
}

func (f sayingFS) SyncDir(name string) error {
	fmt.Println("sync", name)
	return f.FS.SyncDir(name)
}
