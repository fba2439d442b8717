package fleet

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// The form of an inputs file: part of the format, docs/format/fleet.md.
const (
	inputsFormat  = "thaw-fleet-inputs"
	inputsVersion = 1
	// maxInputs bounds the size of an inputs file, in bytes.
	maxInputs = 1 << 20
	maxKinds  = 64
)

// ErrInputs is returned for inputs that are not understood, or out of bounds.
var ErrInputs = errors.New("inputs of a fleet")

// A Basis says where an input is from.
type Basis string

// The bases.
const (
	Measured Basis = "measured"
	Assumed  Basis = "assumed"
)

// An Input is one number that goes into the simulation. Its unit is that of its field.
type Input struct {
	Value float64 `json:"value"`
	Basis Basis   `json:"basis"`
	// From says how, with what and at which commit it was measured; or why it was assumed.
	From string `json:"from"`
}

// UnmarshalJSON reads all of an input: nothing of an earlier one, which it replaces, stays.
func (in *Input) UnmarshalJSON(data []byte) error {
	type plain Input
	var p plain
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return err
	}
	*in = Input(p)
	return nil
}

// A Kind is a sort of process that snapshots are of.
type Kind struct {
	Name string `json:"name"`
	// Weight is how many of the snapshots are of this kind, relative to the other kinds.
	Weight Input `json:"weight"`
	// Bytes are those of the whole snapshot, SetBytes those of its working set, MetaBytes those of descriptor, manifest and skeleton.
	Bytes     Input `json:"bytes"`
	SetBytes  Input `json:"set_bytes"`
	MetaBytes Input `json:"meta_bytes"`
	// Missed is how many times a process waits for a frame outside of its working set before it answers, one after the other.
	Missed Input `json:"missed"`
	// Running is how long the runtime takes until the process runs, in seconds of one core; Overhead what bringing the working set
	// adds if it is at hand, and Call what the request itself takes.
	Running  Input `json:"running_s"`
	Overhead Input `json:"overhead_s"`
	Call     Input `json:"call_s"`
}

// Inputs are all numbers that a simulation depends on, besides its scenario, the number of nodes and the seed.
type Inputs struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Kinds   []Kind `json:"kinds"`
	Node    struct {
		Cores Input `json:"cores"`
		// Quota is for what a node keeps, in bytes; Disk and Link are in bytes/s, Link for each direction.
		Quota Input `json:"quota_bytes"`
		Disk  Input `json:"disk_bytes_per_s"`
		Link  Input `json:"link_bytes_per_s"`
	} `json:"node"`
	Peer struct {
		// P50 and P99 are until the first byte of an answer, in seconds.
		P50 Input `json:"first_byte_p50_s"`
		P99 Input `json:"first_byte_p99_s"`
		// Stream is what one stream carries at most, in bytes/s; Streams is how many a node serves at the same time before it says that it is busy.
		Stream  Input `json:"stream_bytes_per_s"`
		Streams Input `json:"streams"`
	} `json:"peer"`
	Object struct {
		P50    Input `json:"first_byte_p50_s"`
		P99    Input `json:"first_byte_p99_s"`
		Stream Input `json:"stream_bytes_per_s"`
		// Bandwidth and Requests are what the whole store serves at most, in bytes/s and requests/s.
		Bandwidth Input `json:"bandwidth_bytes_per_s"`
		Requests  Input `json:"requests_per_s"`
	} `json:"object_store"`
	Fetch struct {
		// Range is the most that one request asks for, in bytes.
		Range Input `json:"range_bytes"`
		// Window is how many chunks a boot has on their way at the same time; MirrorWindow the same behind the first response, where each
		// stream has MirrorWeight of the share of one that a boot waits for.
		Window       Input `json:"window"`
		MirrorWindow Input `json:"mirror_window"`
		MirrorWeight Input `json:"mirror_weight"`
		// Hedge is the part of all fetches that may ask a second source when the first has not begun within its p95; 0 for never.
		Hedge Input `json:"hedge_share"`
		// Timeout is when a source that does not answer is given up; Patience is how long busy peers are asked again and again before the
		// object store is asked instead, with pauses that double from Pause up to 16 times that. In seconds.
		Timeout  Input `json:"timeout_s"`
		Patience Input `json:"patience_s"`
		Pause    Input `json:"pause_s"`
	} `json:"fetch"`
	Placement struct {
		// Homes is how many nodes are asked for a chunk by rendezvous hashing; Hints how many of those that restored a snapshot last are known;
		// Tries how many of them are asked before the homes are.
		Homes Input `json:"homes"`
		Hints Input `json:"hints"`
		Tries Input `json:"tries"`
		// HintDelay is until others know who has restored what, DeadAfter until they know of a death. In seconds.
		HintDelay Input `json:"hint_delay_s"`
		DeadAfter Input `json:"dead_after_s"`
	} `json:"placement"`
	Load struct {
		Snapshots Input `json:"snapshots"`
		Zipf      Input `json:"zipf"` // the exponent of their popularity
		Zones     Input `json:"zones"`
		Rate      Input `json:"boots_per_node_s"`
		Seconds   Input `json:"seconds"` // that boots begin in, of all scenarios but burst
		Spread    Input `json:"burst_spread_s"`
		Runs      Input `json:"runs_s"` // how long a process lives after its first response, and keeps its snapshot from eviction
		Life      Input `json:"node_life_s"`
		Rejoin    Input `json:"rejoin_s"` // until an empty node takes the place of a dead one
		Swing     Input `json:"diurnal_swing"`
	} `json:"load"`
	// Chunk is the size that a snapshot's parts are made of, in bytes; a part is larger if there would be more than 24 of the working set, or of the rest.
	Chunk Input `json:"chunk_bytes"`
}

