package tracer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/internal/testenv"
	"thaw/restore/tracer/trace"
	"thaw/uffd/uffdtest"
)

// chooseFor names processes for a recording of either kind.
func chooseFor(ctx context.Context, r closer, pids ...int) (time.Duration, error) {
	if c, ok := r.(*Client); ok {
		return c.Choose(ctx, pids...)
	}
	return r.(*Recorder).Choose(pids...)
}

func mustChoose(t *testing.T, r closer, pids ...int) time.Duration {
	t.Helper()
	at, err := chooseFor(t.Context(), r, pids...)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestProcessesThatAreNamedLaterAreRecordedFromThenOn(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		first, second := uffdtest.Start(t), uffdtest.Start(t)
		all := pagesAt(0, 32)
		first.Map(all).Must()
		second.Map(all).Must()
		r := start(Target{Later: true}, nil)
		walk(t, first, pagesAt(0, 8), true)
		firstAt := mustChoose(t, r, first.PID())
		walk(t, first, pagesAt(8, 8), true)
		walk(t, second, pagesAt(8, 8), true)
		secondAt := mustChoose(t, r, second.PID())
		walk(t, second, pagesAt(16, 8), true)
		walk(t, first, pagesAt(16, 8), true)
		tr := stop(t, r)
		if tr.End != trace.EndStopped || !tr.Complete() {
			t.Errorf("the trace is %v, complete: %t", tr.End, tr.Complete())
		}
		for _, tt := range []struct {
			pid  int
			at   time.Duration
			want touched
		}{
			{first.PID(), firstAt, touched{}.want(pagesAt(8, 16), "w")},
			{second.PID(), secondAt, touched{}.want(pagesAt(16, 8), "w")},
		} {
			if diff := cmp.Diff(tt.want, touchesIn(tr, tt.pid, all)); diff != "" {
				t.Errorf("touches of process %d, by page (-want +got):\n%s", tt.pid, diff)
			}
			s := spaceOf(t, tr, trace.OriginChosen, tt.pid)
			if s.Began != tt.at || tt.at <= 0 {
				t.Errorf("process %d was chosen at %v, and its space begins at %v", tt.pid, tt.at, s.Began)
			}
			for _, x := range tr.Touches {
				if x.Space == s.ID && x.Time < s.Began {
					t.Fatalf("touch before the space begins, at %v: %+v", s.Began, x)
				}
			}
		}
		if firstAt >= secondAt {
			t.Errorf("chosen at %v and then at %v", firstAt, secondAt)
		}
		for _, region := range tr.Regions {
			if region.Start <= all.Start && all.Start < region.End {
				return
			}
		}
		t.Errorf("the region that was touched is not known: %+v", tr.Regions)
	})
}

func TestProcessesCanBeAddedToThoseOfTheStart(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		first, second := uffdtest.Start(t), uffdtest.Start(t)
		all := pagesAt(0, 4)
		second.Map(all).Must()
		r := start(Target{PIDs: []int{first.PID()}}, nil)
		mustChoose(t, r, second.PID())
		child := second.Fork().Must()
		walk(t, child, all, true)
		tr := stop(t, r)
		if diff := cmp.Diff(touched{}.want(all, "w"), touchesIn(tr, child.PID(), all)); diff != "" {
			t.Errorf("touches, by page (-want +got):\n%s", diff)
		}
		parent := spaceOf(t, tr, trace.OriginChosen, second.PID())
		if forked := spaceOf(t, tr, trace.OriginFork, child.PID()); forked.Parent != parent.ID {
			t.Errorf("spaces are %+v", tr.Spaces)
		}
		if s := spaceOf(t, tr, trace.OriginChosen, first.PID()); s.Began != 0 {
			t.Errorf("the space of the start begins at %v", s.Began)
		}
	})
}

func TestNextTellsOfAProcessBeforeItsFirstTouch(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		r := start(Target{Later: true}, nil)
		done := make(chan error, 1)
		told := make(map[uint32]bool)
		go func() {
			events := make([]trace.Event, 7) // fewer than come
			for {
				n, err := r.Next(events)
				if err != nil {
					done <- err
					return
				}
				for _, e := range events[:n] {
					if e.Kind == trace.KindChosen {
						told[e.Space] = true
					} else if !told[e.Space] {
						t.Errorf("event of a space that is not known: %+v", e)
					}
				}
			}
		}()
		for range 16 {
			c := uffdtest.Start(t)
			c.Map(pagesAt(0, 64)).Must()
			// It touches before, while and after it is chosen.
			calls := c.Walk(uffdtest.Walk{Range: pagesAt(0, 64), Write: true})
			mustChoose(t, r, c.PID())
			for _, call := range calls {
				call.Must()
			}
		}
		r.Stop()
		<-done
		if len(told) != 16 {
			t.Errorf("told of %d processes", len(told))
		}
	})
}

