package restores

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"thaw/bench/lab"
	"thaw/bench/lab/fleet"
	"thaw/bench/result"
	"thaw/bench/scenario"
)

var (
	// onWire is what came to the restoring node until the first response, with the heads of packets; wireShare is that over what the working
	// set's pages have in their compressed form.
	onWire    = result.Metric{Name: "on-wire", Unit: "B"}
	wireShare = result.Metric{Name: "wire-share", Unit: "ratio"}
	// linkTime is what the working set's compressed form takes on a link of that rate.
	linkTime = result.Metric{Name: "link-time", Unit: "ns"}
	// rawShare is what the working set takes from a peer, whose packs are not compressed, over what it has in its compressed form: wireShare without the heads
	// of packets. setSent is the former.
	rawShare = result.Metric{Name: "raw-share", Unit: "ratio"}
	setSent  = result.Metric{Name: "set-sent", Unit: "B"}
	// copyTime is what setSent takes at the rate of a verified copy, setPull what setSize takes at that of a copy of everything from the object store.
	copyTime = result.Metric{Name: "copy-time", Unit: "ns"}
	setPull  = result.Metric{Name: "set-pull", Unit: "ns"}
	// packedPages is how many of the working set's pages its hot object has, hotSize what that takes there.
	packedPages = result.Metric{Name: "packed", Unit: "pages"}
	hotSize     = result.Metric{Name: "hot", Unit: "B"}
	// setSize is what the whole working set has in its compressed form.
	setSize = result.Metric{Name: "set-size", Unit: "B"}
	// throughput is of content.
	throughput = result.Metric{Name: "throughput", Unit: "B/s"}
	// hashRate is that of one core that hashes pages.
	hashRate = result.Metric{Name: "hash-rate", Unit: "B/s"}
	// readsPerByte is how often what was read of the object store was read: bytes sent over those sent for the first time.
	readsPerByte = result.Metric{Name: "reads-per-frame", Unit: "reads"}
	// originBytes is what the object store sent.
	originBytes = result.Metric{Name: "origin-bytes", Unit: "B"}
	// wholePull is how long it took to copy everything.
	wholePull = result.Metric{Name: "whole-pull", Unit: "ns"}
)

// Where a restore finds what it needs: the subjects.
const (
	fromLocal      = "local"           // everything is here, the page cache dropped
	fromPeer       = "peer"            // from one peer that holds it, and has prepared what others ask for
	fromUnprepared = "peer-unprepared" // the same, from a peer that makes that when it is asked for it
	fromPeerDemand = "peer-demand"     // as from a peer, with nothing brought but the working set and what is asked for
	fromObjects    = "object-store"    // from the object store
	wholeFirst     = "whole-first"     // everything is copied from the object store, and restored then
	plainTLS       = "tls"             // copies a file
	checked        = "verified"
	unchecked      = "unverified"
	hashing        = "hash" // of pages in memory, by one thread
	coldNodes      = "cold-nodes"
	theLink        = "link"
	sentSet        = "set" // as it travels
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
	least := on(side(string(lab.Floor), toRunning), "none")
	copyLimit := &scenario.Limit{
		Of: *on(side(sentSet, copyTime), unshaped.name), Less: least,
		Is: "the time that the working set takes at the rate of a copy from the same peer, checked and written to a file, less the floor, which passes meanwhile: " +
			"both ends are on this machine, and a copy keeps its cores busy",
	}
	rawLimit := &scenario.Limit{
		Of: side(sentSet, rawShare),
		Is: "what the working set's pages take as peers send them: compressed those of the hot object, as they are those of packs",
	}
	pullLimit := &scenario.Limit{
		Of: *on(side(sentSet, setPull), shaped.name),
		Is: "the part of the time of copying everything that the working set has of its bytes",
	}
	hashLimit := &scenario.Limit{
		Of: side(hashing, throughput),
		Is: "the throughput without, less what one pass of SHA-256 over the pages takes of all cores: both ends of the connection are on this machine, and a copy keeps its cores busy",
	}
	overWhole := func(workload string) scenario.Goal {
		return scenario.Goal{
			Name: "first response from the object store, over copying all first", Case: result.P("link", shaped.name, "workload", workload), Ours: side(fromObjects, firstResponse), Limit: pullLimit,
			Floor: pointer(side(wholeFirst, firstResponse)), FloorIs: "the copy of everything from the object store to the same node, and the restore then", Want: 0.25,
		}
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
			{Name: "overhead from a peer over a local one's", Case: result.P("link", unshaped.name), Each: each, Ours: side(fromPeer, overhead), Floor: local, FloorIs: localIs, Limit: copyLimit, Want: 1.5},
			{
				Name: "overhead from a peer over a local one's", Case: result.P("link", shaped.name), Each: each, Ours: side(fromPeer, overhead), Floor: local, FloorIs: localIs,
				Limit: wireLimit, Want: 2,
			},
			{Name: "on the wire until the first response, over the set's compressed size", Each: []string{"workload", "link"}, Ours: side(fromPeerDemand, wireShare), Limit: rawLimit, Want: 1.15},
			// Of large snapshots: the one with a small working set, and the one of which all is needed.
			overWhole("table"), overWhole("large"),
			{
				Name: "throughput of a peer's bulk stream over plain TLS", Each: []string{"link"}, Ours: side(fromPeer, throughput), Floor: pointer(side(plainTLS, throughput)),
				FloorIs: "one file over one connection with TLS 1.3, between the same two nodes", Want: 0.7, AtLeast: true,
			},
			{Name: "reads of each frame by 32 restores on four cold nodes", Each: []string{"restores"}, Ours: side(coldNodes, readsPerByte), Want: 1.2},
			{
				Name: "throughput with verification over that without", Each: []string{"link"}, Ours: side(checked, throughput), Floor: pointer(side(unchecked, throughput)),
				FloorIs: "the same ranges over the same connections to the same file, no frame compared with its hash", Limit: hashLimit, Want: 0.95, AtLeast: true,
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
	hotBytes float64    // of its hot object, in the object store
	setBytes float64    // of all of the set, as objects have it
	setSent  float64    // of all of the set, as a peer sends it
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
		for _, subject := range []string{string(lab.Floor), fromLocal, fromPeer, fromUnprepared, fromPeerDemand, fromObjects, wholeFirst, theLink, sentSet} {
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

// start brings the links into their state and starts the nodes, all but the holder without a snapshot. The holder, if it is among them, is ready
// for its peers.
func (a *afar) start(ctx context.Context, link wire, nodes []*fleet.Node, from fleet.Sources, flags ...string) error {
	if err := a.fleet.SetLinks(link.links); err != nil {
		return err
	}
	err := a.fleet.Restart(ctx, nodes, from, flags...)
	if err == nil && slices.Contains(nodes, a.holder()) && from.Peers != nil && !from.Unprepared {
		err = a.holder().Prepared(ctx)
	}
	if err != nil {
		stop(nodes)
	}
	return err
}

func stop(nodes []*fleet.Node) {
	for _, n := range nodes {
		n.Stop()
	}
}

// deriveTiers adds the overheads: first response, less W, less the median floor of the workload.
func deriveTiers(d *result.Document) {
	deriveVerified(d)
	deriveSets(d)
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