//go:embed inputs.json
var defaults []byte

// Default returns the inputs that the program comes with.
func Default() *Inputs {
	in, err := read(bytes.NewReader(defaults), &Inputs{})
	if err != nil {
		panic("bench/fleet: the inputs that are built in: " + err.Error())
	}
	return in
}

// Read reads an inputs file: what it says replaces what Default has, input by input, and its kinds, if it has any, all kinds.
// Returns ErrInputs if it is not understood, or an input is out of bounds.
func Read(r io.Reader) (*Inputs, error) { return read(r, Default()) }

func read(r io.Reader, in *Inputs) (*Inputs, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInputs+1))
	if err != nil {
		return nil, fmt.Errorf("read inputs: %w", err)
	}
	if len(data) > maxInputs {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrInputs, maxInputs)
	}
	kinds := in.Kinds
	// An array would be read over the kinds that are there, and keep of them what it does not say.
	in.Format, in.Version, in.Kinds = "", 0, nil
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInputs, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows the inputs", ErrInputs)
	}
	if in.Kinds == nil {
		in.Kinds = kinds
	}
	return in, in.check()
}

// check returns what is wrong with the inputs.
func (in *Inputs) check() error {
	if in.Format != inputsFormat || in.Version != inputsVersion {
		return fmt.Errorf("%w: format %.40q, version %d, want %q, %d", ErrInputs, in.Format, in.Version, inputsFormat, inputsVersion)
	}
	if len(in.Kinds) == 0 || len(in.Kinds) > maxKinds {
		return fmt.Errorf("%w: %d kinds, want 1 to %d", ErrInputs, len(in.Kinds), maxKinds)
	}
	names := make(map[string]bool)
	for i := range in.Kinds {
		k := &in.Kinds[i]
		if k.Name == "" || len(k.Name) > 40 || strings.ContainsAny(k.Name, "/= \t\n") || names[k.Name] {
			return fmt.Errorf("%w: kind %d is called %.40q", ErrInputs, i, k.Name)
		}
		names[k.Name] = true
	}
	for _, row := range in.rows() {
		v := row.input
		if v.Basis != Measured && v.Basis != Assumed {
			return fmt.Errorf("%w: %s: basis %.20q, want %q or %q", ErrInputs, row.Name, v.Basis, Measured, Assumed)
		}
		if v.From == "" {
			return fmt.Errorf("%w: %s does not say where it is from", ErrInputs, row.Name)
		}
		if math.IsNaN(v.Value) || v.Value < row.low || v.Value > row.high {
			return fmt.Errorf("%w: %s is %g, want %g to %g", ErrInputs, row.Name, v.Value, row.low, row.high)
		}
	}
	for _, pair := range []struct {
		name     string
		low, top *Input
	}{
		{"peer first byte: p50", &in.Peer.P50, &in.Peer.P99}, {"object store first byte: p50", &in.Object.P50, &in.Object.P99},
	} {
		if pair.low.Value > pair.top.Value {
			return fmt.Errorf("%w: %s is above p99", ErrInputs, pair.name)
		}
	}
	for i := range in.Kinds {
		k := &in.Kinds[i]
		if k.SetBytes.Value+k.Missed.Value*frameBytes > k.Bytes.Value {
			return fmt.Errorf("%w: kind %s: working set and missed frames are larger than the snapshot", ErrInputs, k.Name)
		}
	}
	return nil
}

// A Row is an input as reports list it.
type Row struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	Input
	input     *Input
	low, high float64
}

