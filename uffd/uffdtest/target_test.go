//go:build linux

package uffdtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"thaw/internal/testenv"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const base = 0x10_0000_0000

// pages returns the range of n pages, skip pages behind the base.
func pages(skip, n uint64) uffd.Range {
	return uffd.Range{Start: base + skip*uffd.PageSize, End: base + (skip+n)*uffd.PageSize}
}

func TestTargetReadsWhatItWrote(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 4)).Must()
	data := bytes.Repeat([]byte("thaw"), 2*uffd.PageSize/4)
	target.Write(base+uffd.PageSize, data).Must()
	if !bytes.Equal(target.Read(pages(1, 2)).Must(), data) {
		t.Error("the bytes read are not those written")
	}
	zeros, full := uffdtest.Sum(make([]byte, uffd.PageSize)), uffdtest.Sum(data[:uffd.PageSize])
	if diff := cmp.Diff([]uint64{zeros, full, full, zeros}, target.Sums(pages(0, 4)).Must()); diff != "" {
		t.Errorf("sums (-want +got):\n%s", diff)
	}
}

func TestTargetMovesMegabytes(t *testing.T) {
	const n = 4096
	target := uffdtest.Start(t)
	target.Map(pages(0, n)).Must()
	data := bytes.Repeat([]byte("megabyte"), n*uffd.PageSize/8)
	target.Write(base, data).Must()
	if !bytes.Equal(target.Read(pages(0, n)).Must(), data) {
		t.Error("the bytes read are not those written")
	}
}

func TestTouchVisitsEachPageOnce(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 64, 1000} {
		t.Run(fmt.Sprintf("%d pages", n), func(t *testing.T) {
			const seed = 42
			target := uffdtest.Start(t)
			target.Map(pages(0, n)).Must()
			seen := make(map[uint64]int)
			for _, c := range target.TouchWrite(pages(0, n), 3, seed) {
				for _, a := range c.Must() {
					seen[a.Page]++
					if a.Word != a.Page+seed {
						t.Errorf("page %d holds %d", a.Page, a.Word)
					}
				}
			}
			for page := range n {
				if seen[page] != 1 {
					t.Errorf("page %d was touched %d times", page, seen[page])
				}
			}
			if uint64(len(seen)) != n {
				t.Errorf("%d pages touched", len(seen))
			}
		})
	}
}

func TestForkedChildrenObey(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 1)).Must()
	target.Write(base, []byte("parent")).Must()
	child := target.Fork().Must()
	child.Write(base, []byte("child.")).Must()
	grandchild := child.Fork().Must()
	grandchild.Write(base, []byte("grand.")).Must()
	child.Exit(3).Must()
	for want, target := range map[string]*uffdtest.Target{"parent": target, "grand.": grandchild} {
		if got := target.Read(uffd.Range{Start: base, End: base + 6}).Must(); string(got) != want {
			t.Errorf("process %d reads %q, want %q", target.PID(), got, want)
		}
	}
}

func TestForkWorksWhileThreadsSleepInFaults(t *testing.T) {
	const threads = 8
	target := uffdtest.Start(t)
	target.Map(pages(0, threads)).Must()
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	defer fd.Close()
	target.Register(pages(0, threads), uffd.ModeMissing).Must()
	calls := target.Touch(pages(0, threads), threads, 1)
	for faults := 0; faults < threads; {
		faults += len(uffdtest.Await(t, fd))
	}

	var children []*uffdtest.Target
	for range 3 {
		forking := target.Fork()
		messages := uffdtest.Await(t, fd)
		childFD, err := uffd.FromFD(messages[0].Fork())
		if err != nil {
			t.Fatal(err)
		}
		defer childFD.Close()
		child := forking.Must()
		children = append(children, child)
		if r := childFD.Zeropage(pages(0, threads), 0); r.Outcome != uffd.Done {
			t.Fatal(r.Err())
		}
	}
	for _, child := range children {
		child.Read(pages(0, threads)).Must()
	}
	if r := fd.Zeropage(pages(0, threads), 0); r.Outcome != uffd.Done {
		t.Fatal(r.Err())
	}
	for _, c := range calls {
		c.Must()
	}
}

func TestExecStartsAfresh(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 1)).Must()
	target.Exec().Must()
	var signal *uffdtest.SignalError
	if err := target.Read(pages(0, 1)).Err(); !errors.As(err, &signal) || signal.Signal != unix.SIGSEGV {
		t.Errorf("reading what was mapped before: got %v, want SIGSEGV", err)
	}
	target.Map(pages(0, 1)).Must()
	target.Read(pages(0, 1)).Must()
}

func TestAccessThatIsRefusedEndsTheCallOnly(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 2)).Must()
	target.Mprotect(pages(1, 1), unix.PROT_NONE).Must()
	for range 2 {
		var signal *uffdtest.SignalError
		if err := target.Read(pages(0, 2)).Err(); !errors.As(err, &signal) {
			t.Fatalf("got %v, want a signal", err)
		}
		if signal.Signal != unix.SIGSEGV || !pages(1, 1).Contains(signal.Addr) {
			t.Errorf("got %v", signal)
		}
	}
	if err := target.Write(base+uffd.PageSize, []byte{1}).Err(); !errors.As(err, new(*uffdtest.SignalError)) {
		t.Errorf("writing: got %v, want a signal", err)
	}
	target.Read(pages(0, 1)).Must()
}

