package suite

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"thaw/bench/baseline"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/restore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func underFillScenario() scenario.Scenario {
	side := func(fill string) scenario.Side {
		return scenario.Side{Subject: "thaw", Metric: latency.Name, Figure: result.P99, Params: result.P("fill", fill)}
	}
	idle := side("no")
	return scenario.Scenario{
		Name: "fault-under-fill",
		Summary: "What a thread waits for a missing page while everything is being installed behind it as fast as it goes, beside the same without " +
			"that. Only accesses that faulted count: of the others there are more, the further the fill is.",
		Charts: []result.Chart{
			{Kind: result.Distribution, Title: "Latency of a fault, one thread", Metric: latency.Name, Only: result.P("threads", "1")},
			{Kind: result.OverTime, Title: "The fill over time, one thread faulting", Metric: fillRate.Name, Only: result.P("threads", "1")},
		},
		Goals: []scenario.Goal{{
			Name: "p99 under fill, over p99 without", Each: []string{"threads"}, Ours: side("yes"), Floor: &idle,
			FloorIs: "the same faults without a stream", Want: 3,
		}},
		Prepare: prepareUnderFill,
	}
}

func prepareUnderFill(ctx context.Context, env *scenario.Env) (*scenario.Plan, error) {
	im, err := newImage(scenario.Pick[uint64](env, 512*mib, 4*mib))
	if err != nil {
		return nil, err
	}
	plan := &scenario.Plan{Close: im.Close}
	for _, threads := range scenario.Pick(env, []int{1, 4}, []int{1}) {
		for _, fill := range []string{"no", "yes"} {
			params := result.P("fill", fill, "threads", strconv.Itoa(threads))
			trial := func(subject string, run func(context.Context, *image, int, bool) ([]result.Observation, error)) {
				plan.Trials = append(plan.Trials, scenario.Trial{Params: params, Subject: subject,
					Run: func(ctx context.Context) ([]result.Observation, error) { return run(ctx, im, threads, fill == "yes") }})
			}
			trial("thaw", underFillOfEngine)
			trial("c-poll", underFillOfC)
		}
	}
	return plan, nil
}

// walkOf returns the walk of the threads. Without a fill it is as short as it may be for its quantiles.
func walkOf(im *image, threads int, fill bool) uffdtest.Walk {
	w := uffdtest.Walk{Range: uffd.Range{Start: base, End: base + im.pages()*page}, Threads: threads, Seed: 23}
	if !fill {
		w.Stride = max(im.pages()/4096, 1) * page
	}
	return w
}

func underFillOfEngine(ctx context.Context, im *image, threads int, fill bool) (_ []result.Observation, err error) {
	place := contiguous(im.pages())
	p, err := startOne(ctx, threads, place.region())
	if err != nil {
		return nil, err
	}
	defer p.Close()
	// A page has to be touched while the stream runs, so that it must not begin before the threads do.
	at := monotonic() + uint64(startLead)
	w := walkOf(im, threads, fill)
	w.Start = at
	calls := p.Walk(w)
	stream := restore.StreamNone
	if fill {
		stream = restore.StreamAll
	}
	layout := place.layout()
	waitUntil(ctx, at)
	start := time.Now()
	e, err := startEngine(ctx, p, layout, restore.Options{Source: im, Stream: stream})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	var out []result.Observation
	if fill {
		curve := watch(e, start)
		if err := e.wait(); err != nil {
			return nil, err
		}
		took := time.Since(start)
		out = costOf(baseline.Cost{Time: took, Bytes: im.pages() * page}, <-curve)[:1]
	}
	return underFill(ctx, im, w, calls, out)
}

func underFillOfC(ctx context.Context, im *image, threads int, fill bool) (_ []result.Observation, err error) {
	place := contiguous(im.pages())
	p, err := startOne(ctx, threads, place.region())
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, p, im, baseline.Poll, place, 2)
	if err != nil {
		p.Close()
		return nil, err
	}
	defer func() { p.Close(); err = errors.Join(err, s.Close()) }()
	at := monotonic() + uint64(startLead)
	w := walkOf(im, threads, fill)
	w.Start = at
	calls := p.Walk(w)
	var out []result.Observation
	if fill {
		waitUntil(ctx, at)
		cost, err := s.Fill(ctx)
		if err != nil {
			return nil, err
		}
		out = costOf(cost, nil)[:1]
	}
	return underFill(ctx, im, w, calls, out)
}

// underFill waits for the walk and observes its faults.
func underFill(ctx context.Context, im *image, w uffdtest.Walk, calls []*uffdtest.Call[[]uffdtest.Access], out []result.Observation) ([]result.Observation, error) {
	seen, err := collect(ctx, calls)
	if err != nil {
		return nil, err
	}
	stride := max(w.Stride/page, 1)
	if err := check(seen, func(n uint64) uint64 { return im.word(n * stride) }); err != nil {
		return nil, err
	}
	waits := faulted(seen)
	if len(waits) == 0 {
		return nil, fmt.Errorf("none of %d accesses faulted", len(seen))
	}
	return append(out, many(latency, waits)), nil
}
