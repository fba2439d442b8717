package suite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/bench/baseline"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/pagestore"
)

var (
	// importRate is the speed of reading, hashing and writing, without the wait for the disk at the end.
	importRate = result.Metric{Name: "import", Unit: "B/s", Higher: true}
	// durableRate is the speed until all is durable and visible.
	durableRate = result.Metric{Name: "durable", Unit: "B/s", Higher: true}
)

func importScenario() scenario.Scenario {
	ours := scenario.Side{Subject: "thaw", Metric: importRate.Name, Figure: result.Middle}
	sha := ours
	sha.Subject = "sha256"
	parts := ours
	parts.Subject = "parts"
	return scenario.Scenario{
		Name: "import",
		Summary: "An image enters a store: by workers, by the share of its pages that the store knows already, by the share that is zero. Beside it crypto/sha256 " +
			"over the same pages by as many threads, all that has to be done to them and nothing else (parts), and a plain file written by one.",
		Charts: []result.Chart{
			{Kind: result.OverParam, Title: "Speed by share of known pages", Metric: importRate.Name, X: "known", Only: result.P("zero", "0%")},
			{Kind: result.OverParam, Title: "Core-seconds per GB by share of known pages", Metric: cpuCost.Name, X: "known", Only: result.P("zero", "0%")},
		},
		Goals: []scenario.Goal{{
			Name: "speed over SHA-256's", Case: result.P("zero", "0%"), Each: []string{"known", "workers"}, Ours: ours, Floor: &sha,
			FloorIs: "crypto/sha256 of the same 4 KiB pages, one after the other, by as many threads", Limit: &scenario.Limit{Of: parts,
				Is: "reading, SHA-256 as the import computes it, of the new pages xxh64, pwrite(2) and the beginning of writeback, by as many threads that hash, each into a file of its own, which look for nothing and wait for nobody, nor in the end for the disk"},
			Want: 0.8, AtLeast: true,
		}},
		Prepare: prepareImport,
	}
}

// An importCase is a setting of the import scenario.
type importCase struct {
	workers     int
	known, zero int // percent; of each 100 pages the first ones are known, the last ones zero
	data        []byte
	store       *pagestore.Store
	dir         string
}

func (c *importCase) params() result.Params {
	return result.P("known", strconv.Itoa(c.known)+"%", "zero", strconv.Itoa(c.zero)+"%", "workers", strconv.Itoa(c.workers))
}

func (c *importCase) pages() uint64 { return uint64(len(c.data)) / page }

// input returns an import of the first share percent of each hundred pages.
func (c *importCase) input(share uint64) pagestore.Input {
	s := pagestore.Space{ID: 1, Regions: []pagestore.Region{{Start: base, End: base + uint64(len(c.data))}}}
	for p := uint64(0); p < c.pages() && share > 0; p += 100 {
		s.Runs = append(s.Runs, pagestore.Run{Addr: base + p*page, Pages: min(share, c.pages()-p), Offset: int64(p * page)})
	}
	return pagestore.Input{Spaces: []pagestore.Space{s}, Files: []io.ReaderAt{bytes.NewReader(c.data)}}
}

func prepareImport(ctx context.Context, env *scenario.Env) (_ *scenario.Plan, err error) {
	pages := scenario.Pick[uint64](env, 256*mib, 2*mib)
	var stores []*pagestore.Store
	plan := &scenario.Plan{Close: func() error {
		var errs []error
		for _, s := range stores {
			errs = append(errs, s.Close())
		}
		return errors.Join(errs...)
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, plan.Close())
		}
	}()
	for _, share := range []struct{ known, zero int }{{0, 0}, {50, 0}, {100, 0}, {0, 50}} {
		dir := filepath.Join(env.Dir, fmt.Sprintf("known%d-zero%d", share.known, share.zero))
		store, err := pagestore.Create(dir)
		if err != nil {
			return nil, err
		}
		stores = append(stores, store)
		c := importCase{known: share.known, zero: share.zero, data: make([]byte, pages*page), store: store, dir: env.Dir}
		for p := range pages {
			if p%100 < uint64(100-share.zero) {
				fillPage(c.data[p*page:][:page], p)
			}
		}
		if share.known > 0 {
			if _, err := store.Import(ctx, snapshotName, c.input(uint64(share.known)), nil); err != nil {
				return nil, err
			}
		}
		for _, workers := range []int{1, 2} {
			c := c
			c.workers = workers
			c.add(plan)
		}
	}
	return plan, nil
}

func (c *importCase) add(plan *scenario.Plan) {
	trial := func(subject string, run func(context.Context) ([]result.Observation, error)) {
		plan.Trials = append(plan.Trials, scenario.Trial{Params: c.params(), Subject: subject, Run: run})
	}
	trial("thaw", c.engine)
	if c.zero == 0 {
		trial("sha256", c.hash)
		trial("parts", c.parts)
	}
	if c.zero == 0 && c.known == 0 && c.workers == 1 {
		trial("write", c.write)
	}
}

// engine imports the image, and takes it out of the store again.
func (c *importCase) engine(ctx context.Context) (_ []result.Observation, err error) {
	name := pagestore.Name{Namespace: snapshotName.Namespace, Snapshot: "trial"}
	cpu := ownCPU()
	report, err := c.store.Import(ctx, name, c.input(100), &pagestore.ImportOptions{Workers: c.workers})
	if err != nil {
		return nil, err
	}
	used := ownCPU() - cpu
	if want := c.pages() / 100 * uint64(c.zero); report.ZeroPages < want {
		return nil, fmt.Errorf("%d zero pages were found, want %d", report.ZeroPages, want)
	}
	if err := c.store.Remove(ctx, name); err != nil {
		return nil, err
	}
	if _, err := c.store.GC(ctx); err != nil {
		return nil, err
	}
	return []result.Observation{
		one(importRate, report.BytesPerSecond()), one(durableRate, rate(report.Bytes, report.Duration)), one(cpuCost, perGB(used, report.Bytes)),
	}, nil
}

// hash hashes the pages with crypto/sha256, one after the other.
func (c *importCase) hash(context.Context) ([]result.Observation, error) {
	cpu, start := ownCPU(), time.Now()
	var g errgroup.Group
	share := c.pages()/uint64(c.workers) + 1
	for first := uint64(0); first < c.pages(); first += share {
		g.Go(func() error {
			for p := first; p < min(first+share, c.pages()); p++ {
				sha256.Sum256(c.data[p*page:][:page])
			}
			return nil
		})
	}
	err := g.Wait()
	cost := baseline.Cost{Time: time.Since(start), CPU: ownCPU() - cpu, Bytes: uint64(len(c.data))}
	return []result.Observation{one(importRate, rate(cost.Bytes, cost.Time)), one(cpuCost, perGB(cost.CPU, cost.Bytes))}, err
}

// write writes the image to a file.
func (c *importCase) write(context.Context) (_ []result.Observation, err error) {
	f, err := os.CreateTemp(c.dir, "plain-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	cpu, start := ownCPU(), time.Now()
	for at := 0; at < len(c.data); at += 1 << 20 {
		if _, err := f.Write(c.data[at:min(at+1<<20, len(c.data))]); err != nil {
			return nil, err
		}
	}
	written := time.Since(start)
	if err := f.Sync(); err != nil {
		return nil, err
	}
	n := uint64(len(c.data))
	return []result.Observation{
		one(importRate, rate(n, written)), one(durableRate, rate(n, time.Since(start))), one(cpuCost, perGB(ownCPU()-cpu, n)),
	}, nil
}
