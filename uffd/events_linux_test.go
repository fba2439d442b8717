//go:build linux

package uffd_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestWaitingEventRefusesInstallation(t *testing.T) {
	target, fd := startMissing(t, 4)
	remove := target.Madvise(pages(0, 1), unix.MADV_DONTNEED)
	waitReadable(t, fd)

	for _, tt := range []struct {
		name   string
		result uffd.Result
	}{
		{"copy of a page", fd.Copy(page(1), content(1), 0)},
		{"copy of many pages", fd.Copy(page(0), content(4), 0)},
		{"zeropage", fd.Zeropage(pages(1, 1), 0)},
		{"poison", fd.Poison(pages(1, 1), 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expect(t, tt.result, uffd.Again, 0)
			if err := tt.result.Err(); !errors.Is(err, unix.EAGAIN) {
				t.Errorf("got error %v, want EAGAIN", err)
			}
		})
	}
	if remove.Finished() {
		t.Error("madvise returned before its event was read")
	}

	await(t, fd, uffd.EventRemove)
	remove.Must()
	expect(t, fd.Copy(page(1), content(1), 0), uffd.Done, uffd.PageSize)
}

func TestRemoveMakesPagesMissingAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		advice int
	}{{"MADV_DONTNEED", unix.MADV_DONTNEED}, {"MADV_FREE", unix.MADV_FREE}} {
		t.Run(tt.name, func(t *testing.T) {
			target, fd := startMissing(t, 4)
			expect(t, fd.Copy(page(0), content(4), 0), uffd.Done, 4*uffd.PageSize)
			remove := target.Madvise(pages(1, 2), tt.advice)
			m := await(t, fd, uffd.EventRemove)
			if diff := cmp.Diff(pages(1, 2), m.Removed()); diff != "" {
				t.Errorf("removed range (-want +got):\n%s", diff)
			}
			remove.Must()
			if tt.advice == unix.MADV_FREE {
				return // the kernel frees the pages when it needs them
			}
			if diff := cmp.Diff([]bool{true, false, false, true}, target.Resident(pages(0, 4))); diff != "" {
				t.Errorf("resident pages (-want +got):\n%s", diff)
			}
			read := target.Read(pages(1, 1))
			awaitFault(t, fd, page(1), 0)
			expect(t, fd.Zeropage(pages(1, 1), 0), uffd.Done, uffd.PageSize)
			read.Must()
		})
	}
}

func TestUnmapIsReportedWithItsWholeRange(t *testing.T) {
	target, fd := startMissing(t, 2)
	target.Map(pages(3, 1)).Must() // behind a hole, and not registered
	unmap := target.Munmap(pages(1, 3))
	m := await(t, fd, uffd.EventUnmap)
	if diff := cmp.Diff(pages(1, 3), m.Removed()); diff != "" {
		t.Errorf("removed range (-want +got):\n%s", diff)
	}
	unmap.Must()
	expect(t, fd.Copy(page(1), content(1), 0), uffd.NotRegistered, 0)
	expect(t, fd.Copy(page(0), content(1), 0), uffd.Done, uffd.PageSize)
}

func TestForkCarriesDescriptorOfChild(t *testing.T) {
	target, fd := startMissing(t, 2)
	forking := target.Fork()
	m := await(t, fd, uffd.EventFork)
	childFD, err := uffd.FromFD(m.Fork())
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, childFD)
	child := forking.Must()

	read := child.Read(pages(0, 1))
	awaitFault(t, childFD, page(0), 0)
	expect(t, childFD.Copy(page(0), content(1), 0), uffd.Done, uffd.PageSize)
	if !bytes.Equal(read.Must(), content(1)) {
		t.Error("the child reads other bytes than were copied")
	}
	if target.Resident(pages(0, 1))[0] {
		t.Error("what was copied into the child is in the parent, too")
	}

	forking = child.Fork()
	m = await(t, childFD, uffd.EventFork)
	grandchildFD, err := uffd.FromFD(m.Fork())
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, grandchildFD)
	grandchild := forking.Must()
	if !bytes.Equal(grandchild.Read(pages(0, 1)).Must(), content(1)) {
		t.Error("the grandchild does not inherit the child's page")
	}
	grandchild.Exit(0).Must()
	expect(t, grandchildFD.Copy(page(1), content(1), 0), uffd.Gone, 0)
	expect(t, childFD.Copy(page(1), content(1), 0), uffd.Done, uffd.PageSize)
}

