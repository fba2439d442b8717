package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"thaw/bench/baseline"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/pagestore"
	"thaw/restore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func fillScenario() scenario.Scenario {
	side := func(subject string, m result.Metric) scenario.Side {
		return scenario.Side{Subject: subject, Metric: m.Name, Figure: result.Middle}
	}
	c := func(m result.Metric) *scenario.Side { s := side("c-bulk", m); return &s }
	long := result.P("run", "512", "workers", "2", "source", "memory", "size", "256MiB")
	return scenario.Scenario{
		Name: "fill",
		Summary: "A whole image is installed in bulk: by its size, by the length of its runs (with a page without content between any two), by workers; " +
			"from memory, from a store in the page cache, and from a store that is not. Reading and mapping take one thread, whatever the workers.",
		Charts: []result.Chart{
			{Kind: result.OverTime, Title: "1 GiB over time, two workers", Metric: fillRate.Name, Only: result.P("size", "1GiB")},
			{Kind: result.OverParam, Title: "Speed by length of the runs", Metric: fillRate.Name, X: "run", Only: result.P("size", "256MiB", "source", "memory")},
			{Kind: result.OverParam, Title: "Core-seconds per GB by length of the runs", Metric: cpuCost.Name, X: "run", Only: result.P("size", "256MiB", "source", "memory")},
			{Kind: result.OverParam, Title: "Speed by size, runs of 512 pages, two workers", Metric: fillRate.Name, X: "size", Only: result.P("source", "memory", "run", "512", "workers", "2")},
		},
		Goals: []scenario.Goal{
			{Name: "speed of long runs, two workers, over C", Case: long, Ours: side("thaw", fillRate), Floor: c(fillRate), FloorIs: "two threads in C that copy 512 KiB a call", Want: 0.95, AtLeast: true},
			{Name: "core-seconds per GB of long runs, over C", Case: long, Ours: side("thaw", cpuCost), Floor: c(cpuCost), FloorIs: "two threads in C that copy 512 KiB a call", Want: 1.1},
			{Name: "speed of runs of 2 pages, over C", Case: result.P("run", "2", "source", "memory", "workers", "2"),
				Ours: side("thaw", fillRate), Floor: c(fillRate), FloorIs: "a loop in C over the same runs, a call for each", Want: 0.9, AtLeast: true},
		},
		Prepare: prepareFill,
	}
}

// MiB is so many pages.
const mib = (1 << 20) / page

// A fillCase is a setting of the fill scenario.
type fillCase struct {
	size    uint64 // pages with content
	run     uint64
	workers int
	source  string
}

func (c *fillCase) params() result.Params {
	return result.P("source", c.source, "size", sizeName(c.size), "run", strconv.FormatUint(c.run, 10), "workers", strconv.Itoa(c.workers))
}

func sizeName(pages uint64) string {
	switch {
	case pages%(1024*mib) == 0:
		return fmt.Sprintf("%dGiB", pages/(1024*mib))
	case pages%mib == 0:
		return fmt.Sprintf("%dMiB", pages/mib)
	}
	return fmt.Sprintf("%dKiB", pages*page>>10)
}

// place returns runs with a gap of one page between them.
func (c *fillCase) place() placement { return inRuns(c.size/c.run*(c.run+1), c.run, 1) }

// A filler is what the trials of the fill scenario share.
type filler struct {
	im    *image
	env   *scenario.Env
	flat  *os.File // the image in a file on the disk
	store *pagestore.Store
	// open is the snapshot whose pages stay mapped and verified.
	open   *pagestore.Snapshot
	cached *pagestore.Image
}

