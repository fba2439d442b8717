//go:build linux

package uffd_test

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
	"thaw/internal/testenv"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestWriteProtectReportsWrites(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeaturePagefaultFlagWP)
	target, fd := startRegistered(t, 2, uffd.FeaturePagefaultFlagWP, uffd.ModeMissing|uffd.ModeWP)
	expect(t, fd.Copy(page(0), content(2), 0), uffd.Done, 2*uffd.PageSize)
	expect(t, fd.WriteProtect(pages(0, 2), true, 0), uffd.Done, 2*uffd.PageSize)

	if !bytes.Equal(target.Read(pages(0, 2)).Must(), content(2)) {
		t.Error("reading a write-protected page failed")
	}
	write := target.Write(page(1)+8, []byte("late"))
	awaitFault(t, fd, page(1), uffd.PagefaultWrite|uffd.PagefaultWP)
	expect(t, fd.WriteProtect(pages(1, 1), false, 0), uffd.Done, uffd.PageSize)
	write.Must()
	expect(t, fd.WriteProtect(pages(7, 1), true, 0), uffd.NotRegistered, 0)
}

func TestLiftingProtectionWithoutWakeLeavesThreadAsleep(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeaturePagefaultFlagWP)
	target, fd := startRegistered(t, 1, uffd.FeaturePagefaultFlagWP, uffd.ModeMissing|uffd.ModeWP)
	expect(t, fd.Copy(page(0), content(1), uffd.CopyWP), uffd.Done, uffd.PageSize)
	write := target.Write(page(0), []byte("late"))
	awaitFault(t, fd, page(0), uffd.PagefaultWrite|uffd.PagefaultWP)
	expect(t, fd.WriteProtect(pages(0, 1), false, uffd.WriteProtectDontWake), uffd.Done, uffd.PageSize)
	target.Read(pages(0, 1)).Must()
	if write.Finished() {
		t.Error("the thread was woken")
	}
	if err := fd.Wake(pages(0, 1)); err != nil {
		t.Fatal(err)
	}
	write.Must()
}

func TestContinueResolvesMinorFault(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeatureMinorShmem)
	target := uffdtest.Start(t)
	file := target.MapMemfd(pages(0, 2), unix.MAP_SHARED).Must()
	defer file.Close()
	fd := open(t, target, uffd.FeatureMinorShmem|uffd.FeatureMissingShmem)
	register(t, fd, pages(0, 2), uffd.ModeMinor|uffd.ModeMissing)
	if _, err := file.WriteAt(content(1), 0); err != nil {
		t.Fatal(err)
	}

	read := target.Read(pages(0, 2))
	awaitFault(t, fd, page(0), uffd.PagefaultMinor)
	expect(t, fd.Continue(pages(0, 1), 0), uffd.Done, uffd.PageSize)
	awaitFault(t, fd, page(1), 0)
	// There is nothing in the page cache to go on with; and the first page is mapped by now.
	expect(t, fd.Continue(pages(1, 1), 0), uffd.Unreadable, 0)
	expect(t, fd.Continue(pages(0, 1), 0), uffd.Exists, 0)
	expect(t, fd.Copy(page(1), content(1), 0), uffd.Done, uffd.PageSize)
	if !bytes.Equal(read.Must(), append(content(1), content(1)...)) {
		t.Error("the target reads other bytes than the file holds")
	}
}

func TestPoisonedPageRaisesSIGBUS(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeaturePoison)
	target, fd := startMissing(t, 3)
	read := target.Read(pages(1, 1))
	awaitFault(t, fd, page(1), 0)
	expect(t, fd.Poison(pages(1, 1), 0), uffd.Done, uffd.PageSize)

	var signal *uffdtest.SignalError
	if err := read.Err(); !errors.As(err, &signal) {
		t.Fatalf("got %v, want a signal", err)
	}
	// The code is BUS_MCEERR_AR, or BUS_ADRERR if the kernel was built without CONFIG_MEMORY_FAILURE.
	if signal.Signal != unix.SIGBUS || signal.Addr != page(1) {
		t.Errorf("got %v, want SIGBUS at %#x", signal, page(1))
	}
	if err := target.ReadByKernel(page(1)).Err(); !errors.Is(err, unix.EFAULT) {
		t.Errorf("reading by system call: got %v, want EFAULT", err)
	}
	expect(t, fd.Copy(page(0), content(1), 0), uffd.Done, uffd.PageSize)
	expect(t, fd.Poison(pages(0, 1), 0), uffd.Exists, 0)
	target.Read(pages(0, 1)).Must()
}

func TestMoveTakesPagesFromElsewhere(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeatureMove)
	dst, src := mapOwn(t, 4), mapOwn(t, 4)
	fd, err := uffd.Open(&uffd.Options{Features: uffd.FeatureMove})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, fd)
	ioctls, err := fd.Register(rangeOf(dst), uffd.ModeMissing)
	if err != nil {
		t.Fatal(err)
	}
	if !ioctls.Has(uffd.IoctlMove) {
		t.Errorf("move is not among %v", ioctls)
	}
	copy(src, content(2))
	to, from := rangeOf(dst).Start, rangeOf(src).Start
	expect(t, fd.Move(to, from, 2*uffd.PageSize, 0), uffd.Done, 2*uffd.PageSize)
	if !bytes.Equal(dst[:2*uffd.PageSize], content(2)) {
		t.Error("other bytes arrived than were moved")
	}
	if !bytes.Equal(src[:2*uffd.PageSize], make([]byte, 2*uffd.PageSize)) {
		t.Error("the source still has content")
	}
	copy(src, content(2))
	expect(t, fd.Move(to, from, uffd.PageSize, 0), uffd.Exists, 0)
	expect(t, fd.Move(to+2*uffd.PageSize, from+2*uffd.PageSize, 2*uffd.PageSize, 0), uffd.NotRegistered, 0)
	expect(t, fd.Move(to+2*uffd.PageSize, from+2*uffd.PageSize, 2*uffd.PageSize, uffd.MoveAllowHoles), uffd.Done, 2*uffd.PageSize)
}

func TestSharedMemoryReportsMissingPages(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeatureMissingShmem)
	target := uffdtest.Start(t)
	file := target.MapMemfd(pages(0, 1), unix.MAP_SHARED).Must()
	defer file.Close()
	fd := open(t, target, uffd.FeatureMissingShmem)
	register(t, fd, pages(0, 1), uffd.ModeMissing)
	read := target.Read(pages(0, 1))
	awaitFault(t, fd, page(0), 0)
	expect(t, fd.Copy(page(0), content(1), 0), uffd.Done, uffd.PageSize)
	if !bytes.Equal(read.Must(), content(1)) {
		t.Error("the target reads other bytes than were copied")
	}
}
