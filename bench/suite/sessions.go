package suite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/bench/baseline"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/restore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

var (
	// ownMemory is the server's anonymous memory for each session, without what the kernel keeps for its threads.
	ownMemory = result.Metric{Name: "memory", Unit: "B"}
	// ownThreads is the number of threads for each session.
	ownThreads = result.Metric{Name: "threads", Unit: "threads"}
	// idleCPU is the part of one core, in percent, that the server uses while nobody faults.
	idleCPU = result.Metric{Name: "idle-cpu", Unit: "%"}
	// unfairness is the slowest session's 99th percentile over the fastest one's, while all fault.
	unfairness = result.Metric{Name: "unfairness", Unit: "x"}
	// lastOverFirst is how much longer the last session took for all of its faults than the first one.
	lastOverFirst = result.Metric{Name: "last-over-first", Unit: "x"}
)

func sessionsScenario() scenario.Scenario {
	side := func(m result.Metric) scenario.Side {
		return scenario.Side{Subject: "thaw", Metric: m.Name, Figure: result.Middle}
	}
	c := side(unfairness)
	c.Subject = "c-poll"
	return scenario.Scenario{
		Name: "sessions",
		Summary: "Many sessions at once, each of a process with 1024 scattered pages: what they cost while nothing happens, and how evenly faults are served " +
			"when all processes fault at the same time. The C server has a thread for each.",
		Charts: []result.Chart{
			{Kind: result.OverParam, Title: "Memory of the server for each session", Metric: ownMemory.Name, X: "sessions"},
			{Kind: result.OverParam, Title: "CPU of the idle server, percent of a core", Metric: idleCPU.Name, X: "sessions"},
			{Kind: result.OverParam, Title: "Median latency of a fault, all faulting", Metric: latency.Name, X: "sessions"},
			{Kind: result.OverParam, Title: "Slowest session's p99 over the fastest's", Metric: unfairness.Name, X: "sessions"},
		},
		Goals: []scenario.Goal{
			{Name: "memory of each of 1000 idle sessions", Case: result.P("sessions", "1000"), Ours: side(ownMemory), Want: 64 << 10},
			{Name: "percent of a core, 100 idle sessions", Case: result.P("sessions", "100"), Ours: side(idleCPU), Want: 0.5},
			{Name: "slowest session's p99 over the fastest's", Case: result.P("sessions", "10"), Ours: side(unfairness), Want: 2},
			{Name: "slowest session's p99 over the fastest's", Case: result.P("sessions", "100"), Ours: side(unfairness), Want: 2},
			{Name: "slowest session's p99 over the fastest's", Case: result.P("sessions", "1000"), Ours: side(unfairness), Want: 2},
			{Name: "the same, over C's", Case: result.P("sessions", "1000"), Ours: side(unfairness), Floor: &c, FloorIs: "a thread in C for each process: what the scheduler gives", Want: 1.1},
		},
		Prepare: prepareSessions,
	}
}

// A crowd is so many sessions, in each of which so many pages are touched.
type crowd struct {
	sessions int
	faults   uint64
	idle     time.Duration // how long they are watched while nothing happens
}

func prepareSessions(ctx context.Context, env *scenario.Env) (*scenario.Plan, error) {
	pages := scenario.Pick[uint64](env, 1024, 64)
	im, err := newImage(pages)
	if err != nil {
		return nil, err
	}
	plan := &scenario.Plan{Close: im.Close, Notes: []string{
		"Memory is the growth of this process's anonymous memory while its sessions are added, with the garbage collected before and behind. " +
			"Each thread costs the kernel some 24 KiB more.",
	}}
	idle := scenario.Pick(env, time.Second, 20*time.Millisecond)
	for _, c := range scenario.Pick(env,
		[]crowd{{1, 1024, idle}, {10, 1024, idle}, {100, 512, idle}, {1000, 128, idle}}, []crowd{{1, 64, idle}, {4, 64, idle}}) {
		params := result.P("sessions", strconv.Itoa(c.sessions))
		plan.Trials = append(plan.Trials,
			scenario.Trial{Params: params, Subject: "thaw", Run: func(ctx context.Context) ([]result.Observation, error) { return c.engine(ctx, im) }},
			scenario.Trial{Params: params, Subject: "c-poll", Run: func(ctx context.Context) ([]result.Observation, error) { return c.c(ctx, im) }})
	}
	return plan, nil
}