func TestForkEventStaysQueuedWithoutRoomForItsDescriptor(t *testing.T) {
	target, fd := startMissing(t, 1)
	forking := target.Fork()
	waitReadable(t, fd)

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, readErr := fd.ReadMessages(make([]uffd.Message, 1))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(readErr, unix.EMFILE) {
		t.Errorf("got %v, want EMFILE", readErr)
	}

	m := await(t, fd, uffd.EventFork)
	childFD, err := uffd.FromFD(m.Fork())
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, childFD)
	forking.Must()
}

func TestExecTakesAddressSpaceAway(t *testing.T) {
	target, fd := startMissing(t, 1)
	target.Exec().Must()
	expect(t, fd.Copy(page(0), content(1), 0), uffd.Gone, 0)
}

// remap is what an EventRemap says.
type remap struct{ From, To, Len uint64 }

func TestMremapIsReported(t *testing.T) {
	const size = uffd.PageSize
	for _, tt := range []struct {
		name    string
		old     uffd.Range
		size    uint64
		flags   int
		dst     uint64
		remap   *remap
		removed []uffd.Range
	}{
		{
			name: "growth in place says nothing", old: pages(0, 4), size: 6 * size,
		},
		{
			name: "growth that must move reports the old length", old: pages(0, 4), size: 6 * size,
			flags: unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED, dst: page(100),
			remap:   &remap{page(0), page(100), 4 * size},
			removed: []uffd.Range{pages(0, 4)},
		},
		{
			name: "shrinking in place unmaps the end", old: pages(0, 4), size: 2 * size,
			removed: []uffd.Range{pages(2, 2)},
		},
		{
			name: "move to a free place", old: pages(0, 4), size: 4 * size,
			flags: unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED, dst: page(100),
			remap:   &remap{page(0), page(100), 4 * size},
			removed: []uffd.Range{pages(0, 4)},
		},
		{
			name: "move of the middle", old: pages(1, 2), size: 2 * size,
			flags: unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED, dst: page(100),
			remap:   &remap{page(1), page(100), 2 * size},
			removed: []uffd.Range{pages(1, 2)},
		},
		{
			name: "move that leaves the old range mapped", old: pages(0, 4), size: 4 * size,
			flags: unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED | unix.MREMAP_DONTUNMAP, dst: page(100),
			remap: &remap{page(0), page(100), 4 * size},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target, fd := startMissing(t, 4)
			call := target.Mremap(tt.old, tt.size, tt.flags, tt.dst)
			var gotRemap *remap
			var gotRemoved []uffd.Range
			for want := len(tt.removed) + count(tt.remap); want > 0; {
				for _, m := range uffdtest.Await(t, fd) {
					want--
					if m.Kind() == uffd.EventRemap {
						from, to, length := m.Remap()
						gotRemap = &remap{from, to, length}
					} else {
						gotRemoved = append(gotRemoved, m.Removed())
					}
				}
			}
			call.Must()
			if diff := cmp.Diff(tt.remap, gotRemap); diff != "" {
				t.Errorf("remap (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.removed, gotRemoved); diff != "" {
				t.Errorf("removed ranges (-want +got):\n%s", diff)
			}
			if n, err := fd.ReadMessages(make([]uffd.Message, 8)); n != 0 || err != nil {
				t.Errorf("%d further messages, error %v", n, err)
			}
		})
	}
}

func count(r *remap) int {
	if r == nil {
		return 0
	}
	return 1
}

