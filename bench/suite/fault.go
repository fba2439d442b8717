package suite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"thaw/bench/baseline"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/restore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// touched is how many pages a second were touched, by all threads together, those that came along with others included.
var touchRate = result.Metric{Name: "touched", Unit: "pages/s", Higher: true}

func faultScenario() scenario.Scenario {
	side := func(subject string, figure result.Figure) scenario.Side {
		return scenario.Side{Subject: subject, Metric: latency.Name, Figure: figure, Params: result.P("layout", "scattered")}
	}
	over := func(what string, figure result.Figure, wait restore.WaitPolicy, c baseline.Wait, does string) scenario.Goal {
		floor := side("c-"+string(c), figure)
		return scenario.Goal{
			Name: fmt.Sprintf("%s, both %s, over C", what, does), Each: []string{"threads"}, Ours: side(engineThat(wait), figure), Floor: &floor,
			FloorIs: "a thread in C that " + does + "s and copies one page for each fault", Want: 1.10,
			Limit: &scenario.Limit{Of: side("go-"+string(c), figure), Is: "a thread in Go that does the same, and nothing else"},
		}
	}
	criu := side("criu", result.Middle)
	return scenario.Scenario{
		Name: "fault",
		Summary: "What a thread waits for a missing page: pages in random order, content in memory. In the scattered layout every page faults; " +
			"in the contiguous one neighbors may come along.",
		Charts: []result.Chart{
			{Kind: result.Distribution, Title: "Latency of a fault, one thread", Metric: latency.Name, Only: result.P("layout", "scattered", "threads", "1")},
			{Kind: result.Distribution, Title: "Latency of a fault, four threads", Metric: latency.Name, Only: result.P("layout", "scattered", "threads", "4")},
		},
		Goals: []scenario.Goal{
			over("p50", result.Middle, restore.WaitSleep, baseline.Poll, "sleep"),
			over("p99", result.P99, restore.WaitSleep, baseline.Poll, "sleep"),
			over("p50", result.Middle, restore.WaitSpin, baseline.Spin, "spin"),
			over("p99", result.P99, restore.WaitSpin, baseline.Spin, "spin"),
			{Name: "p50, default settings, over CRIU's server", Each: []string{"threads"}, Ours: side(engineThat(restore.WaitAdaptive), result.Middle), Floor: &criu,
				FloorIs: "criu lazy-pages, before it is told that the restore is finished", Limit: &scenario.Limit{
					Of: side("c-"+string(baseline.Poll), result.Middle), Is: "a thread in C that sleeps and copies one page for each fault: the least that a server does which takes no core for itself",
				}, Want: 0.6},
		},
		Prepare: prepareFault,
	}
}

func prepareFault(ctx context.Context, env *scenario.Env) (*scenario.Plan, error) {
	pages := scenario.Pick[uint64](env, 4096, 64)
	im, err := newImage(pages)
	if err != nil {
		return nil, err
	}
	plan := &scenario.Plan{Passes: 3, Close: im.Close}
	var criu *baseline.CRIUImages
	if env.CRIU == "" {
		plan.Notes = append(plan.Notes, "CRIU's server was left out: there is no CRIU (--criu names one).")
	} else if criu, err = baseline.DumpForCRIU(ctx, env.CRIU, filepath.Join(env.Dir, "criu"), im.file, base, pages); err != nil {
		return nil, errors.Join(err, im.Close())
	}
	for _, threads := range scenario.Pick(env, []int{1, 2, 4}, []int{1, 2}) {
		params := result.P("layout", "scattered", "threads", strconv.Itoa(threads))
		for _, wait := range []baseline.Wait{baseline.Poll, baseline.Spin, baseline.Example} {
			plan.Trials = append(plan.Trials, scenario.Trial{Params: params, Subject: "c-" + string(wait),
				Run: func(ctx context.Context) ([]result.Observation, error) { return faultsOfC(ctx, im, wait, threads) }})
		}
		for _, wait := range []baseline.Wait{baseline.Poll, baseline.Spin} {
			plan.Trials = append(plan.Trials, scenario.Trial{Params: params, Subject: "go-" + string(wait),
				Run: func(ctx context.Context) ([]result.Observation, error) { return faultsOfGo(ctx, im, wait, threads) }})
		}
		if criu != nil {
			plan.Trials = append(plan.Trials, scenario.Trial{Params: params, Subject: "criu",
				Run: func(ctx context.Context) ([]result.Observation, error) { return faultsOfCRIU(ctx, criu, im, threads) }})
		}
		for _, of := range []struct {
			layout string
			wait   restore.WaitPolicy
		}{{"scattered", restore.WaitAdaptive}, {"scattered", restore.WaitSleep}, {"scattered", restore.WaitSpin}, {"contiguous", restore.WaitAdaptive}} {
			plan.Trials = append(plan.Trials, scenario.Trial{Params: result.P("layout", of.layout, "threads", strconv.Itoa(threads)), Subject: engineThat(of.wait),
				Run: func(ctx context.Context) ([]result.Observation, error) {
					return faultsOfEngine(ctx, im, of.layout, of.wait, threads)
				}})
		}
	}
	return plan, nil
}

