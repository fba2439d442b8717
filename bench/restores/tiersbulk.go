package restores

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/bench/lab"
	"thaw/bench/lab/fleet"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/internal/pagehash"
)

// addCopies adds what bulk comes to.
func (a *afar) addCopies(plan *scenario.Plan) {
	for _, link := range []wire{unshaped, shaped} {
		trial := func(subject string, copied func(ctx context.Context, path, key string) (int64, error)) {
			plan.Trials = append(plan.Trials, scenario.Trial{
				Params: result.P("link", link.name), Subject: subject,
				Run: func(ctx context.Context) ([]result.Observation, error) { return a.time(ctx, link, copied) },
			})
		}
		trial(plainTLS, func(ctx context.Context, path, _ string) (int64, error) {
			return a.holder().CopyTLS(ctx, path, a.cold())
		})
		trial(fromPeer, a.stream)
		plan.Trials = append(plan.Trials, scenario.Trial{Params: result.P("link", link.name), Subject: hashing, Run: func(context.Context) ([]result.Observation, error) {
			return []result.Observation{one(hashRate, hashPages())}, nil
		}})
		for subject, verify := range map[string]bool{checked: true, unchecked: false} {
			trial(subject, func(ctx context.Context, _, key string) (int64, error) {
				c, err := a.holder().Client(a.cold())
				if err != nil {
					return 0, err
				}
				defer c.Close()
				return fleet.Frames(ctx, c, key, filepath.Join(a.dir, "arrived"), verify)
			})
		}
	}
}

// time times the copy of the largest pack from the holder to the cold node.
func (a *afar) time(ctx context.Context, link wire, copied func(ctx context.Context, path, key string) (int64, error)) ([]result.Observation, error) {
	pair := []*fleet.Node{a.holder(), a.cold()}
	if err := a.start(ctx, link, pair, fleet.Sources{Peers: pair, NoObjectStore: true}); err != nil {
		return nil, err
	}
	defer stop(pair)
	path, key, err := a.holder().LargestPack()
	if err != nil {
		return nil, err
	}
	if _, err := lab.ReadAll(ctx, path); err != nil {
		return nil, err
	}
	start := time.Now()
	n, err := copied(ctx, path, key)
	return []result.Observation{one(throughput, float64(n)/time.Since(start).Seconds())}, err
}

// hashPages returns at how many bytes a second one thread hashes pages, as each frame is checked.
func hashPages() float64 {
	pages := make([]byte, 64<<20)
	start := time.Now()
	pagehash.Append(make([]byte, 0, len(pages)/pageBytes*pagehash.Size), pages)
	return float64(len(pages)) / time.Since(start).Seconds()
}

// deriveVerified adds at what rate a verified copy could arrive, if hashing were all that it costs, shared by all cores: where a copy without
// takes all of them already.
func deriveVerified(d *result.Document) {
	for _, rate := range d.Series {
		if rate.Scenario != "tiers" || rate.Name != hashRate.Name {
			continue
		}
		if plain := d.Find("tiers", rate.Params, unchecked, throughput.Name); plain != nil {
			hashes := 1 / (result.Median(rate.Samples) * float64(runtime.NumCPU()))
			d.Add("tiers", rate.Params, rate.Subject, []result.Observation{one(throughput, 1/(1/result.Median(plain.Samples)+hashes))})
		}
	}
}

// deriveSets adds what working sets take at the rates of copies.
func deriveSets(d *result.Document) {
	for _, s := range d.Series {
		if s.Scenario != "tiers" {
			continue
		}
		switch link := result.P("link", s.Params.Get("link")); s.Name {
		case setSent.Name:
			if rate := d.Find("tiers", link, checked, throughput.Name); rate != nil {
				d.Add("tiers", s.Params, sentSet, []result.Observation{one(copyTime, result.Median(s.Samples)/result.Median(rate.Samples)*1e9)})
			}
		case wholePull.Name:
			all := d.Find("tiers", s.Params, wholeFirst, onWire.Name)
			set := d.Find("tiers", result.P("workload", s.Params.Get("workload"), "link", "none"), recorded, setSize.Name)
			if all != nil && set != nil {
				d.Add("tiers", s.Params, sentSet, []result.Observation{one(setPull, result.Median(s.Samples)*result.Median(set.Samples)/result.Median(all.Samples))})
			}
		}
	}
}

// stream reads the pack from the peer as one stream and drops it.
func (a *afar) stream(ctx context.Context, _, key string) (int64, error) {
	c, err := a.holder().Client(a.cold())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return fleet.Stream(ctx, c, key)
}

// addBurst adds restores of one snapshot on cold nodes that know each other and the object store.
func (a *afar) addBurst(plan *scenario.Plan, f *lab.Frozen, restores int) {
	plan.Trials = append(plan.Trials, scenario.Trial{
		Params: result.P("restores", fmt.Sprint(restores)), Subject: coldNodes, MaxRepetitions: few,
		Run: func(ctx context.Context) (_ []result.Observation, err error) {
			nodes := a.fleet.Nodes()[1:]
			if err := a.start(ctx, unshaped, nodes, fleet.Sources{Peers: nodes}); err != nil {
				return nil, err
			}
			defer stop(nodes)
			if err := a.lab.Ready(ctx, f, restores, a.fleet.Objects().Folder()); err != nil {
				return nil, err
			}
			a.fleet.Objects().TakeReads()
			times, err := a.burst(ctx, f, nodes, restores)
			if err != nil {
				return nil, err
			}
			var sent, distinct float64
			for key, r := range a.fleet.Objects().TakeReads() {
				if strings.HasPrefix(key, "v1/default/packs/") || strings.HasPrefix(key, "v1/default/hot/") {
					sent, distinct = sent+float64(r.Bytes), distinct+float64(r.Distinct)
				}
			}
			return []result.Observation{
				{Metric: firstResponses, Values: times}, one(readsPerByte, sent/max(distinct, 1)), one(originBytes, sent),
			}, nil
		},
	})
}

// burst restores so often at the same time, on the nodes in turn, waits until all memory is there, and returns the times to the first
// responses.
func (a *afar) burst(ctx context.Context, f *lab.Frozen, nodes []*fleet.Node, restores int) (times []float64, err error) {
	processes := make([]*lab.Process, restores)
	times = make([]float64, restores)
	var g errgroup.Group
	for i := range restores {
		at := nodes[i%len(nodes)].Place()
		g.Go(func() (err error) {
			if processes[i], err = a.lab.Restore(ctx, f, at, lab.Started{}); err != nil {
				return err
			}
			first, err := processes[i].First(ctx)
			times[i] = nanoseconds(first)
			return err
		})
	}
	err = g.Wait()
	for _, p := range processes {
		if p == nil {
			continue
		}
		if err == nil {
			_, err = p.WarmCall(ctx)
		}
		err = errors.Join(err, p.Close())
	}
	return times, err
}
