package restore

import (
	"os"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestRangesThatAreWipedOnForkAreFound(t *testing.T) {
	memory, err := unix.Mmap(-1, 0, 8*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	start := uint64(uintptr(unsafe.Pointer(&memory[0])))
	want := span{start + 2*PageSize, start + 5*PageSize}
	has := func() bool {
		t.Helper()
		wiped, ok := wipedOnFork(os.Getpid())
		if !ok {
			t.Fatal("what this process has cannot be told")
		}
		return slices.Contains(wiped, want)
	}
	if has() {
		t.Error("a range is wiped before anybody said so")
	}
	if err := unix.Madvise(memory[2*PageSize:5*PageSize], unix.MADV_WIPEONFORK); err != nil {
		t.Fatal(err)
	}
	if !has() {
		t.Error("a range that is wiped is not found")
	}
	if err := unix.Madvise(memory, unix.MADV_KEEPONFORK); err != nil {
		t.Fatal(err)
	}
	if has() {
		t.Error("a range that is wiped no more is found")
	}
}

func TestOfNoProcessNothingIsKnown(t *testing.T) {
	if _, ok := wipedOnFork(0); ok {
		t.Error("something is known of process 0")
	}
	if _, ok := wipedOnFork(1 << 22); ok {
		t.Error("something is known of a process that cannot be")
	}
}

func TestLinesThatBeginAMappingAreTold(t *testing.T) {
	for line, want := range map[string]span{
		"7f5be0000000-7f5be0021000 rw-p 00000000 00:00 0 ": {0x7f5be0000000, 0x7f5be0021000},
		"00400000-00420000 r--p 00000000 fe:00 131 /x y":   {0x400000, 0x420000},
		"Size:                  4 kB":                      {},
		"VmFlags: rd wr mr mw me ac sd":                    {},
		"Rss-Anon: 12 kB":                                  {},
		"20-10 rw-p":                                       {},
		"":                                                 {},
	} {
		if got, ok := parseRange([]byte(line)); ok != (want != span{}) || ok && got != want {
			t.Errorf("%q is taken for %v, %v", line, got, ok)
		}
	}
}

// TestChildOfACompleteProcessMissesOnlyZeros: advice that was given since the freeze wipes memory on its way into the child
// whether or not anything is missing in the parent.
func TestChildOfACompleteProcessMissesOnlyZeros(t *testing.T) {
	s, err := NewSession(&Options{Source: newTestSource(20)})
	if err != nil {
		t.Fatal(err)
	}
	a := s.newSpace(Process{Layout: oneRegion(20, 20)})
	for {
		if _, ok := a.stream.take(); !ok {
			break
		}
		a.stream.finish()
	}
	child := a.forkLocked(nil)
	for page := range uint64(20) {
		if !child.pages.lookup(base + page*pg).zero {
			t.Fatalf("page %d of the child would get content", page)
		}
	}
	if !child.stream.settled() {
		t.Error("the child is waited for, though nothing is missing in it")
	}
}
