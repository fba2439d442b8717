//go:build linux

package uffd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"thaw/internal/testenv"
	"thaw/uffd"
)

// limitMemory makes a memory cgroup of that many bytes whose members are not killed when they reach the limit,
// and returns its folder.
func limitMemory(t *testing.T, limit int) string {
	t.Helper()
	testenv.NeedRoot(t)
	const controller = "/sys/fs/cgroup/memory"
	if _, err := os.Stat(filepath.Join(controller, "memory.oom_control")); err != nil {
		t.Skip("needs the memory controller of cgroup v1, the only one that can be told not to kill: boot with systemd.unified_cgroup_hierarchy=0")
	}
	dir, err := os.MkdirTemp(controller, "thaw-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Not RemoveAll: the files in it cannot be removed, only the folder can.
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	writeFile(t, filepath.Join(dir, "memory.limit_in_bytes"), strconv.Itoa(limit))
	writeFile(t, filepath.Join(dir, "memory.oom_control"), "1")
	return dir
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

func TestPagesAreChargedToTheTarget(t *testing.T) {
	const n = 1024
	cgroup := limitMemory(t, n/2*uffd.PageSize)
	target, fd := startMissing(t, n)
	writeFile(t, filepath.Join(cgroup, "cgroup.procs"), strconv.Itoa(target.PID()))

	src := content(n)
	r := fd.Copy(page(0), src, 0)
	if r.Outcome != uffd.Again || r.Bytes == 0 {
		t.Fatalf("got %v after %d bytes, want again after some", r.Outcome, r.Bytes)
	}
	done := r.Bytes
	expect(t, fd.Copy(base+done, src[done:], 0), uffd.NoMemory, 0)
	expect(t, fd.Copy(base+done, src[done:done+uffd.PageSize], 0), uffd.NoMemory, 0)

	writeFile(t, filepath.Join(cgroup, "memory.limit_in_bytes"), strconv.Itoa(4*n*uffd.PageSize))
	expect(t, fd.Copy(base+done, src[done:], 0), uffd.Done, uint64(len(src))-done)
	if !bytes.Equal(target.Read(pages(0, n)).Must(), src) {
		t.Error("the target reads other bytes than were copied")
	}
}
