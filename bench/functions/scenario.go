package functions

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"thaw/bench/lab"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/function/gateway"
)

// The metrics.
var (
	firstResponse = result.Metric{Name: "first-response", Unit: "ns"} // from the arrival of a request to its answer, when there is no instance
	warmCall      = result.Metric{Name: "w", Unit: "ns"}              // the same when there is one: the median of a few
	lessW         = result.Metric{Name: "first-response-less-w", Unit: "ns"}
	toRunning     = result.Metric{Name: "to-running", Unit: "ns"} // runc alone, until the process runs
	newShare      = result.Metric{Name: "new-pages", Unit: "%"}   // of the pages that are not zero, what the store did not have
	deployed      = result.Metric{Name: "deployed", Unit: "ns"}   // from thaw deploy until the snapshot can be restored
	stopped       = result.Metric{Name: "stopped", Unit: "ns"}    // how long the frozen process stood still
	writing       = result.Metric{Name: "writing", Unit: "ns"}    // of that, what CRIU needs to write pages
)

// The subjects.
const (
	cold     = "cold"     // started: imports, model, hooks
	restored = "restored" // from its snapshot
	bareRunc = "runc"     // see bare
	first    = "first"    // function on a template, which is made for it
	second   = "second"   // function on the same template
	embedder = "embedder" // examples/embedder/app.py
	question = `{"sentences": ["A sentence to embed."]}`
)

// calm is how long the kernel has for what the trial before has left: it takes processes, mounts and networks down behind their end.
const calm = 500 * time.Millisecond

// enoughMemory is more than a boot of the embedder takes, its files included, in bytes.
const enoughMemory = 2 << 30

// warmCalls are how many calls W is the median of, learning how many restores a snapshot may take until its working set has learned enough.
const (
	warmCalls = 5
	learning  = 60
	enough    = 3
)

// Scenario returns the scenario "functions".
func Scenario() scenario.Scenario {
	side := func(subject, metric string) scenario.Side {
		return scenario.Side{Subject: subject, Metric: metric, Figure: result.Middle}
	}
	over := func(name string, c result.Params, ours, floor scenario.Side, is string, want float64) scenario.Goal {
		return scenario.Goal{Name: name, Case: c, Ours: ours, Floor: &floor, FloorIs: is, Want: want}
	}
	const coldIs = "the same request to the same function, which is started: request to response"
	warm, dropped := result.P("function", embedder, "cache", string(lab.Warm)), result.P("function", embedder, "cache", string(lab.Dropped))
	return scenario.Scenario{
		Name: "functions",
		Summary: "Functions that are deployed, frozen and called as their authors and callers do it: cold boots, restored ones, runc alone; a second " +
			"function on the same template; how long a freeze stops a process.",
		Apart: true,
		Charts: []result.Chart{
			{Kind: result.OverParam, Title: "Request to response, by page cache", Metric: firstResponse.Name, X: "cache"},
		},
		Goals: []scenario.Goal{
			over("restored over cold", warm, side(restored, firstResponse.Name), side(cold, firstResponse.Name), coldIs, 1.0/20),
			over("restored over cold", dropped, side(restored, firstResponse.Name), side(cold, firstResponse.Name), coldIs, 1.0/10),
			over("request to response less W, over runc", warm, side(restored, lessW.Name), side(bareRunc, toRunning.Name),
				"runc restore of the same skeleton into the same kind of container, until its process runs, with no memory but what that touches", 1.5),
			{Name: "new pages of a second function on the template", Case: result.P("function", "search"), Ours: side(second, newShare.Name), Want: 15},
			over("deployment of a second function on the template", result.P("function", "search"), side(second, deployed.Name),
				scenario.Side{Subject: first, Metric: deployed.Name, Figure: result.Middle, Params: result.P("function", embedder)},
				"the first one's, with the template", 1.0/3),
			over("freeze", result.P("function", embedder), side(first, stopped.Name), side(first, writing.Name), "what CRIU says of its writing of pages", 1.5),
		},
		Prepare: prepare,
		Derive:  derive,
	}
}

// derive takes W off each first response.
func derive(d *result.Document) {
	for _, s := range d.Series {
		if s.Scenario != "functions" || s.Name != firstResponse.Name {
			continue
		}
		w := d.Find("functions", s.Params, s.Subject, warmCall.Name)
		if w == nil {
			continue
		}
		for i, v := range s.Samples {
			d.Add("functions", s.Params, s.Subject, []result.Observation{one(lessW, v-w.Samples[i])})
		}
	}
}

func one(m result.Metric, v float64) result.Observation {
	return result.Observation{Metric: m, Values: []float64{v}}
}

// A bench is the scenario's places.
type bench struct {
	env    *scenario.Env
	frozen *Place // whose instances are restored
	cold   *Place // whose instances are not
	bare   *bare
}

func prepare(ctx context.Context, env *scenario.Env) (_ *scenario.Plan, err error) {
	parts, err := lab.FindParts(env.CRIU)
	if errors.Is(err, lab.ErrPartMissing) {
		return &scenario.Plan{LeftOut: true, Notes: []string{fmt.Sprintf("Left out: %v.", err)}}, nil
	}
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(env.Dir)
	if err != nil {
		return nil, err
	}
	b := &bench{env: env}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	env.Step("two function servers")
	if b.frozen, err = Open(ctx, parts, filepath.Join(dir, "f"), 1, "--freeze-after", "-1", "--idle", "1s"); err != nil {
		return nil, err
	}
	if b.cold, err = Open(ctx, parts, filepath.Join(dir, "c"), 2, "--freeze-after", "-1", "--idle", "1s"); err != nil {
		return nil, err
	}
	plan := &scenario.Plan{Close: b.close}
	env.Step("deploy and freeze two functions on one template")
	name, err := b.deploy(ctx, plan)
	if err != nil {
		return nil, err
	}
	if _, err := b.cold.Deploy(ctx, "embedder/app.py"); err != nil {
		return nil, err
	}
	env.Step("restores, until the working set has been learned")
	if err := b.learn(ctx, name); err != nil {
		return nil, err
	}
	if b.bare, err = newBare(ctx, b.frozen, "sentence-transformers", name); err != nil {
		return nil, err
	}
	b.add(plan)
	return plan, nil
}