// Rows returns all inputs, in the order of the file.
func (in *Inputs) Rows() []Row {
	rows := in.rows()
	for i := range rows {
		rows[i].Input = *rows[i].input
	}
	return rows
}

func (in *Inputs) rows() []Row {
	var rows []Row
	add := func(name, unit string, low, high float64, v *Input) {
		rows = append(rows, Row{Name: name, Unit: unit, input: v, low: low, high: high})
	}
	const kib, tib = 1 << 10, 1 << 40
	for i := range in.Kinds {
		k := &in.Kinds[i]
		add(k.Name+": weight", "", 1e-3, 1e3, &k.Weight)
		add(k.Name+": snapshot", "B", kib, tib, &k.Bytes)
		add(k.Name+": working set", "B", 1, tib, &k.SetBytes)
		add(k.Name+": descriptor, manifest, skeleton", "B", 1, tib, &k.MetaBytes)
		add(k.Name+": frames waited for outside of the set", "", 0, 1e5, &k.Missed)
		add(k.Name+": until the process runs", "s", 0, 1e3, &k.Running)
		add(k.Name+": overhead of the working set at hand", "s", 0, 1e3, &k.Overhead)
		add(k.Name+": the request", "s", 0, 1e3, &k.Call)
	}
	add("node: cores", "", 1, 4096, &in.Node.Cores)
	add("node: quota", "B", 0, 1024*tib, &in.Node.Quota)
	add("node: disk", "B/s", 1e6, 1e12, &in.Node.Disk)
	add("node: link, each direction", "B/s", 1e6, 1e12, &in.Node.Link)
	add("peer: first byte, p50", "s", 1e-6, 60, &in.Peer.P50)
	add("peer: first byte, p99", "s", 1e-6, 60, &in.Peer.P99)
	add("peer: one stream", "B/s", 1e5, 1e12, &in.Peer.Stream)
	add("peer: streams served at the same time", "", 1, 1e4, &in.Peer.Streams)
	add("object store: first byte, p50", "s", 1e-6, 60, &in.Object.P50)
	add("object store: first byte, p99", "s", 1e-6, 60, &in.Object.P99)
	add("object store: one stream", "B/s", 1e5, 1e12, &in.Object.Stream)
	add("object store: all streams", "B/s", 1e6, 1e14, &in.Object.Bandwidth)
	add("object store: requests", "1/s", 1, 1e7, &in.Object.Requests)
	add("fetch: range", "B", frameBytes, 1<<30, &in.Fetch.Range)
	add("fetch: chunks on their way to a boot", "", 1, 64, &in.Fetch.Window)
	add("fetch: chunks on their way behind the first response", "", 0, 64, &in.Fetch.MirrorWindow)
	add("fetch: weight of a stream behind the first response", "", 1e-3, 1, &in.Fetch.MirrorWeight)
	add("fetch: part that may be hedged", "", 0, 1, &in.Fetch.Hedge)
	add("fetch: timeout", "s", 1e-3, 1e3, &in.Fetch.Timeout)
	add("fetch: patience with busy peers", "s", 0, 1e6, &in.Fetch.Patience)
	add("fetch: first pause", "s", 1e-4, 10, &in.Fetch.Pause)
	add("placement: homes of a chunk", "", 0, ranked/2, &in.Placement.Homes)
	add("placement: hints known of a snapshot", "", 0, 1e5, &in.Placement.Hints)
	add("placement: hints asked", "", 0, 16, &in.Placement.Tries)
	add("placement: until a hint is known", "s", 0, 1e4, &in.Placement.HintDelay)
	add("placement: until a death is known", "s", 0, 1e4, &in.Placement.DeadAfter)
	add("load: snapshots", "", 1, 1e6, &in.Load.Snapshots)
	add("load: exponent of their popularity", "", 0, 5, &in.Load.Zipf)
	add("load: zones", "", 1, 100, &in.Load.Zones)
	add("load: boots of a node", "1/s", 1e-6, 100, &in.Load.Rate)
	add("load: boots begin for", "s", 1, 1e6, &in.Load.Seconds)
	add("load: a burst begins within", "s", 0, 1e3, &in.Load.Spread)
	add("load: a process runs for", "s", 0, 1e6, &in.Load.Runs)
	add("load: a node lives for, on average", "s", 1, 1e9, &in.Load.Life)
	add("load: until another takes its place", "s", 0, 1e6, &in.Load.Rejoin)
	add("load: swing of the day", "", 0, 1, &in.Load.Swing)
	add("chunk", "B", frameBytes, tib, &in.Chunk)
	return rows
}
