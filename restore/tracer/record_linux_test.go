package tracer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
	"thaw/restore/tracer/trace"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestEachTouchedPageIsRecordedOnceAndNoOther(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c := uffdtest.Start(t)
		all, read, write, both := pagesAt(0, 64), pagesAt(0, 16), pagesAt(16, 16), pagesAt(32, 16)
		c.Map(all).Must()
		r := start(Target{PIDs: []int{c.PID()}}, nil)
		for range 2 {
			walk(t, c, read, false)
			walk(t, c, write, true)
			walk(t, c, both, false)
			walk(t, c, both, true)
		}
		tr := stop(t, r)
		want := touched{}.want(read, "r").want(write, "w").want(both, "rw")
		if diff := cmp.Diff(want, touchesIn(tr, c.PID(), all)); diff != "" {
			t.Errorf("touches, by page (-want +got):\n%s", diff)
		}
		if !tr.Complete() || tr.End != trace.EndStopped || tr.Point == 0 || tr.Blind != tr.Point.Blind() {
			t.Errorf("the trace is %v, complete: %t, from %v, blind to %v", tr.End, tr.Complete(), tr.Point, tr.Blind)
		}
		if pids := tr.Chosen(); len(pids) != 1 || pids[0] != uint32(c.PID()) {
			t.Errorf("chosen are %d", pids)
		}
	})
}

func TestKernelTouchesAreToldApart(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c := uffdtest.Start(t)
		all := pagesAt(0, 2)
		c.Map(all).Must()
		r := start(Target{PIDs: []int{c.PID()}}, nil)
		c.ReadByKernel(all.Start).Must()
		walk(t, c, pagesAt(1, 1), false)
		got := touchesIn(stop(t, r), c.PID(), all)
		if diff := cmp.Diff(touched{0: "R", 1: "r"}, got); diff != "" {
			t.Errorf("touches, by page (-want +got):\n%s", diff)
		}
	})
}

func TestThreadsThatRaceRecordAPageOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c := uffdtest.Start(t)
		all := pagesAt(0, 512)
		c.Map(all).Must()
		r := start(Target{PIDs: []int{c.PID()}}, nil)
		// Two walks over all pages, in the same order at the same time: most pages have two that want to be the first.
		one, two := c.TouchWrite(all, 1, 7), c.TouchWrite(all, 1, 7)
		one[0].Must()
		two[0].Must()
		tr := stop(t, r)
		if diff := cmp.Diff(touched{}.want(all, "w"), touchesIn(tr, c.PID(), all)); diff != "" {
			t.Errorf("touches, by page (-want +got):\n%s", diff)
		}
		for _, x := range tr.Touches {
			if x.TID == 0 {
				t.Fatalf("touch without a thread: %+v", x)
			}
		}
	})
}

func TestOthersAreNotRecorded(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c, other := uffdtest.Start(t), uffdtest.Start(t)
		all := pagesAt(0, 64)
		c.Map(all).Must()
		other.Map(all).Must()
		r := start(Target{PIDs: []int{c.PID()}}, nil)
		walk(t, other, all, true)
		walk(t, c, pagesAt(3, 1), true)
		tr := stop(t, r)
		if diff := cmp.Diff(touched{3: "w"}, touchesIn(tr, c.PID(), all)); diff != "" {
			t.Errorf("touches, by page (-want +got):\n%s", diff)
		}
		for _, s := range tr.Spaces {
			if s.PID != uint32(c.PID()) {
				t.Errorf("space of another process: %+v", s)
			}
		}
	})
}