func TestSystemCallThatFailsGivesItsErrno(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 2)).Must()
	for name, tt := range map[string]struct{ got, want error }{
		"mapping twice":            {target.Map(pages(1, 1)).Err(), unix.EEXIST},
		"unmapping half a page":    {target.Munmap(uffd.Range{Start: base + 1, End: base + 2}).Err(), unix.EINVAL},
		"unknown advice":           {target.Madvise(pages(0, 1), 9999).Err(), unix.EINVAL},
		"growing into a mapping":   {target.Mremap(pages(0, 1), 2*uffd.PageSize, 0, 0).Err(), unix.ENOMEM},
		"registering without uffd": {target.Register(pages(0, 1), uffd.ModeMissing).Err(), unix.EBADF},
		"unknown feature":          {target.Open(1 << 60).Err(), unix.EINVAL},
		"connecting to nothing":    {target.Dial("/nonexistent").Err(), unix.ENOENT},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, tt.got, tt.want)
		}
	}
}

func TestCallsEndWithTheirTarget(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 1)).Must()
	fd := target.Open(0).Must()
	defer fd.Close()
	target.Register(pages(0, 1), uffd.ModeMissing).Must()
	read := target.Read(pages(0, 1))
	uffdtest.Await(t, fd)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := read.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting without patience: got %v, want Canceled", err)
	}
	if read.Finished() {
		t.Error("a call that sleeps in a fault is finished")
	}

	target.Kill()
	if err := read.Err(); !errors.Is(err, uffdtest.ErrTargetGone) {
		t.Errorf("got %v, want ErrTargetGone", err)
	}
	<-target.Gone()
	if err := target.Read(pages(0, 1)).Err(); !errors.Is(err, uffdtest.ErrTargetGone) {
		t.Errorf("a call after the end: got %v, want ErrTargetGone", err)
	}
}

func TestResidentTellsWhatWasInstalled(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 3)).Must()
	target.Write(base+uffd.PageSize, []byte{1}).Must()
	if diff := cmp.Diff([]bool{false, true, false}, target.Resident(pages(0, 3))); diff != "" {
		t.Errorf("resident (-want +got):\n%s", diff)
	}
}

func TestPIDFDTellsTheEnd(t *testing.T) {
	target := uffdtest.Start(t)
	child := target.Fork().Must()
	for _, p := range []*uffdtest.Target{child, target} {
		pidfd := p.PIDFD()
		defer pidfd.Close()
		p.Kill()
		events := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(events, 60_000); n != 1 || err != nil {
			t.Errorf("process %d does not end: %v", p.PID(), err)
		}
	}
}

func TestWalkGoesWhereItIsTold(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 32)).Must()
	target.TouchWrite(pages(0, 32), 1, 100)[0].Must()
	for _, tt := range []struct {
		name string
		walk uffdtest.Walk
		want []uint64 // pages, in order
	}{
		{"ascending by address", uffdtest.Walk{Range: pages(3, 5), Ascending: true}, []uint64{3, 4, 5, 6, 7}},
		{"with strides", uffdtest.Walk{Range: pages(0, 31), Stride: 10 * uffd.PageSize, Ascending: true}, []uint64{0, 10, 20, 30}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []uint64
			for _, a := range target.Walk(tt.walk)[0].Must() {
				got = append(got, a.Word-100)
				if a.Faulted {
					t.Errorf("page %d is there and faulted", a.Page)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("pages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAccessSaysWhetherItFaulted(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 8)).Must()
	for _, faulted := range []bool{true, false} {
		for _, a := range target.TouchWrite(pages(0, 8), 1, 1)[0].Must() {
			if a.Faulted != faulted {
				t.Errorf("page %d: faulted %v, want %v", a.Page, a.Faulted, faulted)
			}
		}
	}
}

func TestStormsEndWithTheirCallsOrWithCalm(t *testing.T) {
	target := uffdtest.Start(t)
	target.MapEach(base, 8*uffd.PageSize, 16*uffd.PageSize, 3).Must()
	part := func(kind uffdtest.StormKind, calls uint64) uffdtest.Storm {
		return uffdtest.Storm{Kind: kind, Range: pages(0, 8), Part: uffd.PageSize, Calls: calls, Elsewhere: pages(16, 1).Start}
	}
	target.Munmap(pages(16, 8)).Must()
	target.TouchWrite(pages(0, 8), 1, 1)[0].Must()
	for _, kind := range []uffdtest.StormKind{uffdtest.StormFork, uffdtest.StormMremap, uffdtest.StormDontneed, uffdtest.StormMunmap} {
		if took := target.Storm(part(kind, 8)).Must(); len(took) != 8 {
			t.Errorf("%v: %d calls, want 8", kind, len(took))
		}
	}
	if err := target.Read(pages(0, 1)).Err(); err == nil {
		t.Error("what a storm has unmapped is there")
	}
	endless := target.Storm(uffdtest.Storm{Kind: uffdtest.StormDontneed, Range: pages(32, 8), Part: uffd.PageSize, Calls: 1 << 20})
	target.Calm().Must()
	endless.Must()
}

func TestTargetsServeProgramsThatAreNoTests(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	testenv.NeedCC(t)
	target, err := uffdtest.Launch(&uffdtest.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, err := target.Map(pages(0, 1)).Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if pidfd, err := target.DupPIDFD(); err != nil {
		t.Error(err)
	} else {
		pidfd.Close()
	}
}