func (b *bench) close() (err error) {
	if b.bare != nil {
		err = b.bare.Close()
	}
	for _, p := range []*Place{b.frozen, b.cold} {
		if p != nil {
			err = errors.Join(err, p.Close())
		}
	}
	return err
}

// deploy deploys two functions and freezes them, and adds what that came to. It returns the first one's snapshot.
func (b *bench) deploy(ctx context.Context, plan *scenario.Plan) (string, error) {
	var name string
	for i, f := range []struct{ subject, function, file, app, object string }{
		{first, embedder, "embedder/app.py", "sentence-transformers", "Embedder"},
		{second, "search", "embedder/search.py", "search", "Search"},
	} {
		unix.Sync() // so that nobody waits for what the one before has written
		took, err := b.frozen.Deploy(ctx, f.file)
		if err != nil {
			return "", err
		}
		frozen, err := b.frozen.Freeze(ctx, f.app, f.object)
		if err != nil {
			return "", err
		}
		if i == 0 {
			name = frozen.Snapshot
		}
		said := observeFreeze(took, frozen)
		plan.Trials = append(plan.Trials, scenario.Trial{
			Params: result.P("function", f.function), Subject: f.subject, MaxRepetitions: 1,
			Run: func(context.Context) ([]result.Observation, error) { return said, nil },
		})
	}
	return name, nil
}

func observeFreeze(took time.Duration, f *gateway.Frozen) []result.Observation {
	return []result.Observation{
		one(deployed, float64(took)+f.Took*1e9), one(newShare, 100*float64(f.NewBytes)/float64(max(f.Bytes, 1))),
		one(stopped, f.Stopped*1e9), one(writing, f.Writing*1e9),
	}
}

// learn calls until the snapshot has a working set that means something, and packs it.
func (b *bench) learn(ctx context.Context, name string) error {
	for range scenario.Pick(b.env, learning, 1) {
		if _, err := b.call(ctx, b.frozen); err != nil {
			return err
		}
		if n, err := b.frozen.Recordings(ctx, name); err != nil || n >= enough {
			break
		}
	}
	if n, err := b.frozen.Recordings(ctx, name); err != nil || n == 0 {
		return err
	}
	return b.frozen.thaw(ctx, nil, "snapshot", "optimize", name, "--pack-only")
}

// call calls when there is no instance, and a few times more, and waits until there is none again.
func (b *bench) call(ctx context.Context, p *Place) ([]result.Observation, error) {
	a, err := p.Call(ctx, "sentence-transformers/Embedder.embed", question)
	if err != nil {
		return nil, err
	}
	var w []float64
	for range warmCalls {
		again, err := p.Call(ctx, "sentence-transformers/Embedder.embed", question)
		if err != nil {
			return nil, err
		}
		w = append(w, again.Took*1e9)
	}
	slices.Sort(w)
	return []result.Observation{one(firstResponse, a.Took*1e9), one(warmCall, w[len(w)/2])}, p.Empty(ctx)
}

// cache brings page cache and free memory into a state.
func (b *bench) cache(ctx context.Context, p *Place, c lab.Cache) error {
	if err := b.files(ctx, p, c); err != nil {
		return err
	}
	time.Sleep(calm)
	return lab.OwnMemory(enoughMemory)
}

func (b *bench) files(ctx context.Context, p *Place, c lab.Cache) error {
	if c == lab.Dropped {
		return lab.DropCaches()
	}
	// Before each trial, for no kernel promises to keep a file in memory.
	paths := append(p.parts.Files(), p.store(), p.state(), filepath.Join(p.parts.Rootfs, "usr"))
	if _, err := lab.ReadAll(ctx, paths...); err != nil {
		return err
	}
	// What others have written must not be in the disk's queue before us.
	unix.Sync()
	return nil
}

// add adds the trials that are repeated.
func (b *bench) add(plan *scenario.Plan) {
	caches := scenario.Pick(b.env, lab.Caches(), []lab.Cache{lab.Warm})
	for _, c := range caches {
		params := result.P("function", embedder, "cache", string(c))
		for _, side := range []struct {
			subject string
			place   *Place
		}{{cold, b.cold}, {restored, b.frozen}} {
			p := side.place
			plan.Trials = append(plan.Trials, scenario.Trial{
				Params: params, Subject: side.subject, Group: string(c),
				Run: func(ctx context.Context) ([]result.Observation, error) {
					if err := b.cache(ctx, p, c); err != nil {
						return nil, err
					}
					return b.call(ctx, p)
				},
			})
		}
		if c != lab.Warm {
			continue
		}
		plan.Trials = append(plan.Trials, scenario.Trial{
			Params: params, Subject: bareRunc, Group: string(c),
			Run: func(ctx context.Context) ([]result.Observation, error) {
				if err := b.cache(ctx, b.frozen, c); err != nil {
					return nil, err
				}
				took, err := b.bare.restore(ctx)
				return []result.Observation{one(toRunning, float64(took))}, err
			},
		})
	}
}
