package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/pagestore"
	"thaw/restore"
	"thaw/restore/criu"
)

func TestWhatIsTouchedIsRememberedByTheSnapshot(t *testing.T) {
	var known touched
	a, b := pagestore.Digest{1}, pagestore.Digest{2}
	extents := []restore.Extent{{Addr: base, Pages: 10, Image: 100}, {Addr: base + 1<<30, Pages: 200, Image: 300}}
	if known.of(a) != nil || known.of(a).imageRuns(extents) != nil || known.of(a).fileRuns() != nil {
		t.Error("something is known of a snapshot that was never restored")
	}
	add := func(pages ...uint64) {
		var s pageSet
		for _, p := range pages {
			s = s.add(p)
		}
		known.note(a, &needs{image: s, files: map[string]pageSet{"/lib/x.so": s}})
	}
	add(99, 100, 101, 109, 110, 5000)
	add(363, 364, 102, 499)
	want := []pageRun{{100, 3}, {109, 1}, {363, 2}, {499, 1}}
	if diff := cmp.Diff(want, known.of(a).imageRuns(extents), cmp.AllowUnexported(pageRun{})); diff != "" {
		t.Errorf("of the image, -want +got:\n%s", diff)
	}
	files := map[string][]pageRun{"/lib/x.so": {{99, 4}, {109, 2}, {363, 2}, {499, 1}, {5000, 1}}}
	if diff := cmp.Diff(files, known.of(a).fileRuns(), cmp.AllowUnexported(pageRun{})); diff != "" {
		t.Errorf("of files, -want +got:\n%s", diff)
	}
	some := []restore.Extent{{Pages: 6, Image: 100}, {Pages: 8, Image: 100}, {Pages: 8, Image: 98}} // three, three and four of them
	for i, want := range []bool{false, true, false} {
		if got := known.of(a).sparse(some[i]); got != want {
			t.Errorf("%v sparse: %v", some[i], got)
		}
		if known.of(b).sparse(some[i]) {
			t.Errorf("%v sparse, of a snapshot that was never restored", some[i])
		}
	}
	if known.of(b) != nil {
		t.Error("what is known of one snapshot is taken for another")
	}
	for i := range maxTouched {
		known.note(pagestore.Digest{3, byte(i), byte(i >> 8)}, &needs{})
	}
	if known.of(a) != nil || len(known.sets) != maxTouched {
		t.Errorf("%d snapshots are remembered, want the last %d", len(known.sets), maxTouched)
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
	var known touched
	o := &origin{fromPacks: map[int][]restore.Extent{imagePID: {{Addr: start, Pages: n, Image: 7}}}}
	files := []criu.FileRange{{PageRange: criu.PageRange{Addr: start + 2047*restore.PageSize, Pages: 10}, Path: "/lib/x.so", Offset: 64 * restore.PageSize},
		// Files can be mapped anywhere, and memory is not to be had for all of that.
		{PageRange: criu.PageRange{Addr: start, Pages: 10}, Path: "/sparse", Offset: 1 << 62},
		{PageRange: criu.PageRange{Addr: start, Pages: 1 << 40}, Path: "/huge", Offset: 0}}
	o.ranges = func() (map[int][]criu.FileRange, error) { return map[int][]criu.FileRange{imagePID: files}, nil }
	if !known.look(t.Context(), o, &foresight{}, restore.ProcessInfo{ID: imagePID, HostPID: os.Getpid()}) {
		t.Fatal("this process cannot be looked at")
	}
	want := []pageRun{{7, 2}, {7 + 2047, 2}, {7 + n - 1, 1}}
	if diff := cmp.Diff(want, known.of(o.digest).imageRuns(o.fromPacks[imagePID]), cmp.AllowUnexported(pageRun{})); diff != "" {
		t.Errorf("of the image, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]pageRun{"/lib/x.so": {{64, 2}}}, known.of(o.digest).fileRuns(), cmp.AllowUnexported(pageRun{})); diff != "" {
		t.Errorf("of files, -want +got:\n%s", diff)
	}
	for _, pid := range []int{0, 1 << 22} {
		if known.look(t.Context(), o, &foresight{}, restore.ProcessInfo{ID: imagePID, HostPID: pid}) {
			t.Errorf("process %d, which cannot be, was looked at", pid)
		}
	}
}

func TestPagesThatAProcessHasWrittenToAreToldApart(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "pack"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(100 * restore.PageSize); err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, 100*restore.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	read := byte(0)
	for page := range 60 {
		read += memory[page*restore.PageSize]
	}
	for _, page := range []int{3, 50} {
		memory[page*restore.PageSize] = read + 1
	}
	start := uint64(uintptr(unsafe.Pointer(&memory[0])))
	o := &origin{fromPacks: map[int][]restore.Extent{imagePID: {{Addr: start, Pages: 100, Image: 1000}}}}
	o.ranges = func() (map[int][]criu.FileRange, error) { return nil, nil }
	var known touched
	// With a working set, what is there was brought; but what was written to, the process has written to.
	if !known.look(t.Context(), o, &foresight{learned: &learned{}}, restore.ProcessInfo{ID: imagePID, HostPID: os.Getpid()}) {
		t.Fatal("this process cannot be looked at")
	}
	got := known.of(o.digest)
	if diff := cmp.Diff([]pageRun{{1003, 1}, {1050, 1}}, got.written.all(), cmp.AllowUnexported(pageRun{})); diff != "" || got.image.count(0, 2000) != 0 {
		t.Errorf("%d pages in all; written (-want +got):\n%s", got.image.count(0, 2000), diff)
	}
	set := &needs{written: pageSet{}.addRun(7, 1)}
	if both := set.withWritten(got); !both.written.has(7) || !both.written.has(1003) || set.written.has(1003) || set.withWritten(nil) != set {
		t.Error("what two know as written is not joined")
	}
}
