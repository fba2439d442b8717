//go:build linux

package uffd_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestCopyResolvesMissingFault(t *testing.T) {
	target, fd := startMissing(t, 4)
	read := target.Read(pages(1, 1))
	awaitFault(t, fd, page(1), 0)
	want := content(1)
	expect(t, fd.Copy(page(1), want, 0), uffd.Done, uffd.PageSize)
	if !bytes.Equal(read.Must(), want) {
		t.Error("the target reads other bytes than were copied")
	}
}

func TestLargeCopyResolvesMissingFault(t *testing.T) {
	target, fd := startMissing(t, 64)
	read := target.Read(pages(0, 64))
	awaitFault(t, fd, page(0), 0)
	want := content(64)
	expect(t, fd.Copy(page(0), want, 0), uffd.Done, 64*uffd.PageSize)
	if !bytes.Equal(read.Must(), want) {
		t.Error("the target reads other bytes than were copied")
	}
}

func TestWriteFaultIsFlagged(t *testing.T) {
	target, fd := startMissing(t, 1)
	write := target.Write(page(0)+8, []byte("written"))
	awaitFault(t, fd, page(0), uffd.PagefaultWrite)
	want := content(1)
	expect(t, fd.Copy(page(0), want, 0), uffd.Done, uffd.PageSize)
	write.Must()
	copy(want[8:], "written")
	if !bytes.Equal(target.Read(pages(0, 1)).Must(), want) {
		t.Error("the write is lost, or more than it was written")
	}
}

func TestZeropageResolvesMissingFault(t *testing.T) {
	target, fd := startMissing(t, 3)
	read := target.Read(pages(0, 3))
	awaitFault(t, fd, page(0), 0)
	expect(t, fd.Zeropage(pages(0, 3), 0), uffd.Done, 3*uffd.PageSize)
	if !bytes.Equal(read.Must(), make([]byte, 3*uffd.PageSize)) {
		t.Error("the target does not read zeros")
	}
}

func TestFaultInKernelModeIsReported(t *testing.T) {
	target, fd := startMissing(t, 1)
	read := target.ReadByKernel(page(0) + 9)
	awaitFault(t, fd, page(0), 0)
	expect(t, fd.Copy(page(0), content(1), 0), uffd.Done, uffd.PageSize)
	if got := read.Must(); got != 0xa5 {
		t.Errorf("the kernel reads %#x", got)
	}
}

func TestUserModeOnlyFailsFaultsOfTheKernel(t *testing.T) {
	memory := mapOwn(t, 1)
	fd, err := uffd.Open(&uffd.Options{UserModeOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, fd)
	register(t, fd, rangeOf(memory), uffd.ModeMissing)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := w.Write(memory[:1]); !errors.Is(err, unix.EFAULT) {
		t.Errorf("writing a missing page to a pipe: got %v, want EFAULT", err)
	}
}

func TestFaultsOfManyThreadsAreReadInOneBatch(t *testing.T) {
	const threads = 8
	target, fd := startMissing(t, threads)
	calls := target.Touch(pages(0, threads), threads, 1)
	seen := make(map[uint64]bool)
	for len(seen) < threads {
		for _, m := range uffdtest.Await(t, fd) {
			addr, _, _ := m.PageFault()
			seen[addr] = true
		}
	}
	expect(t, fd.Copy(page(0), content(threads), 0), uffd.Done, threads*uffd.PageSize)
	for _, c := range calls {
		for _, access := range c.Must() {
			if access.Word != access.Page+1 {
				t.Errorf("page %d holds word %d", access.Page, access.Word)
			}
		}
	}
}

func TestMessagesThatDoNotFitStayQueued(t *testing.T) {
	const threads = 3
	target, fd := startMissing(t, threads)
	calls := target.Touch(pages(0, threads), threads, 1)
	buf := make([]uffd.Message, 1)
	for seen := 0; seen < threads; {
		n, err := fd.ReadMessages(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			waitReadable(t, fd)
		}
		seen += n
	}
	expect(t, fd.Zeropage(pages(0, threads), 0), uffd.Done, threads*uffd.PageSize)
	for _, c := range calls {
		c.Must()
	}
}

func TestThreadIDIsReported(t *testing.T) {
	target, fd := startRegistered(t, 1, uffd.FeatureThreadID|uffd.FeatureExactAddress, uffd.ModeMissing)
	read := target.Read(uffd.Range{Start: page(0) + 24, End: page(0) + 32})
	m := await(t, fd, uffd.EventPagefault)
	addr, _, tid := m.PageFault()
	if addr != page(0)+24 {
		t.Errorf("fault at %#x, want the exact address", addr)
	}
	if err := unix.Tgkill(target.PID(), int(tid), 0); err != nil {
		t.Errorf("thread %d of process %d: %v", tid, target.PID(), err)
	}
	expect(t, fd.Zeropage(pages(0, 1), 0), uffd.Done, uffd.PageSize)
	read.Must()
}

func TestCopyStopsAtPageThatExists(t *testing.T) {
	target, fd := startMissing(t, 4)
	want := content(4)
	expect(t, fd.Copy(page(2), want[2*uffd.PageSize:3*uffd.PageSize], 0), uffd.Done, uffd.PageSize)
	got := fd.Copy(page(0), want, 0)
	expect(t, got, uffd.Again, 2*uffd.PageSize)
	expect(t, fd.Copy(page(2), want[2*uffd.PageSize:], 0), uffd.Exists, 0)
	expect(t, fd.Copy(page(3), want[3*uffd.PageSize:], 0), uffd.Done, uffd.PageSize)
	if !bytes.Equal(target.Read(pages(0, 4)).Must(), want) {
		t.Error("the target reads other bytes than were copied")
	}
}

func TestDontWakeLeavesThreadAsleepUntilWake(t *testing.T) {
	target, fd := startMissing(t, 2)
	expect(t, fd.Copy(page(1), content(1), 0), uffd.Done, uffd.PageSize)
	read := target.Read(pages(0, 1))
	awaitFault(t, fd, page(0), 0)
	expect(t, fd.Copy(page(0), content(1), uffd.CopyDontWake), uffd.Done, uffd.PageSize)
	// Long enough for a thread that was woken: another one goes the whole way meanwhile.
	target.Read(pages(1, 1)).Must()
	if read.Finished() {
		t.Fatal("the thread was woken")
	}
	if err := fd.Wake(pages(0, 1)); err != nil {
		t.Fatal(err)
	}
	read.Must()
}

func TestCopyWithoutRegistrationIsRefused(t *testing.T) {
	target, fd := startMissing(t, 2)
	target.Map(pages(4, 1)).Must()
	for _, tt := range []struct {
		name string
		addr uint64
		n    uint64
	}{
		{"nothing is mapped there", page(8), 1},
		{"the mapping is not registered", page(4), 1},
		{"the range reaches beyond the registered mapping", page(1), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expect(t, fd.Copy(tt.addr, content(tt.n), 0), uffd.NotRegistered, 0)
			expect(t, fd.Zeropage(uffd.Range{Start: tt.addr, End: tt.addr + tt.n*uffd.PageSize}, 0), uffd.NotRegistered, 0)
		})
	}
}