func prepareFill(ctx context.Context, env *scenario.Env) (_ *scenario.Plan, err error) {
	sizes := scenario.Pick(env, []uint64{16 * mib, 256 * mib, 1024 * mib}, []uint64{2 * mib, 4 * mib})
	medium := scenario.Pick[uint64](env, 256*mib, 4*mib)
	f := &filler{env: env}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.im, err = newImage(slices.Max(sizes)); err != nil {
		return nil, err
	}
	stored := fillCase{size: medium, run: 512, source: "store"}
	if err := f.makeFiles(ctx, &stored); err != nil {
		return nil, err
	}
	plan := &scenario.Plan{Close: f.Close}
	for _, size := range sizes {
		f.add(plan, fillCase{size: size, run: 512, workers: 2, source: "memory"})
	}
	for _, workers := range []int{1, 2} {
		for _, run := range scenario.Pick(env, []uint64{1, 2, 4, 16, 512}, []uint64{1, 512}) {
			if run != 512 || workers != 2 { // else it is there already
				f.add(plan, fillCase{size: medium, run: run, workers: workers, source: "memory"})
			}
		}
	}
	for _, source := range []string{"store", "store-cold"} {
		f.add(plan, fillCase{size: medium, run: 512, workers: 2, source: source})
	}
	return plan, nil
}

// makeFiles puts the image on the disk: into a store, and into a file as it is.
func (f *filler) makeFiles(ctx context.Context, c *fillCase) (err error) {
	if f.flat, err = os.Create(filepath.Join(f.env.Dir, "flat")); err != nil {
		return err
	}
	if _, err := f.flat.Write(f.im.data[:c.size*page]); err != nil {
		return err
	}
	if f.store, err = makeStore(ctx, filepath.Join(f.env.Dir, "store"), f.im, c.place()); err != nil {
		return err
	}
	return f.reopen()
}

// reopen opens the snapshot whose pages stay mapped.
func (f *filler) reopen() (err error) {
	f.open, f.cached, err = openImage(f.store)
	return err
}

func (f *filler) Close() error {
	var errs []error
	if f.open != nil {
		errs = append(errs, f.open.Close())
	}
	if f.store != nil {
		errs = append(errs, f.store.Close())
	}
	if f.flat != nil {
		errs = append(errs, f.flat.Close())
	}
	if f.im != nil {
		errs = append(errs, f.im.Close())
	}
	return errors.Join(errs...)
}

// add adds the trials of one setting.
func (f *filler) add(plan *scenario.Plan, c fillCase) {
	trial := func(subject string, run func(context.Context) ([]result.Observation, error)) {
		plan.Trials = append(plan.Trials, scenario.Trial{Params: c.params(), Subject: subject, Run: run})
	}
	trial("thaw", func(ctx context.Context) ([]result.Observation, error) { return f.engine(ctx, &c) })
	if c.source == "memory" {
		trial("c-bulk", func(ctx context.Context) ([]result.Observation, error) { return f.bulk(ctx, &c) })
	}
	if c.run == 512 && c.workers == 2 {
		trial("read", func(ctx context.Context) ([]result.Observation, error) { return f.plain(ctx, &c, baseline.ReadFile) })
		trial("private-map", func(ctx context.Context) ([]result.Observation, error) { return f.plain(ctx, &c, baseline.MapFile) })
	}
}

// engine measures a session that streams the image into a process.
func (f *filler) engine(ctx context.Context, c *fillCase) (_ []result.Observation, err error) {
	source, closeSource, err := f.source(c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeSource()) }()
	place := c.place()
	p, err := startOne(ctx, 1, place.region())
	if err != nil {
		return nil, err
	}
	defer p.Close()
	layout := place.layout()
	server, err := restore.NewServer(nil) // thawd has one, before there is anything to do
	if err != nil {
		return nil, err
	}
	defer server.Close()
	cpu, start := ownCPU(), time.Now()
	e, err := startEngine(ctx, p, layout, restore.Options{Source: source, Server: server, Workers: c.workers})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	curve := watch(e, start)
	err = e.wait()
	took, used := time.Since(start), ownCPU()-cpu
	points := <-curve
	if err != nil {
		return nil, err
	}
	if err := f.verify(ctx, p, place); err != nil {
		return nil, err
	}
	return costOf(baseline.Cost{Time: took, CPU: used, Bytes: c.size * page}, points), nil
}

