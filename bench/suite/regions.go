package suite

import (
	"context"
	"errors"
	"strconv"
	"time"

	"thaw/bench/baseline"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/restore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// addTime is how long it takes to hand a process to a session, until its first fault can be served.
var addTime = result.Metric{Name: "add", Unit: "ns"}

func regionsScenario() scenario.Scenario {
	side := func(n string, f result.Figure) scenario.Side {
		return scenario.Side{Subject: "thaw", Metric: latency.Name, Figure: f, Params: result.P("regions", n)}
	}
	few := side("10", result.Middle)
	return scenario.Scenario{
		Name: "regions",
		Summary: "What a fault costs in an address space of many regions, with an extent each: pages far apart, in random order. The C server knows " +
			"no regions; what it loses is the kernel's own.",
		Charts: []result.Chart{
			{Kind: result.OverParam, Title: "Median latency of a fault by regions", Metric: latency.Name, X: "regions"},
			{Kind: result.OverParam, Title: "Time to take a process on by regions", Metric: addTime.Name, X: "regions"},
		},
		Goals:   []scenario.Goal{{Name: "p50 of 100,000 regions over that of 10", Ours: side("100000", result.Middle), Floor: &few, FloorIs: "the same faults in 10 regions", Want: 1.3}},
		Prepare: prepareRegions,
	}
}

const (
	// slotPages is how far apart the pages that are touched lie: as many as come with a fault at most, one of content or
	// without, so that none comes with another.
	slotPages = 17
	// maxMappings is how many mappings a process may have, less some (vm.max_map_count is 65530 by default). Regions
	// beyond that touch each other, which the kernel makes one mapping of.
	maxMappings = 30_000
)

// A grid is an address space of many regions. Slots of slotPages pages make regions; regions make mappings.
type grid struct {
	regions, mappings uint64
	slots             uint64 // in all
	perRegion         uint64 // slots
	perMapping        uint64 // slots
}

func newGrid(regions, faults uint64) grid {
	g := grid{regions: regions, perRegion: max(faults/regions, 1)}
	g.slots = g.regions * g.perRegion
	together := (regions + maxMappings - 1) / maxMappings
	g.perMapping = together * g.perRegion
	g.mappings = (g.slots + g.perMapping - 1) / g.perMapping
	return g
}

func (g grid) end() uint64 { return base + g.mappings*g.perMapping*slotPages*page }

// layout returns regions with an extent each, and a page without content at the end of each mapping's last one.
func (g grid) layout() *restore.Layout {
	l := &restore.Layout{}
	size := g.perRegion * slotPages
	for i := range g.mappings * g.perMapping / g.perRegion {
		start := base + i*size*page
		end := start + size*page
		if (i+1)*g.perRegion%g.perMapping == 0 {
			end -= page // nothing is mapped there: mappings do not touch
		}
		l.Regions = append(l.Regions, restore.Region{Start: start, End: end})
		l.Extents = append(l.Extents, restore.Extent{Addr: start, Pages: size - 1, Image: i * size})
	}
	return l
}

func prepareRegions(ctx context.Context, env *scenario.Env) (*scenario.Plan, error) {
	faults := scenario.Pick[uint64](env, 4096, 64)
	im, err := newImage(scenario.Pick[uint64](env, 64*mib, 4*mib))
	if err != nil {
		return nil, err
	}
	plan := &scenario.Plan{Close: im.Close, Notes: []string{
		"A process may have 65530 mappings: of 100,000 regions, four and four share one.",
	}}
	for _, n := range scenario.Pick(env, []uint64{10, 100, 1000, 10_000, 100_000}, []uint64{10, 1000}) {
		g := newGrid(n, faults)
		params := result.P("regions", strconv.FormatUint(n, 10))
		layout := g.layout()
		plan.Trials = append(plan.Trials,
			scenario.Trial{Params: params, Subject: "thaw", Run: func(ctx context.Context) ([]result.Observation, error) {
				return g.engine(ctx, im, layout, faults)
			}},
			scenario.Trial{Params: params, Subject: "c-poll", Run: func(ctx context.Context) ([]result.Observation, error) {
				return g.c(ctx, im, faults)
			}})
	}
	return plan, nil
}

// start starts a process with the grid's mappings.
func (g grid) start(ctx context.Context) (*process, error) {
	stride := g.perMapping * slotPages * page
	return startProcess(ctx, 1, base, g.end()-page, func(t *uffdtest.Target) error {
		_, err := t.MapEach(base, stride-page, stride, g.mappings).Wait(ctx)
		return err
	})
}

// walk touches the first page of slots that are spread over all regions.
func (g grid) walk(faults uint64) uffdtest.Walk {
	every := max(g.slots/faults, 1)
	return uffdtest.Walk{Range: uffd.Range{Start: base, End: g.end()}, Stride: every * slotPages * page, Seed: 3}
}

func (g grid) engine(ctx context.Context, im *image, l *restore.Layout, faults uint64) (_ []result.Observation, err error) {
	p, err := g.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	start := time.Now()
	e, err := startEngine(ctx, p, l, restore.Options{Source: im, Stream: restore.StreamNone})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if _, err := p.Read(uffd.Range{Start: base + page, End: base + 2*page}).Wait(ctx); err != nil {
		return nil, err
	}
	added := time.Since(start)
	out, err := g.touch(ctx, p, im, faults)
	return append(out, one(addTime, float64(added.Nanoseconds()))), err
}

func (g grid) c(ctx context.Context, im *image, faults uint64) (_ []result.Observation, err error) {
	p, err := g.start(ctx)
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, p, im, baseline.Poll, contiguous((g.end()-base)/page), 0)
	if err != nil {
		p.Close()
		return nil, err
	}
	defer func() { p.Close(); err = errors.Join(err, s.Close()) }()
	return g.touch(ctx, p, im, faults)
}

func (g grid) touch(ctx context.Context, p *process, im *image, faults uint64) ([]result.Observation, error) {
	w := g.walk(faults)
	seen, err := p.touch(ctx, w)
	if err != nil {
		return nil, err
	}
	if err := check(seen, func(n uint64) uint64 { return im.word(n * w.Stride / page) }); err != nil {
		return nil, err
	}
	return []result.Observation{many(latency, faulted(seen))}, nil
}
