package suite

import (
	"context"
	"errors"

	"thaw/bench/baseline"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/restore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

var (
	// touchTime is how long each first touch took, whether it faulted or found a page that had come along.
	touchTime = result.Metric{Name: "touch", Unit: "ns", Many: true}
	// perPage is the mean of that: what a page of fresh memory costs.
	perPage = result.Metric{Name: "per-page", Unit: "ns"}
)

func zeroScenario() scenario.Scenario {
	return scenario.Scenario{
		Name: "zero",
		Summary: "First touch of memory without content inside of registered regions: single pages between pages with content (small), a large range " +
			"that has to stay registered (large), and one that may leave the userfaultfd before the process runs (dropped).",
		Charts: []result.Chart{
			{Kind: result.Distribution, Title: "First touch, small gaps, random order, written", Metric: touchTime.Name, Only: result.P("gap", "small", "access", "write")},
			{Kind: result.Distribution, Title: "First touch, large range, ascending, written", Metric: touchTime.Name, Only: result.P("gap", "large", "access", "write", "order", "ascending")},
			{Kind: result.Distribution, Title: "First touch, range that leaves the userfaultfd, ascending, written", Metric: touchTime.Name, Only: result.P("gap", "dropped", "access", "write", "order", "ascending")},
		},
		Prepare: prepareZero,
	}
}

// A zeroCase is a setting of the zero scenario.
type zeroCase struct {
	gap           string
	order, access string
	pages         uint64 // that are touched
}

func (c *zeroCase) params() result.Params {
	return result.P("gap", c.gap, "order", c.order, "access", c.access)
}

func (c *zeroCase) place() placement {
	if c.gap == "small" {
		return inRuns(2*c.pages, 1, 1)
	}
	return inRuns(c.pages+1, 1, c.pages)
}

// walk touches the pages without content.
func (c *zeroCase) walk() uffdtest.Walk {
	w := uffdtest.Walk{Seed: 5, Write: c.access == "write", Ascending: c.order == "ascending"}
	w.Range = uffd.Range{Start: base + page, End: c.place().end()}
	if c.gap == "small" {
		w.Stride = 2 * page
	}
	return w
}

func prepareZero(ctx context.Context, env *scenario.Env) (*scenario.Plan, error) {
	pages := scenario.Pick[uint64](env, 2048, 256)
	im, err := newImage(pages)
	if err != nil {
		return nil, err
	}
	plan := &scenario.Plan{Close: im.Close}
	var cases []zeroCase
	for _, access := range []string{"read", "write"} {
		cases = append(cases, zeroCase{"small", "random", access, pages})
		for _, order := range []string{"random", "ascending"} {
			cases = append(cases, zeroCase{"large", order, access, pages}, zeroCase{"dropped", order, access, pages})
		}
	}
	for _, c := range cases {
		trial := func(subject string, run func(context.Context, *image, *zeroCase) ([]result.Observation, error)) {
			plan.Trials = append(plan.Trials, scenario.Trial{Params: c.params(), Subject: subject,
				Run: func(ctx context.Context) ([]result.Observation, error) { return run(ctx, im, &c) }})
		}
		trial("thaw", zerosOfEngine)
		if c.gap != "dropped" { // C drops nothing
			trial("c-zeropage", zerosOfC)
		}
		trial("kernel", zerosOfKernel)
	}
	return plan, nil
}

func zerosOfEngine(ctx context.Context, im *image, c *zeroCase) (_ []result.Observation, err error) {
	l := c.place().layout()
	l.Regions[0].Splittable = c.gap == "dropped"
	p, err := startOne(ctx, 1, l.Regions[0])
	if err != nil {
		return nil, err
	}
	defer p.Close()
	e, err := startEngine(ctx, p, l, restore.Options{Source: im, Stream: restore.StreamNone})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return c.touch(ctx, p.Target)
}

func zerosOfC(ctx context.Context, im *image, c *zeroCase) (_ []result.Observation, err error) {
	p, err := startOne(ctx, 1, c.place().region())
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, p, im, baseline.Poll, c.place(), 0)
	if err != nil {
		p.Close()
		return nil, err
	}
	defer func() { p.Close(); err = errors.Join(err, s.Close()) }()
	return c.touch(ctx, p.Target)
}

// zerosOfKernel measures memory that no userfaultfd knows of.
func zerosOfKernel(ctx context.Context, _ *image, c *zeroCase) ([]result.Observation, error) {
	target, err := uffdtest.Launch(&uffdtest.Options{Workers: 1})
	if err != nil {
		return nil, err
	}
	defer target.Close()
	r := c.place().region()
	if _, err := target.Map(uffd.Range{Start: r.Start, End: r.End}).Wait(ctx); err != nil {
		return nil, err
	}
	return c.touch(ctx, target)
}

func (c *zeroCase) touch(ctx context.Context, t *uffdtest.Target) ([]result.Observation, error) {
	w := c.walk()
	w.Start = monotonic() + uint64(startLead) // what leaves the userfaultfd has done so by then
	seen, err := collect(ctx, t.Walk(w))
	if err != nil {
		return nil, err
	}
	err = check(seen, func(n uint64) uint64 {
		if w.Write {
			return n + w.Seed
		}
		return 0
	})
	if err != nil {
		return nil, err
	}
	took := latencies(seen)
	return []result.Observation{many(touchTime, took), one(perPage, float64(sum(took).Nanoseconds())/float64(len(took)))}, nil
}
