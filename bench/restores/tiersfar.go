package restores

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"thaw/bench/lab"
	"thaw/bench/lab/fleet"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/control"
)

// sizes finds out what the workload's working set has in its compressed form: its hot object, which the digest of its manifest names, and for pages that are not in that,
// as they lie together in packs already, so many bytes each as pages of packs have on average.
func (w *farWorkload) sizes(a *afar) error {
	objects, err := a.fleet.Objects().Sizes("v1/default/")
	if err != nil {
		return err
	}
	var packs, raw float64
	for key, size := range objects {
		if strings.HasPrefix(key, "v1/default/packs/") {
			info, err := os.Stat(filepath.Join(a.lab.StoreFolder(), "namespaces", "default", "packs", filepath.Base(key)+".pack"))
			if err != nil {
				return err
			}
			packs, raw = packs+float64(size), raw+float64(info.Size())
		}
	}
	manifest, err := a.lab.ManifestDigest(w.frozen)
	if err != nil {
		return err
	}
	for key, size := range objects {
		if strings.HasPrefix(key, "v1/default/hot/"+manifest) {
			w.hotBytes = float64(size)
			apart := float64(w.set.Must + w.set.Likely - w.set.Far)
			w.setBytes = w.hotBytes + apart*pageBytes*packs/raw
			w.setSent = w.hotBytes + apart*pageBytes
			return nil
		}
	}
	return fmt.Errorf("%s: the object store has no hot object of manifest %s", w.Name, manifest)
}

func (w *farWorkload) params(link string) result.Params {
	return result.P("workload", w.Name, "link", link)
}

// add adds the trials of the workload's restores.
func (w *farWorkload) add(plan *scenario.Plan, a *afar) error {
	if err := w.sizes(a); err != nil {
		return err
	}
	trial := func(link, subject string, run func(ctx context.Context) ([]result.Observation, error)) {
		plan.Trials = append(plan.Trials, scenario.Trial{Params: w.params(link), Subject: subject, Run: run})
	}
	trial("none", string(lab.Floor), func(ctx context.Context) ([]result.Observation, error) {
		r, err := a.lab.Measure(ctx, w.frozen, lab.SameInput, lab.Floor, lab.Warm)
		return observeRun(&r), err
	})
	trial("none", fromLocal, func(ctx context.Context) ([]result.Observation, error) {
		h := a.holder()
		if err := h.Start(ctx, fleet.Sources{NoObjectStore: true}); err != nil {
			return nil, err
		}
		defer h.Stop()
		if err := a.lab.Ready(ctx, w.frozen, 1); err != nil {
			return nil, err
		}
		return w.restore(ctx, a, h, lab.Started{})
	})
	plan.Trials = append(plan.Trials, scenario.Trial{
		Params: w.params("none"), Subject: recorded, MaxRepetitions: 1, Run: func(context.Context) ([]result.Observation, error) {
			return []result.Observation{one(setPages, float64(w.set.Must+w.set.Likely)), one(packedPages, float64(w.set.Far)), one(hotSize, w.hotBytes), one(setSize, w.setBytes)}, nil
		},
	})
	trial(shaped.name, theLink, func(context.Context) ([]result.Observation, error) {
		return []result.Observation{one(linkTime, w.setBytes*8/tenGigabits*1e9)}, nil
	})
	for _, link := range []wire{unshaped, shaped} {
		plan.Trials = append(plan.Trials, scenario.Trial{
			Params: w.params(link.name), Subject: sentSet, MaxRepetitions: 1, Run: func(context.Context) ([]result.Observation, error) {
				return []result.Observation{one(setSent, w.setSent), one(rawShare, w.setSent/w.setBytes)}, nil
			},
		})
		trial(link.name, fromPeer, func(ctx context.Context) ([]result.Observation, error) {
			return w.fromPeer(ctx, a, link, true, lab.Started{})
		})
		trial(link.name, fromUnprepared, func(ctx context.Context) ([]result.Observation, error) {
			return w.fromPeer(ctx, a, link, false, lab.Started{})
		})
		trial(link.name, fromPeerDemand, func(ctx context.Context) ([]result.Observation, error) {
			return w.fromPeer(ctx, a, link, true, lab.Started{Stream: control.StreamNone}, "--read-ahead", "4KiB")
		})
	}
	trial(shaped.name, fromObjects, func(ctx context.Context) ([]result.Observation, error) { return w.fromObjects(ctx, a, false) })
	trial(shaped.name, wholeFirst, func(ctx context.Context) ([]result.Observation, error) { return w.fromObjects(ctx, a, true) })
	return nil
}

// restore restores once, and says what until the first response.
func (w *farWorkload) restore(ctx context.Context, a *afar, at *fleet.Node, how lab.Started) (_ []result.Observation, err error) {
	before, err := at.Received()
	if err != nil {
		return nil, err
	}
	p, err := a.lab.Restore(ctx, w.frozen, at.Place(), how)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	first, err := p.First(ctx)
	if err != nil {
		return nil, err
	}
	after, err := at.Received()
	if err != nil {
		return nil, err
	}
	out := []result.Observation{one(firstResponse, nanoseconds(first)), one(toRunning, nanoseconds(p.ToRunning))}
	if after > before {
		out = append(out, one(onWire, float64(after-before)), one(wireShare, float64(after-before)/w.setBytes))
	}
	if how.Stream == control.StreamNone {
		return out, nil // the session has no end, and no W
	}
	warm, err := p.WarmCall(ctx)
	return append(out, one(warmCall, nanoseconds(warm))), err
}

func (w *farWorkload) fromPeer(ctx context.Context, a *afar, link wire, prepared bool, how lab.Started, flags ...string) ([]result.Observation, error) {
	pair := []*fleet.Node{a.holder(), a.cold()}
	if err := lab.DropCaches(); err != nil {
		return nil, err
	}
	if err := a.start(ctx, link, pair, fleet.Sources{Peers: pair, NoObjectStore: true, Unprepared: !prepared}, flags...); err != nil {
		return nil, err
	}
	defer stop(pair)
	// The page cache was emptied before the holder made anything: what it has made is in there, too.
	if err := a.lab.Have(ctx, w.frozen, 1, a.lab.StoreFolder()); err != nil {
		return nil, err
	}
	return w.restore(ctx, a, a.cold(), how)
}

func (w *farWorkload) fromObjects(ctx context.Context, a *afar, whole bool) ([]result.Observation, error) {
	n := a.cold()
	if err := a.start(ctx, shaped, []*fleet.Node{n}, fleet.Sources{}); err != nil {
		return nil, err
	}
	defer stop([]*fleet.Node{n})
	if err := a.lab.Ready(ctx, w.frozen, 1, a.fleet.Objects().Folder()); err != nil {
		return nil, err
	}
	if !whole {
		return w.restore(ctx, a, n, lab.Started{})
	}
	before, err := n.Received()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if _, err := n.Thawd().Pull(ctx, w.frozen.Name(), control.PullWhole); err != nil {
		return nil, err
	}
	copied := time.Since(start)
	after, err := n.Received()
	if err != nil {
		return nil, err
	}
	// What was copied is in the page cache, as it is behind any copy.
	p, err := a.lab.Restore(ctx, w.frozen, n.Place(), lab.Started{})
	if err != nil {
		return nil, err
	}
	first, err := p.First(ctx)
	if err = errors.Join(err, p.Close()); err != nil {
		return nil, err
	}
	return []result.Observation{one(firstResponse, float64(copied)+nanoseconds(first)), one(wholePull, float64(copied)), one(onWire, float64(after-before))}, nil
}