// start starts the processes.
func (c *crowd) start(ctx context.Context, region restore.Region) (all []*process, err error) {
	all = make([]*process, c.sessions)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range all {
		g.Go(func() (err error) {
			all[i], err = startOne(ctx, 1, region)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		closeAll(all)
		return nil, err
	}
	return all, nil
}

func closeAll(all []*process) {
	for _, p := range all {
		if p != nil {
			p.Close()
		}
	}
}

func (c *crowd) engine(ctx context.Context, im *image) (_ []result.Observation, err error) {
	l := scattered(im.pages())
	all, err := c.start(ctx, l.Regions[0])
	if err != nil {
		return nil, err
	}
	defer closeAll(all)

	before, err := usageOf("self")
	if err != nil {
		return nil, err
	}
	server, err := restore.NewServer(nil)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	engines := make([]*engine, 0, len(all))
	defer func() {
		for _, e := range engines {
			err = errors.Join(err, e.Close())
		}
	}()
	for _, p := range all {
		e, err := startEngine(ctx, p, l, restore.Options{Source: im, Server: server, Stream: restore.StreamNone})
		if err != nil {
			return nil, err
		}
		engines = append(engines, e)
	}
	if err := warmUp(ctx, all); err != nil {
		return nil, err
	}
	after, err := usageOf("self")
	if err != nil {
		return nil, err
	}
	cpu, err := c.idleShare(ctx, func() (time.Duration, error) { return ownCPU(), nil })
	if err != nil {
		return nil, err
	}
	out, err := c.fault(ctx, all, func(p uint64) uint64 { return im.word(p * scatter) })
	return append(out, before.perSession(after, c.sessions), one(ownThreads, float64(after.threads-before.threads)/float64(c.sessions)), cpu), err
}

func (c *crowd) c(ctx context.Context, im *image) (_ []result.Observation, err error) {
	place := contiguous(im.pages())
	all, err := c.start(ctx, place.region())
	if err != nil {
		return nil, err
	}
	fds := make([]*os.File, len(all))
	for i, p := range all {
		fds[i] = p.file
	}
	s, err := baseline.StartServer(ctx, baseline.ServerOptions{Wait: baseline.Poll, Source: im.file, FDs: fds, Placement: place.Placement})
	if err != nil {
		closeAll(all)
		return nil, err
	}
	defer func() { closeAll(all); err = errors.Join(err, s.Close()) }()
	if err := warmUp(ctx, all); err != nil {
		return nil, err
	}
	used, err := usageOf(strconv.Itoa(s.PID()))
	if err != nil {
		return nil, err
	}
	cpu, err := c.idleShare(ctx, func() (time.Duration, error) { return cpuOf(s.PID()) })
	if err != nil {
		return nil, err
	}
	out, err := c.fault(ctx, all, im.word)
	return append(out, usage{}.perSession(used, c.sessions), one(ownThreads, float64(used.threads)/float64(c.sessions)), cpu), err
}

// warmUp has each process fault once, so that all are served.
func warmUp(ctx context.Context, all []*process) error {
	var calls []*uffdtest.Call[[]byte]
	for _, p := range all {
		calls = append(calls, p.Read(uffd.Range{Start: base, End: base + 8}))
	}
	for _, c := range calls {
		if _, err := c.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// idleShare measures the CPU that is used while nothing happens.
func (c *crowd) idleShare(ctx context.Context, cpu func() (time.Duration, error)) (result.Observation, error) {
	before, err := cpu()
	if err != nil {
		return result.Observation{}, err
	}
	waitUntil(ctx, monotonic()+uint64(c.idle))
	after, err := cpu()
	return one(idleCPU, 100*(after-before).Seconds()/c.idle.Seconds()), err
}

// fault has all processes fault at the same time.
func (c *crowd) fault(ctx context.Context, crowd []*process, word func(uint64) uint64) ([]result.Observation, error) {
	lead := startLead + time.Duration(len(crowd))*100*time.Microsecond
	w := uffdtest.Walk{Range: uffd.Range{Start: base + page, End: base + c.faults*page}, Seed: 9, Start: monotonic() + uint64(lead)}
	calls := make([][]*uffdtest.Call[[]uffdtest.Access], len(crowd))
	for i, p := range crowd {
		calls[i] = p.Walk(w)
	}
	var waits []time.Duration
	var tails, sums []float64
	for _, call := range calls {
		seen, err := collect(ctx, call)
		if err != nil {
			return nil, err
		}
		if err := check(seen, func(n uint64) uint64 { return word(n + 1) }); err != nil {
			return nil, err
		}
		took := faulted(seen)
		waits = append(waits, took...)
		tails = append(tails, result.QuantilesOf(many(latency, took).Values).P99)
		sums = append(sums, sum(took).Seconds())
	}
	all := time.Duration(monotonic() - w.Start)
	out := []result.Observation{many(latency, waits), one(touchRate, float64(len(waits))/all.Seconds())}
	if len(tails) > 1 {
		out = append(out, one(unfairness, slices.Max(tails)/slices.Min(tails)), one(lastOverFirst, slices.Max(sums)/slices.Min(sums)))
	}
	return out, nil
}

// usage is what a process takes.
type usage struct {
	anonymous uint64 // bytes
	threads   uint64
}

// perSession observes the memory for each session, added since u was taken.
func (u usage) perSession(after usage, sessions int) result.Observation {
	return one(ownMemory, float64(int64(after.anonymous)-int64(u.anonymous))/float64(sessions))
}

// usageOf reads what a process takes, "self" for this one, whose garbage is collected before.
func usageOf(pid string) (u usage, err error) {
	if pid == "self" {
		debug.FreeOSMemory()
	}
	f, err := os.Open("/proc/" + pid + "/status")
	if err != nil {
		return u, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSuffix(strings.TrimSpace(value), " kB")
		switch key {
		case "RssAnon":
			kib, perr := strconv.ParseUint(value, 10, 64)
			u.anonymous, err = kib<<10, errors.Join(err, perr)
		case "Threads":
			n, perr := strconv.ParseUint(value, 10, 64)
			u.threads, err = n, errors.Join(err, perr)
		}
	}
	return u, err
}

// cpuOf returns the CPU time that a process has used, to the nanosecond, where the kernel counts so.
func cpuOf(pid int) (time.Duration, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, t := range tasks {
		// The first number is the time on a CPU in nanoseconds.
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("schedstat of %d: %w", pid, err)
		}
		total += time.Duration(n)
	}
	return total, nil
}
