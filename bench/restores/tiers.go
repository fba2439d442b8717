package restores

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/bench/lab"
	"thaw/bench/lab/fleet"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/control"
)

var (
	// onWire is what came to the restoring node until the first response, with the heads of packets; wireShare is that over what the working
	// set's pages have in their compressed form.
	onWire    = result.Metric{Name: "on-wire", Unit: "B"}
	wireShare = result.Metric{Name: "wire-share", Unit: "ratio"}
	// linkTime is what the working set's compressed form takes on a link of that rate.
	linkTime = result.Metric{Name: "link-time", Unit: "ns"}
	// packedPages is how many of the working set's pages its hot object has, hotSize what that has in the object store.
	packedPages = result.Metric{Name: "packed", Unit: "pages"}
	hotSize     = result.Metric{Name: "hot", Unit: "B"}
	// setSize is what the whole working set has in its compressed form.
	setSize = result.Metric{Name: "set-size", Unit: "B"}
	// throughput is of content.
	throughput = result.Metric{Name: "throughput", Unit: "B/s"}
	// readsPerByte is how often what was read of the object store was read: bytes sent over those sent for the first time.
	readsPerByte = result.Metric{Name: "reads-per-frame", Unit: "reads"}
	// originBytes is what the object store sent.
	originBytes = result.Metric{Name: "origin-bytes", Unit: "B"}
	// wholePull is how long it took to copy everything.
	wholePull = result.Metric{Name: "whole-pull", Unit: "ns"}
)

// Where a restore finds what it needs: the subjects.
const (
	fromLocal      = "local"        // everything is here, the page cache dropped
	fromPeer       = "peer"         // from one peer that holds it
	fromPeerAgain  = "peer-again"   // the same, from a peer that has been asked for its hot object before: it makes that when it is asked first
	fromPeerDemand = "peer-demand"  // the same, with nothing brought but the working set and what is asked for
	fromObjects    = "object-store" // from the object store
	wholeFirst     = "whole-first"  // everything is copied from the object store, and restored then
	plainTLS       = "tls"          // copies a file
	checked        = "verified"
	unchecked      = "unverified"
	coldNodes      = "cold-nodes"
	theLink        = "link"
)

// A wire is how nodes are joined.
type wire struct {
	name  string
	links fleet.Links
}

const tenGigabits = 10e9

var (
	unshaped = wire{name: "unshaped"}
	shaped   = wire{"10Gbit", fleet.Links{Bits: tenGigabits, Delay: 500 * time.Microsecond}}
)

func tiersScenario() scenario.Scenario {
	side := func(subject string, m result.Metric) scenario.Side {
		return scenario.Side{Subject: subject, Metric: m.Name, Figure: result.Middle}
	}
	on := func(s scenario.Side, link string) *scenario.Side {
		s.Params = result.P("link", link)
		return &s
	}
	pointer := func(s scenario.Side) *scenario.Side { return &s }
	local := on(side(fromLocal, overhead), "none")
	const localIs = "the restore where the snapshot is, page cache dropped: first response less W, less the floor"
	wireLimit := &scenario.Limit{
		Of: *on(side(theLink, linkTime), shaped.name),
		Is: "the time that the working set's compressed form takes on the link, if nothing else has to be done",
	}
	each := []string{"workload"}
	return scenario.Scenario{
		Name: "tiers",
		Summary: "Restores on nodes that have never seen the snapshot: from a peer and from an object store, each node in a network namespace of its own; what goes " +
			"over the wire, what the object store is asked for, and what peers deliver.",
		Apart: true,
		Charts: []result.Chart{
			{Kind: result.OverParam, Title: "First response by link", Metric: firstResponse.Name, X: "link"},
			{Kind: result.OverParam, Title: "Overhead by link", Metric: overhead.Name, X: "link"},
		},
		Goals: []scenario.Goal{
			{Name: "overhead from a peer over a local one's", Case: result.P("link", unshaped.name), Each: each, Ours: side(fromPeer, overhead), Floor: local, FloorIs: localIs, Want: 1.5},
			{
				Name: "overhead from a peer over a local one's", Case: result.P("link", shaped.name), Each: each, Ours: side(fromPeer, overhead), Floor: local, FloorIs: localIs,
				Limit: wireLimit, Want: 2,
			},
			{
				Name: "overhead from a peer that was asked before, over a local one's", Case: result.P("link", unshaped.name), Each: each,
				Ours: side(fromPeerAgain, overhead), Floor: local, FloorIs: localIs, Want: 1.5,
			},
			{
				Name: "overhead from a peer that was asked before, over a local one's", Case: result.P("link", shaped.name), Each: each,
				Ours: side(fromPeerAgain, overhead), Floor: local, FloorIs: localIs, Limit: wireLimit, Want: 2,
			},
			{Name: "on the wire until the first response, over the set's compressed size", Each: []string{"workload", "link"}, Ours: side(fromPeerDemand, wireShare), Want: 1.15},
			{
				Name: "first response from the object store, over copying all first", Case: result.P("link", shaped.name), Each: each, Ours: side(fromObjects, firstResponse),
				Floor: pointer(side(wholeFirst, firstResponse)), FloorIs: "the copy of everything from the object store to the same node, and the restore then", Want: 0.25,
			},
			{
				Name: "throughput of a peer's bulk stream over plain TLS", Each: []string{"link"}, Ours: side(fromPeer, throughput), Floor: pointer(side(plainTLS, throughput)),
				FloorIs: "one file over one connection with TLS 1.3, between the same two nodes", Want: 0.7, AtLeast: true,
			},
			{Name: "reads of each frame by 32 restores on four cold nodes", Each: []string{"restores"}, Ours: side(coldNodes, readsPerByte), Want: 1.2},
			{
				Name: "throughput with verification over that without", Each: []string{"link"}, Ours: side(checked, throughput), Floor: pointer(side(unchecked, throughput)),
				FloorIs: "the same ranges over the same connections to the same file, no frame compared with its hash", Want: 0.95, AtLeast: true,
			},
		},
		Prepare: prepareTiers,
		Derive:  deriveTiers,
	}
}

