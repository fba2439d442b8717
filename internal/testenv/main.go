package testenv

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// atExit is what AtExit was given.
var atExit []func()

// AtExit has f called by [Main] when all tests have ended: for what several tests share.
func AtExit(f func()) { atExit = append(atExit, f) }

// Main runs the tests of a package, and fails if they leak goroutines or descriptors. Call it from TestMain; it
// does not return.
func Main(m *testing.M, ignore ...goleak.Option) {
	before := openFiles()
	code := m.Run()
	for _, f := range atExit {
		f()
	}
	if code == 0 {
		code = checkLeaks(before, ignore)
	}
	os.Exit(code)
}

func checkLeaks(before map[string]string, ignore []goleak.Option) (code int) {
	if err := goleak.Find(ignore...); err != nil {
		fmt.Fprintf(os.Stderr, "testenv: leaked goroutines: %v\n", err)
		code = 1
	}
	if leaked := leakedFiles(before, openFiles()); len(leaked) > 0 {
		fmt.Fprintf(os.Stderr, "testenv: leaked descriptors:\n\t%s\n", strings.Join(leaked, "\n\t"))
		code = 1
	}
	return code
}

// openFiles returns what each descriptor of this process refers to. It is empty where there is no /proc.
func openFiles() map[string]string {
	const dir = "/proc/self/fd/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	files := make(map[string]string, len(entries))
	for _, e := range entries {
		// The descriptor that read the folder is gone by now.
		if target, err := os.Readlink(dir + e.Name()); err == nil {
			files[e.Name()] = target
		}
	}
	return files
}

// leakedFiles returns what is open after and was not before, but for what the Go runtime opens for itself and
// keeps.
func leakedFiles(before, after map[string]string) []string {
	var leaked []string
	for _, fd := range slices.Sorted(maps.Keys(after)) {
		target := after[fd]
		if before[fd] == target || strings.HasPrefix(target, "anon_inode:[eventpoll]") ||
			strings.HasPrefix(target, "anon_inode:[eventfd]") || isRuntimeFile(target) {
			continue
		}
		leaked = append(leaked, fd+" -> "+target)
	}
	return leaked
}

// isRuntimeFile reports whether the runtime or package os keeps the file open for the life of the process.
func isRuntimeFile(target string) bool {
	return strings.HasPrefix(target, "/sys/fs/cgroup/") || target == "/dev/null" || target == "/dev/urandom"
}
