package tracer

import (
	"context"
	"os"
	"testing"

	"thaw/internal/testenv"
	"thaw/restore/tracer/trace"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// TestMain is also the helper process: the test binary runs itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == helperCommand {
		os.Exit(Main(os.Args[2:]))
	}
	// The race detector would have each helper sleep for a second before it ends.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	testenv.Main(m)
}

// base is where targets map what they touch. Nothing else is there.
const base = 0x100000000000

func pagesAt(page, n uint64) uffd.Range {
	return uffd.Range{Start: base + page*uffd.PageSize, End: base + (page+n)*uffd.PageSize}
}

// closer is a recording of either kind.
type closer interface {
	recording
	Close() error
}

// starters are the ways to record, which have to find the same.
var starters = map[string]func(context.Context, Target, *Options) (closer, error){
	"in process": func(_ context.Context, t Target, o *Options) (closer, error) { return NewRecorder(t, o) },
	"by helper":  func(ctx context.Context, t Target, o *Options) (closer, error) { return Start(ctx, t, o) },
}

// eachWay runs a test with all ways to record.
func eachWay(t *testing.T, test func(*testing.T, func(Target, *Options) closer)) {
	testenv.NeedTracing(t)
	for name, start := range starters {
		t.Run(name, func(t *testing.T) {
			test(t, func(target Target, o *Options) closer {
				t.Helper()
				r, err := start(t.Context(), target, o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := r.Close(); err != nil {
						t.Error(err)
					}
				})
				return r
			})
		})
	}
}

// stop ends a recording and returns its trace.
func stop(t *testing.T, r closer) *trace.Trace {
	t.Helper()
	r.Stop()
	return collect(t, r)
}

// collect waits until a recording ends, and checks that its trace survives being written.
func collect(t *testing.T, r closer) *trace.Trace {
	t.Helper()
	tr, err := Collect(t.Context(), r, "", Mappings)
	if err != nil {
		t.Fatal(err)
	}
	data, err := tr.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if tr, err = trace.Decode(data); err != nil {
		t.Fatal(err)
	}
	return tr
}

// touched is what a test expects of a page: how it was touched, in order.
type touched map[uint64]string

// touchesIn returns the touches of a process within a range, by page from base: "r" or "w", in capitals by the kernel.
func touchesIn(tr *trace.Trace, pid int, r uffd.Range) touched {
	pids := make(map[uint32]uint32)
	for _, s := range tr.Spaces {
		pids[s.ID] = s.PID
	}
	got := make(touched)
	for _, x := range tr.Touches {
		if pids[x.Space] != uint32(pid) || x.Addr < r.Start || x.Addr >= r.End {
			continue
		}
		how := "r"
		switch {
		case x.Write && x.Kernel:
			how = "W"
		case x.Kernel:
			how = "R"
		case x.Write:
			how = "w"
		}
		got[(x.Addr-base)/uffd.PageSize] += how
	}
	return got
}

// want returns the expectation that each page of a range was touched so.
func (w touched) want(r uffd.Range, how string) touched {
	for page := r.Start; page < r.End; page += uffd.PageSize {
		w[(page-base)/uffd.PageSize] = how
	}
	return w
}

func walk(t *testing.T, c *uffdtest.Target, r uffd.Range, write bool) {
	t.Helper()
	for _, call := range c.Walk(uffdtest.Walk{Range: r, Write: write, Seed: r.Start}) {
		call.Must()
	}
}

// space returns the only space of an origin and a process.
func spaceOf(t *testing.T, tr *trace.Trace, o trace.Origin, pid int) trace.Space {
	t.Helper()
	var found []trace.Space
	for _, s := range tr.Spaces {
		if s.Origin == o && s.PID == uint32(pid) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("spaces of process %d by %v: %+v, of all %+v", pid, o, found, tr.Spaces)
	}
	return found[0]
}