func TestForkedChildrenAreFollowed(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c := uffdtest.Start(t)
		all, before, after := pagesAt(0, 32), pagesAt(0, 8), pagesAt(8, 8)
		c.Map(all).Must()
		r := start(Target{PIDs: []int{c.PID()}}, nil)
		walk(t, c, before, true)
		child := c.Fork().Must()
		walk(t, child, before, true) // copies of the parent's pages
		walk(t, child, after, false)
		grandchild := child.Fork().Must()
		walk(t, grandchild, after, true)
		tr := stop(t, r)
		parent, forked := spaceOf(t, tr, trace.OriginChosen, c.PID()), spaceOf(t, tr, trace.OriginFork, child.PID())
		if forked.Parent != parent.ID || spaceOf(t, tr, trace.OriginFork, grandchild.PID()).Parent != forked.ID {
			t.Errorf("spaces are %+v", tr.Spaces)
		}
		for _, tt := range []struct {
			pid  int
			want touched
		}{
			{c.PID(), touched{}.want(before, "w")},
			{child.PID(), touched{}.want(before, "w").want(after, "r")},
			{grandchild.PID(), touched{}.want(after, "w")},
		} {
			if diff := cmp.Diff(tt.want, touchesIn(tr, tt.pid, all)); diff != "" {
				t.Errorf("touches of process %d, by page (-want +got):\n%s", tt.pid, diff)
			}
		}
	})
}

func TestExecBeginsANewSpace(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c := uffdtest.Start(t)
		all := pagesAt(0, 4)
		c.Map(all).Must()
		r := start(Target{PIDs: []int{c.PID()}}, nil)
		walk(t, c, all, true)
		c.Exec().Must()
		c.Map(all).Must()
		walk(t, c, all, true)
		tr := stop(t, r)
		old, fresh := spaceOf(t, tr, trace.OriginChosen, c.PID()), spaceOf(t, tr, trace.OriginExec, c.PID())
		if fresh.Parent != old.ID || old.Ended != fresh.Began {
			t.Errorf("spaces are %+v", tr.Spaces)
		}
		// Each page once before and once after.
		if diff := cmp.Diff(touched{}.want(all, "ww"), touchesIn(tr, c.PID(), all)); diff != "" {
			t.Errorf("touches, by page (-want +got):\n%s", diff)
		}
		for _, x := range tr.Touches {
			if x.Space == old.ID && x.Time > fresh.Began {
				t.Errorf("touch of the old space after the exec: %+v", x)
			}
		}
	})
}

func TestRecordingEndsWithTheLastProcess(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c, second := uffdtest.Start(t), uffdtest.Start(t)
		all := pagesAt(0, 4)
		c.Map(all).Must()
		r := start(Target{PIDs: []int{c.PID(), second.PID(), c.PID()}}, nil)
		child := c.Fork().Must()
		walk(t, child, all, true)
		c.Exit(0).Must()
		second.Kill()
		child.Exit(0)
		tr := collect(t, r)
		if tr.End != trace.EndExited || !tr.Complete() {
			t.Errorf("the trace is %v, complete: %t", tr.End, tr.Complete())
		}
		if diff := cmp.Diff(touched{}.want(all, "w"), touchesIn(tr, child.PID(), all)); diff != "" {
			t.Errorf("touches, by page (-want +got):\n%s", diff)
		}
		for _, s := range tr.Spaces {
			if s.Ended == trace.Alive {
				t.Errorf("space that never ended: %+v", s)
			}
		}
	})
}

func TestProcessThatHasEndedAlreadyIsATraceWithoutTouches(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c := uffdtest.Start(t)
		c.Kill()
		<-c.Gone()
		fd, err := c.DupPIDFD()
		if err != nil {
			t.Fatal(err)
		}
		defer fd.Close()
		// It is a zombie until Close; wait until it is one.
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd.Fd()), Events: unix.POLLIN}}, -1); err != nil {
			t.Fatal(err)
		}
		tr := collect(t, start(Target{PIDs: []int{c.PID()}}, nil))
		if tr.End != trace.EndExited || len(tr.Touches) != 0 {
			t.Errorf("the trace is %v with %d touches", tr.End, len(tr.Touches))
		}
	})
}

func TestRecordingOfProcessesThatExitAtOnceEnds(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		for range 8 {
			c := uffdtest.Start(t)
			c.Kill() // sooner or later than the recording begins
			if tr := collect(t, start(Target{PIDs: []int{c.PID()}}, &Options{MaxPages: 1 << 10})); tr.End != trace.EndExited {
				t.Errorf("the trace is %v", tr.End)
			}
		}
	})
}