// afar is what the scenario's trials share.
type afar struct {
	lab   *lab.Lab
	fleet *fleet.Fleet
	dir   string
	quick bool
}

// The nodes: the first has what was frozen, and is the only one that others know; the next ones are cold.
func (a *afar) holder() *fleet.Node { return a.fleet.Nodes()[0] }
func (a *afar) cold() *fleet.Node   { return a.fleet.Nodes()[1] }

// farWorkload is one whose restores are measured, with the size of its hot pages.
type farWorkload struct {
	lab.Workload
	frozen   *lab.Frozen
	set      lab.Packed // what was learned
	hotKey   string     // of its hot object
	hotBytes float64    // of that, in the object store
	setBytes float64    // of all of the set, as objects have it
}

// bigTable is the size of a table in MiB of which a request reads a sixteenth: a large snapshot with a small working set. The function large needs nearly
// all of its own.
const bigTable = 1024

// pageBytes is the size of a page.
const pageBytes = 4096

// burstNodes are the cold nodes of the burst.
const burstNodes = 4

func prepareTiers(ctx context.Context, env *scenario.Env) (_ *scenario.Plan, err error) {
	s3, err := fleet.FindS3()
	if errors.Is(err, lab.ErrPartMissing) {
		return &scenario.Plan{LeftOut: true, Notes: []string{fmt.Sprintf("Left out: %v.", err)}}, nil
	}
	if err != nil {
		return nil, err
	}
	parts, err := lab.FindParts(env.CRIU)
	if err != nil && !errors.Is(err, lab.ErrPartMissing) { // which newLab says
		return nil, err
	}
	l, plan, err := newLab(ctx, env)
	if plan != nil || err != nil {
		return plan, err
	}
	a := &afar{lab: l, quick: env.Quick}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.dir, err = filepath.Abs(env.Dir); err != nil {
		return nil, err
	}
	workloads, burst, err := a.freeze(ctx, env)
	if err != nil {
		return nil, err
	}
	env.Step("fleet")
	a.fleet, err = fleet.New(ctx, fleet.Config{
		Thawd: parts.Thawd, S3: s3, Dir: filepath.Join(a.dir, "fleet"), Nodes: 1 + burstNodes, Stores: []string{l.StoreFolder()},
	})
	if err != nil {
		return nil, err
	}
	env.Step("push")
	if err := a.push(ctx, len(workloads)+1); err != nil {
		return nil, err
	}
	plan = &scenario.Plan{Close: a.close, Notes: []string{
		"The compressed size of a working set is that of its hot object, and for the pages that are not in it, which lie together in packs already, what pages of packs have on average.",
		"A link of 10 Gbit/s is bound by the kernel at both ends. Its delay of 0.5 ms each way is a proxy's, on the way of the requests alone: the restoring node's wait is the same.",
		"What the holder or the object store has is in the page cache before each restore from there; what is local is not, and neither are runc, CRIU and libraries in any case.",
	}}
	for i := range workloads {
		if err := workloads[i].add(plan, a); err != nil {
			return nil, err
		}
	}
	if len(workloads) > 0 {
		a.addCopies(plan)
	}
	a.addBurst(plan, burst, scenario.Pick(env, 32, burstNodes))
	return plan, nil
}