func TestMistakesOfTheCallerAreInvalid(t *testing.T) {
	_, fd := startMissing(t, 2)
	for _, tt := range []struct {
		name   string
		result uffd.Result
	}{
		{"copy to an address inside of a page", fd.Copy(page(0)+1, content(1), 0)},
		{"copy of half a page", fd.Copy(page(0), content(1)[:2048], 0)},
		{"copy of nothing", fd.Copy(page(0), nil, 0)},
		{"copy with an unknown flag", fd.Copy(page(0), content(1), 1<<60)},
		{"zeropage of an inverted range", fd.Zeropage(uffd.Range{Start: page(1), End: page(0)}, 0)},
		{"continue in anonymous memory", fd.Continue(pages(0, 1), 0)},
		{"move in another process", fd.Move(page(0), page(1), uffd.PageSize, 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expect(t, tt.result, uffd.Invalid, 0)
			if err := tt.result.Err(); !errors.Is(err, unix.EINVAL) {
				t.Errorf("got error %v, want EINVAL", err)
			}
		})
	}
}

func TestSourceThatCannotBeReadIsReported(t *testing.T) {
	target, fd := startMissing(t, 2)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(content(2)); err != nil {
		t.Fatal(err)
	}
	source, err := unix.Mmap(int(file.Fd()), 0, 2*uffd.PageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(source)
	if err := file.Truncate(uffd.PageSize); err != nil {
		t.Fatal(err)
	}
	expect(t, fd.Copy(page(0), source, 0), uffd.Again, uffd.PageSize)
	expect(t, fd.Copy(page(1), source[uffd.PageSize:], 0), uffd.Unreadable, 0)
	if got := target.Resident(pages(0, 2)); !got[0] || got[1] {
		t.Errorf("resident pages are %v, want the first only", got)
	}
}

func TestEverythingIsGoneAfterDeath(t *testing.T) {
	target, fd := startMissing(t, 2)
	target.Kill()
	<-target.Gone()
	expect(t, fd.Copy(page(0), content(1), 0), uffd.Gone, 0)
	expect(t, fd.Copy(page(0), content(2), 0), uffd.Gone, 0)
	expect(t, fd.Zeropage(pages(0, 1), 0), uffd.Gone, 0)
	expect(t, fd.Poison(pages(0, 1), 0), uffd.Gone, 0)
	expect(t, fd.WriteProtect(pages(0, 1), true, 0), uffd.Gone, 0)
	if err := fd.Unregister(pages(0, 1)); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("unregister: got %v, want ENOMEM", err)
	}
	if _, err := fd.Register(pages(0, 1), uffd.ModeMissing); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("register: got %v, want ENOMEM", err)
	}
	if err := fd.Wake(pages(0, 1)); err != nil {
		t.Errorf("wake: %v", err)
	}
}

func TestDeathOfFaultingThreadLeavesItsMessage(t *testing.T) {
	target, fd := startMissing(t, 1)
	read := target.Read(pages(0, 1))
	awaitFault(t, fd, page(0), 0)
	target.Kill()
	if err := read.Err(); !errors.Is(err, uffdtest.ErrTargetGone) {
		t.Errorf("got %v, want ErrTargetGone", err)
	}
	expect(t, fd.Copy(page(0), content(1), 0), uffd.Gone, 0)
}

func TestUnregisterLetsThreadReadZeros(t *testing.T) {
	target, fd := startMissing(t, 2)
	read := target.Read(pages(0, 2))
	awaitFault(t, fd, page(0), 0)
	if err := fd.Unregister(pages(0, 2)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read.Must(), make([]byte, 2*uffd.PageSize)) {
		t.Error("the target does not read zeros")
	}
}

func TestLastCloseLetsThreadReadZeros(t *testing.T) {
	target, fd := startMissing(t, 1)
	target.Drop().Must()
	read := target.Read(pages(0, 1))
	awaitFault(t, fd, page(0), 0)
	if err := fd.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read.Must(), make([]byte, uffd.PageSize)) {
		t.Error("the target does not read zeros")
	}
}