func TestRegistrationGrowsWithTheMapping(t *testing.T) {
	target, fd := startMissing(t, 1)
	target.Mremap(pages(0, 1), 3*uffd.PageSize, 0, 0).Must()
	read := target.Read(pages(2, 1))
	awaitFault(t, fd, page(2), 0)
	expect(t, fd.Zeropage(pages(0, 3), 0), uffd.Done, 3*uffd.PageSize)
	read.Must()
}

func TestRegistrationMovesWithTheMapping(t *testing.T) {
	target, fd := startMissing(t, 2)
	expect(t, fd.Copy(page(0), content(1), 0), uffd.Done, uffd.PageSize)
	move := target.Mremap(pages(0, 2), 2*uffd.PageSize, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, page(100))
	awaitAll(t, fd, uffd.EventRemap, uffd.EventUnmap)
	move.Must()
	expect(t, fd.Copy(page(1), content(1), 0), uffd.NotRegistered, 0)
	expect(t, fd.Copy(page(100), content(1), 0), uffd.Exists, 0)
	read := target.Read(pages(100, 2))
	awaitFault(t, fd, page(101), 0)
	expect(t, fd.Zeropage(pages(101, 1), 0), uffd.Done, uffd.PageSize)
	if !bytes.Equal(read.Must(), append(content(1), make([]byte, uffd.PageSize)...)) {
		t.Error("the page did not move, or more than it")
	}
}

func TestDontUnmapLeavesBothRangesRegistered(t *testing.T) {
	target, fd := startMissing(t, 1)
	expect(t, fd.Copy(page(0), content(1), 0), uffd.Done, uffd.PageSize)
	move := target.Mremap(pages(0, 1), uffd.PageSize, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED|unix.MREMAP_DONTUNMAP, page(100))
	await(t, fd, uffd.EventRemap)
	move.Must()
	if !bytes.Equal(target.Read(pages(100, 1)).Must(), content(1)) {
		t.Error("the page did not move")
	}
	read := target.Read(pages(0, 1))
	awaitFault(t, fd, page(0), 0)
	expect(t, fd.Zeropage(pages(0, 1), 0), uffd.Done, uffd.PageSize)
	read.Must()
	expect(t, fd.Copy(page(100), content(1), 0), uffd.Exists, 0)
}

func TestMoveOverRegisteredRangeUnmapsItFirst(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 1)).Must()
	target.Map(pages(100, 1)).Must()
	fd := open(t, target, uffdtest.CRIUFeatures)
	register(t, fd, pages(0, 1), uffd.ModeMissing)
	register(t, fd, pages(100, 1), uffd.ModeMissing)

	move := target.Mremap(pages(0, 1), uffd.PageSize, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, page(100))
	messages := awaitAll(t, fd, uffd.EventUnmap, uffd.EventRemap, uffd.EventUnmap)
	move.Must()
	removed := []uffd.Range{messages[0].Removed(), messages[2].Removed()}
	if diff := cmp.Diff([]uffd.Range{pages(100, 1), pages(0, 1)}, removed); diff != "" {
		t.Errorf("unmapped (-want +got):\n%s", diff)
	}
}

func TestQueuedFaultOvertakesQueuedEvent(t *testing.T) {
	target, fd := startMissing(t, 4)
	remove := target.Madvise(pages(0, 1), unix.MADV_DONTNEED)
	waitReadable(t, fd)
	read := target.Read(pages(3, 1))
	awaitPendingFault(t, fd)
	awaitAll(t, fd, uffd.EventPagefault, uffd.EventRemove)
	remove.Must()
	expect(t, fd.Zeropage(pages(3, 1), 0), uffd.Done, uffd.PageSize)
	read.Must()
}

// awaitPendingFault waits until a fault is queued on fd, without reading it.
func awaitPendingFault(t *testing.T, fd *uffd.FD) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); runtime.Gosched() {
		info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(info), "\npending:\t1\n") {
			return
		}
	}
	t.Fatal("no fault is pending")
}