func (a *afar) close() error {
	var err error
	if a.fleet != nil {
		err = a.fleet.Close()
	}
	return errors.Join(err, a.lab.Close())
}

// wantedWorkload reports whether any restore of a workload is.
func wantedWorkload(env *scenario.Env, name string) bool {
	w := farWorkload{Workload: lab.Workload{Name: name}}
	for _, link := range []string{"none", unshaped.name, shaped.name} {
		for _, subject := range []string{string(lab.Floor), fromLocal, fromPeer, fromPeerAgain, fromPeerDemand, fromObjects, wholeFirst, theLink} {
			if env.Wants(w.params(link), subject) {
				return true
			}
		}
	}
	return false
}

// freeze freezes the workloads, and has their working sets learned.
func (a *afar) freeze(ctx context.Context, env *scenario.Env) (all []farWorkload, burst *lab.Frozen, err error) {
	find := func(name string) lab.Workload {
		i := slices.IndexFunc(lab.Workloads(), func(w lab.Workload) bool { return w.Name == name })
		return lab.Workloads()[i]
	}
	wanted := scenario.Pick(env, []lab.Workload{find("minilm"), find("large"), lab.Table(bigTable, 1)}, []lab.Workload{lab.Table(16, 1)})
	wanted = slices.DeleteFunc(wanted, func(w lab.Workload) bool { return !wantedWorkload(env, w.Name) })
	for _, w := range wanted {
		env.Step(w.Title)
		f, err := a.lab.Freeze(ctx, w)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", w.Name, err)
		}
		all = append(all, farWorkload{Workload: w, frozen: f})
	}
	env.Step("burst")
	if burst, err = a.lab.Freeze(ctx, lab.Table(scenario.Pick(env, tableSize, 8), 0)); err != nil {
		return nil, nil, err
	}
	if err := a.lab.Prepare(ctx, lab.ThawSet, lab.Floor); err != nil {
		return nil, nil, err
	}
	for i := range all {
		if all[i].set, err = a.learn(ctx, env, all[i].frozen); err != nil {
			return nil, nil, err
		}
	}
	_, err = a.learn(ctx, env, burst)
	return all, burst, err
}

// learn has a working set learned and packed.
func (a *afar) learn(ctx context.Context, env *scenario.Env, f *lab.Frozen) (lab.Packed, error) {
	env.Step("working set of " + f.Name())
	if _, err := a.lab.Learn(ctx, f, slices.Repeat([]lab.Input{lab.SameInput}, scenario.Pick(env, learnRuns, 1))...); err != nil {
		return lab.Packed{}, err
	}
	return a.lab.Pack(ctx, f)
}