func TestRecordingEndsWithTheLastOfThoseThatWereNamedLater(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c, zombie := uffdtest.Start(t), uffdtest.Start(t)
		r := start(Target{Later: true}, nil)
		c.Map(pagesAt(0, 1)).Must()
		mustChoose(t, r, c.PID())
		zombie.Kill()
		mustChoose(t, r, zombie.PID()) // which has ended, or is about to
		c.Kill()
		tr := collect(t, r)
		if tr.End != trace.EndExited || !tr.Complete() {
			t.Errorf("the trace is %v, complete: %t", tr.End, tr.Complete())
		}
		if _, err := chooseFor(t.Context(), r, os.Getpid()); !errors.Is(err, ErrEnded) {
			t.Errorf("Choose after the end returns %v", err)
		}
	})
}

func TestRecordingWithoutProcessesGoesOnUntilItIsStopped(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		if tr := stop(t, start(Target{Later: true}, nil)); tr.End != trace.EndStopped || len(tr.Spaces) != 0 || !tr.Complete() {
			t.Errorf("the trace is %v of spaces %+v", tr.End, tr.Spaces)
		}
	})
}

func TestProcessThatIsNamedAgainStaysAsItIs(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		c := uffdtest.Start(t)
		all := pagesAt(0, 4)
		c.Map(all).Must()
		r := start(Target{Later: true}, nil)
		mustChoose(t, r, c.PID(), c.PID())
		walk(t, c, all, true)
		child := c.Fork().Must()
		mustChoose(t, r, c.PID(), child.PID())
		walk(t, c, all, true)
		tr := stop(t, r)
		spaceOf(t, tr, trace.OriginChosen, c.PID())
		spaceOf(t, tr, trace.OriginFork, child.PID())
		if len(tr.Spaces) != 2 || !tr.Complete() {
			t.Errorf("spaces are %+v, complete: %t", tr.Spaces, tr.Complete())
		}
		if diff := cmp.Diff(touched{}.want(all, "w"), touchesIn(tr, c.PID(), all)); diff != "" {
			t.Errorf("touches, by page (-want +got):\n%s", diff)
		}
	})
}

func TestProcessesThatCannotBeChosenAreRefusedAndNothingElseChanges(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		gone := uffdtest.Start(t)
		gone.Close()
		c := uffdtest.Start(t)
		all := pagesAt(0, 4)
		c.Map(all).Must()
		r := start(Target{Later: true}, nil)
		for _, tt := range []struct {
			name string
			pids []int
			want error
		}{
			{"a process that is gone, beside one that is not", []int{c.PID(), gone.PID()}, ErrNoProcess},
			{"a number that is no pid", []int{0}, ErrTarget},
			{"too many", make([]int, maxPIDs+1), ErrTarget},
		} {
			if at, err := chooseFor(t.Context(), r, tt.pids...); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, %v, want %v", tt.name, at, err, tt.want)
			}
		}
		walk(t, c, pagesAt(0, 2), true)
		mustChoose(t, r, c.PID())
		walk(t, c, pagesAt(2, 2), true)
		tr := stop(t, r)
		if diff := cmp.Diff(touched{}.want(pagesAt(2, 2), "w"), touchesIn(tr, c.PID(), all)); diff != "" || len(tr.Spaces) != 1 {
			t.Errorf("%d spaces; touches, by page (-want +got):\n%s", len(tr.Spaces), diff)
		}
	})
}

func TestNoProcessCanBeChosenBesideACgroup(t *testing.T) {
	mount := testenv.CgroupV2(t)
	eachWay(t, func(t *testing.T, start func(Target, *Options) closer) {
		group := filepath.Join(mount, "thaw-tracer-choose-test")
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(group); err != nil {
				t.Error(err)
			}
		})
		r := start(Target{Cgroup: group}, nil)
		if _, err := chooseFor(t.Context(), r, os.Getpid()); !errors.Is(err, ErrTarget) {
			t.Errorf("Choose returns %v", err)
		}
	})
}

func TestChoosingDoesNotWaitForTheEventsToBeTaken(t *testing.T) {
	busy, late := uffdtest.Start(t), uffdtest.Start(t)
	c := startHelper(t, Target{PIDs: []int{busy.PID()}}, nil)
	// More than the socket holds: the helper waits for somebody to take them.
	busy.Map(pagesAt(0, 1<<15)).Must()
	walk(t, busy, pagesAt(0, 1<<15), true)
	mustChoose(t, c, late.PID())
	if tr := stop(t, c); !tr.Complete() {
		t.Errorf("%d and %d events were lost", tr.LostRing, tr.LostSpace)
	}
}

func TestChoosingEndsWithItsContext(t *testing.T) {
	c := startHelper(t, Target{Later: true}, nil)
	if err := syscall.Kill(c.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Choose(ctx, os.Getpid()); !errors.Is(err, context.Canceled) {
		t.Errorf("Choose returns %v", err)
	}
	if err := syscall.Kill(c.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// Whose answer it got could not be told.
	if _, err := c.Choose(t.Context(), os.Getpid()); !errors.Is(err, context.Canceled) {
		t.Errorf("Choose after that returns %v", err)
	}
}

func TestChoosingByAHelperThatIsKilledSaysThatItIsGone(t *testing.T) {
	c := startHelper(t, Target{Later: true}, nil)
	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Choose(t.Context(), os.Getpid()); !errors.Is(err, ErrGone) {
		t.Errorf("Choose returns %v", err)
	}
}