func TestOneProcessCanBeTracedTwice(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c := uffdtest.Start(t)
		all := pagesAt(0, 64)
		c.Map(all).Must()
		one := start(Target{PIDs: []int{c.PID()}}, nil)
		two := start(Target{PIDs: []int{c.PID()}}, nil)
		walk(t, c, pagesAt(0, 16), true)
		first := stop(t, one)
		walk(t, c, pagesAt(16, 16), true)
		second := stop(t, two)
		if diff := cmp.Diff(touched{}.want(pagesAt(0, 16), "w"), touchesIn(first, c.PID(), all)); diff != "" {
			t.Errorf("touches of the one, by page (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(touched{}.want(pagesAt(0, 32), "w"), touchesIn(second, c.PID(), all)); diff != "" {
			t.Errorf("touches of the other, by page (-want +got):\n%s", diff)
		}
	})
}

func TestTouchesThatDidNotFitAreCounted(t *testing.T) {
	testenv.NeedTracing(t) // not by the helper, which would read meanwhile
	const n = 4096
	for _, tt := range []struct {
		name string
		opts Options
		lost func(*trace.Trace) uint64
	}{
		{"the ring buffer is full", Options{RingBytes: 1}, func(tr *trace.Trace) uint64 { return tr.LostRing }},
		{"there are more pages than can be told apart", Options{MaxPages: 64}, func(tr *trace.Trace) uint64 { return tr.LostSpace }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := uffdtest.Start(t)
			c.Map(pagesAt(0, n)).Must()
			r, err := NewRecorder(Target{PIDs: []int{c.PID()}}, &tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			walk(t, c, pagesAt(0, n), true)
			tr := stop(t, r)
			if tr.Complete() || tt.lost(tr) == 0 || tt.lost(tr) != tr.Lost() {
				t.Errorf("lost %d and %d, complete: %t", tr.LostRing, tr.LostSpace, tr.Complete())
			}
			if got := uint64(len(tr.Touches)) + tr.Lost(); got < n {
				t.Errorf("%d touches and %d lost events make less than %d", len(tr.Touches), tr.Lost(), n)
			}
		})
	}
}

func TestLazilyRestoredMemoryIsRecorded(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c := uffdtest.Start(t)
		all := pagesAt(0, 4)
		c.Map(all).Must()
		fd := c.Open(uffdtest.CRIUFeatures).Must()
		defer fd.Close()
		c.Register(all, uffd.ModeMissing).Must()
		r := start(Target{PIDs: []int{c.PID()}}, nil)
		page := make([]byte, uffd.PageSize)
		for at := all.Start; at < all.End; at += uffd.PageSize {
			call := c.Read(uffd.Range{Start: at, End: at + 1})
			for _, m := range uffdtest.Await(t, fd) {
				addr, _, _ := m.PageFault()
				if res := fd.Copy(addr, page, 0); res.Outcome != uffd.Done {
					t.Fatalf("copy: %+v", res)
				}
			}
			call.Must()
		}
		got := touchesIn(stop(t, r), c.PID(), all)
		for page := range got {
			got[page] = strings.ToLower(got[page]) // it may be the kernel that reads, to send the bytes
		}
		if diff := cmp.Diff(touched{}.want(all, "r"), got); diff != "" {
			t.Errorf("touches, by page (-want +got):\n%s", diff)
		}
	})
}

func TestFileMappedMemoryIsRecorded(t *testing.T) {
	for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
				c := uffdtest.Start(t)
				all := pagesAt(0, 16)
				c.MapMemfd(all, flags).Must().Close()
				r := start(Target{PIDs: []int{c.PID()}}, nil)
				walk(t, c, all, true)
				tr := stop(t, r)
				if diff := cmp.Diff(touched{}.want(all, "w"), touchesIn(tr, c.PID(), all)); diff != "" {
					t.Errorf("touches, by page (-want +got):\n%s", diff)
				}
				name := ""
				for _, r := range tr.Regions {
					if r.Start <= all.Start && all.Start < r.End {
						name = r.Name
					}
				}
				if !strings.Contains(name, "memfd") {
					t.Errorf("the region is called %q", name)
				}
			})
		})
	}
}