// push brings everything to the object store, by a node that does so by itself.
func (a *afar) push(ctx context.Context, snapshots int) error {
	h := a.holder()
	if err := h.Start(ctx, fleet.Sources{Push: true}); err != nil {
		return err
	}
	defer h.Stop()
	return h.Pushed(ctx, snapshots)
}

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
			w.hotKey, w.hotBytes = key, float64(size)
			apart := float64(w.set.Must + w.set.Likely - w.set.Packed)
			w.setBytes = w.hotBytes + apart*pageBytes*packs/raw
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
		return w.restore(ctx, a, h, lab.Started{})
	})
	plan.Trials = append(plan.Trials, scenario.Trial{
		Params: w.params("none"), Subject: recorded, MaxRepetitions: 1, Run: func(context.Context) ([]result.Observation, error) {
			return []result.Observation{one(setPages, float64(w.set.Must+w.set.Likely)), one(packedPages, float64(w.set.Packed)), one(hotSize, w.hotBytes), one(setSize, w.setBytes)}, nil
		},
	})
	trial(shaped.name, theLink, func(context.Context) ([]result.Observation, error) {
		return []result.Observation{one(linkTime, w.setBytes*8/tenGigabits*1e9)}, nil
	})
	for _, link := range []wire{unshaped, shaped} {
		trial(link.name, fromPeer, func(ctx context.Context) ([]result.Observation, error) {
			return w.fromPeer(ctx, a, link, false, lab.Started{})
		})
		trial(link.name, fromPeerAgain, func(ctx context.Context) ([]result.Observation, error) {
			return w.fromPeer(ctx, a, link, true, lab.Started{})
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
func (w *farWorkload) restore(ctx context.Context, a *afar, at *fleet.Node, how lab.Started, cached ...string) (_ []result.Observation, err error) {
	if err := a.lab.Ready(ctx, w.frozen, 1, cached...); err != nil {
		return nil, err
	}
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

func (w *farWorkload) fromPeer(ctx context.Context, a *afar, link wire, again bool, how lab.Started, flags ...string) ([]result.Observation, error) {
	pair := []*fleet.Node{a.holder(), a.cold()}
	if err := a.start(ctx, link, pair, fleet.Sources{Peers: pair, NoObjectStore: true}, flags...); err != nil {
		return nil, err
	}
	defer stop(pair)
	if again {
		if err := w.askFor(ctx, a); err != nil {
			return nil, err
		}
	}
	return w.restore(ctx, a, a.cold(), how, a.lab.StoreFolder())
}

// askFor has the holder make the workload's hot object.
func (w *farWorkload) askFor(ctx context.Context, a *afar) error {
	c, err := a.holder().Client(a.cold())
	if err != nil {
		return err
	}
	defer c.Close()
	// In the order in which a restore asks: a node knows what it has by the names that it was asked for.
	for _, key := range []string{"v1/default/names/" + w.frozen.Name(), w.hotKey} {
		if _, err := fleet.Stream(ctx, c, key); err != nil {
			return err
		}
	}
	return nil
}

func (w *farWorkload) fromObjects(ctx context.Context, a *afar, whole bool) ([]result.Observation, error) {
	n := a.cold()
	if err := a.start(ctx, shaped, []*fleet.Node{n}, fleet.Sources{}); err != nil {
		return nil, err
	}
	defer stop([]*fleet.Node{n})
	if !whole {
		return w.restore(ctx, a, n, lab.Started{}, a.fleet.Objects().Folder())
	}
	if err := a.lab.Ready(ctx, w.frozen, 1, a.fleet.Objects().Folder()); err != nil {
		return nil, err
	}
	start := time.Now()
	if _, err := n.Thawd().Pull(ctx, w.frozen.Name(), control.PullWhole); err != nil {
		return nil, err
	}
	copied := time.Since(start)
	// What was copied is in the page cache, as it is behind any copy.
	p, err := a.lab.Restore(ctx, w.frozen, n.Place(), lab.Started{})
	if err != nil {
		return nil, err
	}
	first, err := p.First(ctx)
	if err = errors.Join(err, p.Close()); err != nil {
		return nil, err
	}
	return []result.Observation{one(firstResponse, float64(copied)+nanoseconds(first)), one(wholePull, float64(copied))}, nil
}

// start brings the links into their state and starts the nodes, all but the holder without a snapshot.
func (a *afar) start(ctx context.Context, link wire, nodes []*fleet.Node, from fleet.Sources, flags ...string) error {
	if err := a.fleet.SetLinks(link.links); err != nil {
		return err
	}
	if err := a.fleet.Restart(ctx, nodes, from, flags...); err != nil {
		stop(nodes)
		return err
	}
	return nil
}

func stop(nodes []*fleet.Node) {
	for _, n := range nodes {
		n.Stop()
	}
}

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

// deriveTiers adds the overheads: first response, less W, less the median floor of the workload.
func deriveTiers(d *result.Document) {
	for _, first := range d.Series {
		if first.Scenario != "tiers" || first.Name != firstResponse.Name || first.Params.Get("workload") == "" {
			continue
		}
		floor := d.Find("tiers", result.P("workload", first.Params.Get("workload"), "link", "none"), string(lab.Floor), toRunning.Name)
		warm := d.Find("tiers", first.Params, first.Subject, warmCall.Name)
		if floor == nil || warm == nil {
			continue
		}
		least := result.Median(floor.Samples)
		for i, v := range first.Samples {
			d.Add("tiers", first.Params, first.Subject, []result.Observation{one(overhead, v-warm.Samples[i]-least)})
		}
	}
}
