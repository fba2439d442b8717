package daemon

import (
	"os"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/pagestore"
	"thaw/restore"
)

func TestWhatIsTouchedIsRememberedByTheSnapshot(t *testing.T) {
	var known touched
	a, b := pagestore.Digest{1}, pagestore.Digest{2}
	extents := []restore.Extent{{Addr: base, Pages: 10, Image: 100}, {Addr: base + 1<<30, Pages: 200, Image: 300}}
	if _, ok := known.among(a, extents); ok {
		t.Error("something is known of a snapshot that was never restored")
	}
	known.note(a, nil)
	if _, ok := known.among(a, extents); ok {
		t.Error("a process that touched nothing counts as knowledge")
	}
	known.note(a, []uint64{99, 100, 101, 109, 110, 5000})
	known.note(a, []uint64{363, 364, 102, 499})
	got, ok := known.among(a, extents)
	want := []restore.Extent{
		{Addr: base, Pages: 3, Image: 100}, {Addr: base + 9*restore.PageSize, Pages: 1, Image: 109},
		{Addr: base + 1<<30 + 63*restore.PageSize, Pages: 2, Image: 363}, {Addr: base + 1<<30 + 199*restore.PageSize, Pages: 1, Image: 499},
	}
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Errorf("known: %v, -want +got:\n%s", ok, diff)
	}
	if _, ok := known.among(b, extents); ok {
		t.Error("what is known of one snapshot is taken for another")
	}
	for i := range maxTouched {
		known.note(pagestore.Digest{3, byte(i), byte(i >> 8)}, []uint64{1})
	}
	if _, ok := known.among(a, extents); ok || len(known.pages) != maxTouched {
		t.Errorf("%d snapshots are remembered, want the last %d", len(known.pages), maxTouched)
	}
}

func TestPagesThatAProcessHasAreSeen(t *testing.T) {
	const n = 3000 // more than are asked for at once
	memory, err := unix.Mmap(-1, 0, n*restore.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	// The kernel must not make more of them present than are written to.
	if err := unix.Madvise(memory, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	for _, page := range []int{0, 1, 2047, 2048, n - 1} {
		memory[page*restore.PageSize] = 1
	}
	start := uint64(uintptr(unsafe.Pointer(&memory[0])))
	got, err := presentPages(os.Getpid(), []restore.Extent{{Addr: start, Pages: n, Image: 7}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{7, 8, 7 + 2047, 7 + 2048, 7 + n - 1}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got, err := presentPages(1<<22, []restore.Extent{{Addr: start, Pages: n}}); err == nil || got != nil {
		t.Errorf("a process that cannot be has %v, %v", got, err)
	}
}