// source returns where the engine gets the pages from, and what closes it.
func (f *filler) source(c *fillCase) (restore.PageSource, func() error, error) {
	switch c.source {
	case "memory":
		return f.im, func() error { return nil }, nil
	case "store":
		return f.cached, func() error { return nil }, nil
	}
	// A page that is mapped cannot be evicted.
	if err := errors.Join(f.open.Close(), evict(f.store.Dir())); err != nil {
		return nil, nil, err
	}
	f.open = nil
	if err := f.reopen(); err != nil {
		return nil, nil, err
	}
	return f.cached, func() error { return nil }, nil
}

// verify looks at some of the pages that were installed.
func (f *filler) verify(ctx context.Context, p *process, place placement) error {
	stride := max(place.Pages/256, 1)
	seen, err := p.touch(ctx, uffdtest.Walk{Range: uffd.Range{Start: place.Base, End: place.end()}, Stride: stride * page})
	if err != nil {
		return err
	}
	return check(seen, func(n uint64) uint64 { return place.word(f.im, n*stride) })
}

// word returns the first word of page i of a placed image.
func (p placement) word(im *image, i uint64) uint64 {
	period := p.Run + p.Gap
	if i%period >= p.Run {
		return 0
	}
	return im.word(i/period*p.Run + i%period)
}

// bulk measures the threads of a C program.
func (f *filler) bulk(ctx context.Context, c *fillCase) (_ []result.Observation, err error) {
	place := c.place()
	p, err := startOne(ctx, 1, place.region())
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, p, f.im, baseline.Poll, place, c.workers)
	if err != nil {
		p.Close()
		return nil, err
	}
	defer func() { p.Close(); err = errors.Join(err, s.Close()) }()
	cost, err := s.Fill(ctx)
	if err != nil {
		return nil, err
	}
	if cost.Bytes != c.size*page {
		return nil, fmt.Errorf("%d bytes were copied, want %d", cost.Bytes, c.size*page)
	}
	if err := f.verify(ctx, p, place); err != nil {
		return nil, err
	}
	return costOf(cost, nil), nil
}

// plain measures one of the ways that need no userfaultfd.
func (f *filler) plain(ctx context.Context, c *fillCase, how func(context.Context, *os.File, uint64) (baseline.Cost, error)) ([]result.Observation, error) {
	file := f.im.file
	if c.source != "memory" {
		file = f.flat
	}
	if c.source == "store-cold" {
		if err := evict(f.flat.Name()); err != nil {
			return nil, err
		}
	}
	cost, err := how(ctx, file, c.size*page)
	if err != nil {
		return nil, err
	}
	return costOf(cost, nil), nil
}

// costOf observes what it took to move bytes, and how it went if points say so.
func costOf(c baseline.Cost, points []result.Point) []result.Observation {
	if points == nil {
		for i, n := range c.Progress {
			points = append(points, result.Point{T: float64(i+1) / 1e3, V: float64(n)})
		}
	}
	o := one(fillRate, rate(c.Bytes, c.Time))
	if points != nil {
		end := result.Point{T: c.Time.Seconds(), V: float64(c.Bytes)}
		points = slices.DeleteFunc(points, func(p result.Point) bool { return p.T >= end.T })
		o.Curve = append(append([]result.Point{{}}, thin(points)...), end)
	}
	return []result.Observation{o, one(cpuCost, perGB(c.CPU, c.Bytes))}
}

// thin keeps at most 200 points or so: more than that no picture shows.
func thin(points []result.Point) []result.Point {
	every := len(points)/200 + 1
	var out []result.Point
	for i := 0; i < len(points); i += every {
		out = append(out, points[i])
	}
	return out
}

// watch notes each millisecond how far a session is, until it ends.
func watch(e *engine, start time.Time) <-chan []result.Point {
	out := make(chan []result.Point, 1)
	go func() {
		var points []result.Point
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case err := <-e.ended:
				e.ended <- err
				out <- points
				return
			case <-tick.C:
				points = append(points, result.Point{T: time.Since(start).Seconds(), V: float64(e.Stats().PagesSettled * page)})
			}
		}
	}()
	return out
}

// ownCPU returns the CPU time that this process has used.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot fail for the process itself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