// engineThat is the name of the engine that waits for faults in a way, and without one for the default.
func engineThat(waits restore.WaitPolicy) string {
	if waits == restore.WaitAdaptive {
		return "thaw"
	}
	return "thaw-" + waits.String()
}

// faultsOfEngine measures the faults of a process that the engine serves, without a stream.
func faultsOfEngine(ctx context.Context, im *image, layout string, wait restore.WaitPolicy, threads int) (_ []result.Observation, err error) {
	l, word := contiguous(im.pages()).layout(), im.word
	if layout == "scattered" {
		l, word = scattered(im.pages()), func(p uint64) uint64 { return im.word(p * scatter) }
	}
	p, err := startOne(ctx, threads, l.Regions[0])
	if err != nil {
		return nil, err
	}
	defer p.Close()
	server, err := restore.NewServer(&restore.ServerOptions{Readers: 1, Wait: wait})
	if err != nil {
		return nil, err
	}
	defer server.Close()
	e, err := startEngine(ctx, p, l, restore.Options{Source: im, Server: server, Stream: restore.StreamNone})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return touchAll(ctx, p, im.pages(), threads, word)
}

// faultsOfC measures the same of a process that a C server serves.
func faultsOfC(ctx context.Context, im *image, wait baseline.Wait, threads int) (_ []result.Observation, err error) {
	place := contiguous(im.pages())
	p, err := startOne(ctx, threads, place.region())
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, p, im, wait, place, 0)
	if err != nil {
		p.Close()
		return nil, err
	}
	defer func() { p.Close(); err = errors.Join(err, s.Close()) }()
	return touchAll(ctx, p, im.pages(), threads, im.word)
}

// faultsOfGo measures the same of a process that the least server in Go serves.
func faultsOfGo(ctx context.Context, im *image, wait baseline.Wait, threads int) (_ []result.Observation, err error) {
	p, err := startOne(ctx, threads, contiguous(im.pages()).region())
	if err != nil {
		return nil, err
	}
	defer p.Close()
	fd, err := p.takeFD()
	if err != nil {
		return nil, err
	}
	defer fd.Close()
	s, err := baseline.StartGoServer(wait, fd, im.data, base)
	if err != nil {
		return nil, err
	}
	defer func() { p.Close(); err = errors.Join(err, s.Close()) }()
	return touchAll(ctx, p, im.pages(), threads, im.word)
}

// faultsOfCRIU measures the same of a process that CRIU's own server takes for one that is being restored: it is never told
// that the restore is finished, so that it brings nothing but what is touched.
func faultsOfCRIU(ctx context.Context, images *baseline.CRIUImages, im *image, threads int) (_ []result.Observation, err error) {
	s, err := images.StartServer(ctx)
	if err != nil {
		return nil, err
	}
	r := contiguous(im.pages()).region()
	p, err := startWith(ctx, threads, r.Start, r.End, mapOne(ctx, r), func(t *uffdtest.Target) error {
		return introduce(ctx, t, s.Socket(), images.PID)
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	defer func() { p.Close(); err = errors.Join(err, s.Close()) }()
	return touchAll(ctx, p, im.pages(), threads, im.word)
}

// introduce has a process say to a server of lazy pages who it is, as CRIU does.
func introduce(ctx context.Context, t *uffdtest.Target, socket string, pid int) error {
	h, err := t.Dial(socket).Wait(ctx)
	if err != nil {
		return err
	}
	if _, err := t.Send(h, binary.NativeEndian.AppendUint32(nil, uint32(pid)), 0).Wait(ctx); err != nil {
		return err
	}
	_, err = t.Send(h, []byte{0}, 1).Wait(ctx)
	return err
}

// startServer starts a C server for one process.
func startServer(ctx context.Context, p *process, im *image, wait baseline.Wait, place placement, bulk int) (*baseline.Server, error) {
	return baseline.StartServer(ctx, baseline.ServerOptions{
		Wait: wait, Source: im.file, FDs: []*os.File{p.file}, Placement: place.Placement, Bulk: bulk,
	})
}

// touchAll touches each page of a process once, in random order, and checks what it finds.
func touchAll(ctx context.Context, p *process, pages uint64, threads int, word func(uint64) uint64) ([]result.Observation, error) {
	start := time.Now()
	seen, err := p.touch(ctx, uffdtest.Walk{Range: uffd.Range{Start: base, End: base + pages*page}, Threads: threads, Seed: 11})
	if err != nil {
		return nil, err
	}
	took := time.Since(start)
	if err := check(seen, word); err != nil {
		return nil, err
	}
	waits := faulted(seen)
	if len(waits) == 0 {
		return nil, fmt.Errorf("none of %d accesses faulted", len(seen))
	}
	return []result.Observation{many(latency, waits), one(touchRate, float64(len(seen))/took.Seconds())}, nil
}