func TestProcessesOfACgroupAreRecorded(t *testing.T) {
	mount := testenv.CgroupV2(t)
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		group := filepath.Join(mount, fmt.Sprintf("thaw-tracer-test-%d", os.Getpid()))
		below := filepath.Join(group, "below")
		for _, dir := range []string{group, below} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
			})
		}
		c, other := uffdtest.Start(t), uffdtest.Start(t)
		enter := func(dir string, pid int) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(pid)), 0); err != nil {
				t.Fatal(err)
			}
		}
		enter(below, c.PID())
		t.Cleanup(func() { enter(mount, c.PID()) })
		all := pagesAt(0, 8)
		c.Map(all).Must()
		other.Map(all).Must()
		r := start(Target{Cgroup: group}, nil)
		walk(t, c, all, true)
		walk(t, other, all, true)
		child := c.Fork().Must()
		walk(t, child, all, true)
		tr := stop(t, r)
		child.Kill()
		<-child.Gone()
		for _, pid := range []int{c.PID(), child.PID()} {
			if diff := cmp.Diff(touched{}.want(all, "w"), touchesIn(tr, pid, all)); diff != "" {
				t.Errorf("touches of process %d, by page (-want +got):\n%s", pid, diff)
			}
		}
		if got := touchesIn(tr, other.PID(), all); len(got) > 0 {
			t.Errorf("touches outside of the group: %v", got)
		}
		spaceOf(t, tr, trace.OriginJoined, c.PID())
	})
}

func TestTargetsThatAreNoneAreRefused(t *testing.T) {
	testenv.NeedTracing(t)
	ended := uffdtest.Start(t)
	ended.Close()
	threaded := uffdtest.Start(t)
	threaded.Map(pagesAt(0, 1)).Must()
	walk(t, threaded, pagesAt(0, 1), false) // has made a thread
	for _, tt := range []struct {
		name   string
		target Target
		want   error
	}{
		{"nothing", Target{}, ErrTarget},
		{"both", Target{PIDs: []int{1}, Cgroup: "/"}, ErrTarget},
		{"a cgroup and processes that come later", Target{Later: true, Cgroup: "/"}, ErrTarget},
		{"a number that is no pid", Target{PIDs: []int{-1}}, ErrTarget},
		{"too many", Target{PIDs: make([]int, maxPIDs+1)}, ErrTarget},
		{"a process that has ended", Target{PIDs: []int{ended.PID()}}, ErrNoProcess},
		{"a thread", Target{PIDs: []int{threadOf(t, threaded.PID())}}, ErrNoProcess},
		{"a folder that is no cgroup", Target{Cgroup: t.TempDir()}, ErrTarget},
		{"a folder that does not exist", Target{Cgroup: filepath.Join(t.TempDir(), "none")}, ErrTarget},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, start := range starters {
				if r, err := start(t.Context(), tt.target, nil); !errors.Is(err, tt.want) {
					if err == nil {
						r.Close()
					}
					t.Errorf("%s: %v, want %v", name, err, tt.want)
				}
			}
		})
	}
}

// threadOf returns a thread of a process that is not its first.
func threadOf(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var tid int
		if _, err := fmt.Sscan(e.Name(), &tid); err == nil && tid != pid {
			return tid
		}
	}
	t.Fatal("the process has one thread only")
	return 0
}

func TestProbeFindsThePointThatIsUsed(t *testing.T) {
	testenv.NeedTracing(t)
	info, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	// The tracepoints are there; what is better may be.
	if info.Point < trace.PointFentry || info.Point > trace.PointTracepoints || len(info.Refused) != int(info.Point-trace.PointFentry) {
		t.Errorf("point is %v, refused %v", info.Point, info.Refused)
	}
	for _, f := range info.Refused {
		t.Log(f)
	}
}
