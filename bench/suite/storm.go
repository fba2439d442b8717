package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"thaw/bench/baseline"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/restore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

var (
	// longestStall is the longest time that an access to memory took during the fill, of a thread that has no part in the
	// storm.
	longestStall = result.Metric{Name: "longest-stall", Unit: "ns"}
	// syscallTime is how long the system calls of the storm took: each waits until its event has been read.
	syscallTime = result.Metric{Name: "syscall", Unit: "ns", Many: true}
)

func stormScenario() scenario.Scenario {
	return scenario.Scenario{
		Name: "storm",
		Summary: "A fill while a thread of the process forks, moves, unmaps or drops memory as fast as it can, and another one touches pages that " +
			"have no part in it. The C server reads the events and does nothing about them, so what it brings is wrong: it is the floor.",
		Charts: []result.Chart{
			{Kind: result.Distribution, Title: "Time of a fork during the fill", Metric: syscallTime.Name, Only: result.P("storm", "fork")},
			{Kind: result.Distribution, Title: "Time of an mremap, there and back", Metric: syscallTime.Name, Only: result.P("storm", "mremap")},
			{Kind: result.Distribution, Title: "Time of a munmap", Metric: syscallTime.Name, Only: result.P("storm", "munmap")},
			{Kind: result.Distribution, Title: "Time of an MADV_DONTNEED", Metric: syscallTime.Name, Only: result.P("storm", "dontneed")},
		},
		Prepare: prepareStorm,
	}
}

// A weather is an image, the second part of which is stormed.
type weather struct {
	im   *image
	calm uint64 // pages of the first part
	zone uint64 // pages of the second
}

// stormPart is what one call of a storm is about, in pages: 64 KiB.
const stormPart = 16

func prepareStorm(ctx context.Context, env *scenario.Env) (*scenario.Plan, error) {
	w := &weather{calm: scenario.Pick[uint64](env, 64*mib, 2*mib), zone: scenario.Pick[uint64](env, 16*mib, 1*mib)}
	var err error
	if w.im, err = newImage(w.calm + w.zone); err != nil {
		return nil, err
	}
	plan := &scenario.Plan{Close: w.im.Close}
	kinds := []uffdtest.StormKind{uffdtest.StormFork, uffdtest.StormMremap, uffdtest.StormMunmap, uffdtest.StormDontneed}
	for _, name := range []string{"none", "fork", "mremap", "munmap", "dontneed"} {
		var storm *uffdtest.Storm
		if i := slices.IndexFunc(kinds, func(k uffdtest.StormKind) bool { return k.String() == name }); i >= 0 {
			storm = w.storm(kinds[i])
		}
		params := result.P("storm", name)
		plan.Trials = append(plan.Trials,
			scenario.Trial{Params: params, Subject: "thaw", Run: func(ctx context.Context) ([]result.Observation, error) { return w.engine(ctx, storm) }},
			scenario.Trial{Params: params, Subject: "c-bulk", Run: func(ctx context.Context) ([]result.Observation, error) { return w.c(ctx, storm) }})
	}
	return plan, nil
}

// storm returns a storm over the second part of the image.
func (w *weather) storm(kind uffdtest.StormKind) *uffdtest.Storm {
	zone := uffd.Range{Start: base + w.calm*page, End: base + (w.calm+w.zone)*page}
	s := &uffdtest.Storm{Kind: kind, Range: zone, Part: stormPart * page, Calls: 5000, Elsewhere: zone.End + (1 << 30)}
	if kind == uffdtest.StormMunmap {
		s.Calls = w.zone / stormPart // then nothing is left
	}
	return s
}

// begin starts the storm, and the thread that touches the first part.
func (w *weather) begin(p *process, storm *uffdtest.Storm) (*uffdtest.Call[[]time.Duration], []*uffdtest.Call[[]uffdtest.Access], uffdtest.Walk) {
	var storming *uffdtest.Call[[]time.Duration]
	if storm != nil {
		storming = p.Storm(*storm)
	}
	walk := uffdtest.Walk{Range: uffd.Range{Start: base, End: base + w.calm*page}, Stride: max(w.calm/4096, 1) * page, Seed: 31}
	return storming, p.Walk(walk), walk
}

// finish ends the storm and observes what it and the touching thread went through.
func (w *weather) finish(ctx context.Context, p *process, storming *uffdtest.Call[[]time.Duration], touching []*uffdtest.Call[[]uffdtest.Access], walk uffdtest.Walk) ([]result.Observation, error) {
	if _, err := p.Calm().Wait(ctx); err != nil {
		return nil, err
	}
	seen, err := collect(ctx, touching)
	if err != nil {
		return nil, err
	}
	if err := check(seen, func(n uint64) uint64 { return w.im.word(n * walk.Stride / page) }); err != nil {
		return nil, err
	}
	out := []result.Observation{one(longestStall, float64(slices.Max(latencies(seen)).Nanoseconds()))}
	if storming == nil {
		return out, nil
	}
	took, err := storming.Wait(ctx)
	if err != nil {
		return nil, err
	}
	if len(took) == 0 {
		return nil, errors.New("the storm made no call while the fill went on")
	}
	return append(out, many(syscallTime, took)), nil
}

func (w *weather) engine(ctx context.Context, storm *uffdtest.Storm) (_ []result.Observation, err error) {
	place := contiguous(w.calm + w.zone)
	p, err := startOne(ctx, 3, place.region())
	if err != nil {
		return nil, err
	}
	defer p.Close()
	storming, touching, walk := w.begin(p, storm)
	start := time.Now()
	e, err := startEngine(ctx, p, place.layout(), restore.Options{Source: w.im})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	took, err := settled(ctx, e, start)
	if err != nil {
		return nil, err
	}
	out, err := w.finish(ctx, p, storming, touching, walk)
	return append(out, one(fillRate, rate(place.Pages*page, took))), err
}

// settled waits until all content of a session's own process is there; forked children, which nobody streams, may go on.
func settled(ctx context.Context, e *engine, start time.Time) (time.Duration, error) {
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for {
		if s := e.Stats(); s.PagesTotal > 0 && s.PagesSettled >= s.PagesTotal {
			return time.Since(start), nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case err := <-e.ended:
			e.ended <- err
			if s := e.Stats(); s.PagesSettled < s.PagesTotal {
				return 0, fmt.Errorf("the session ended with %d of %d pages: %w", s.PagesSettled, s.PagesTotal, err)
			}
		case <-tick.C:
		}
	}
}

func (w *weather) c(ctx context.Context, storm *uffdtest.Storm) (_ []result.Observation, err error) {
	place := contiguous(w.calm + w.zone)
	p, err := startOne(ctx, 3, place.region())
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, p, w.im, baseline.Poll, place, 2)
	if err != nil {
		p.Close()
		return nil, err
	}
	defer func() { p.Close(); err = errors.Join(err, s.Close()) }()
	storming, touching, walk := w.begin(p, storm)
	cost, err := s.Fill(ctx)
	if err != nil {
		return nil, err
	}
	out, err := w.finish(ctx, p, storming, touching, walk)
	return append(out, one(fillRate, rate(place.Pages*page, cost.Time))), err
}
