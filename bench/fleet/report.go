package fleet

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"

	"thaw/bench/htmlreport"
	"thaw/bench/result"
)

// ReportVersion is that of the report's JSON.
const ReportVersion = 1

// A Report is what several simulations came to, with all that went into them.
type Report struct {
	Version int     `json:"version"`
	Inputs  *Inputs `json:"inputs"`
	Runs    []*Run  `json:"runs"`
}

// SimulateAll runs each scenario with each number of nodes, with peers and without, from the same inputs and seed. each is called after
// every run; it may be nil.
func SimulateAll(ctx context.Context, in *Inputs, scenarios []Scenario, nodes []int, seed uint64, each func(*Run)) (*Report, error) {
	report := &Report{Version: ReportVersion, Inputs: in}
	for _, s := range scenarios {
		for _, n := range nodes {
			for _, alone := range []bool{false, true} {
				r, err := Simulate(ctx, in, Options{Scenario: s, Nodes: n, Seed: seed, Alone: alone})
				if err != nil {
					return nil, err
				}
				report.Runs = append(report.Runs, r)
				if each != nil {
					each(r)
				}
			}
		}
	}
	return report, nil
}

// WriteJSON writes the report. The same inputs, scenarios, nodes and seed give the same bytes.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(r)
}

// Bases returns how many inputs were measured, and how many there are.
func (r *Report) Bases() (measured, all int) {
	rows := r.Inputs.Rows()
	for _, row := range rows {
		if row.Basis == Measured {
			measured++
		}
	}
	return measured, len(rows)
}

// Caveat says in a sentence how much of the inputs was measured.
func (r *Report) Caveat() string {
	measured, all := r.Bases()
	return fmt.Sprintf("Simulated: %d of %d inputs were measured, the others are assumed; what peers and the object store take is %s.", measured, all, r.wire())
}

// wire says whether what the wire takes was measured.
func (r *Report) wire() Basis {
	in := r.Inputs
	for _, v := range []Input{in.Peer.P50, in.Peer.P99, in.Peer.Stream, in.Object.P50, in.Object.P99, in.Object.Stream} {
		if v.Basis != Measured {
			return Assumed
		}
	}
	return Measured
}

// scenarios returns those that were run, in that order.
func (r *Report) scenarios() []Scenario {
	var out []Scenario
	for _, run := range r.Runs {
		if !slices.Contains(out, run.Scenario) {
			out = append(out, run.Scenario)
		}
	}
	return out
}

// Who names what a run is compared by.
func (r *Run) Who() string {
	if r.Alone {
		return "object store alone"
	}
	return "with peers"
}

// columns are those of the tables.
var columns = []struct {
	title string
	of    func(*Run) string
}{
	{"nodes", func(r *Run) string { return strconv.Itoa(r.Nodes) }},
	{"", (*Run).Who},
	{"boots", func(r *Run) string { return strconv.Itoa(r.Boots) }},
	{"lost", func(r *Run) string { return strconv.Itoa(r.Lost) }},
	{"p50", func(r *Run) string { return result.Format(r.FirstResponse.P50*1e9, "ns") }},
	{"p99", func(r *Run) string { return result.Format(r.FirstResponse.P99*1e9, "ns") }},
	{"local", func(r *Run) string { l, _, _ := r.Served.Shares(); return percent(l) }},
	{"peer", func(r *Run) string { _, p, _ := r.Served.Shares(); return percent(p) }},
	{"object store", func(r *Run) string { _, _, o := r.Served.Shares(); return percent(o) }},
	{"read from it", func(r *Run) string { return result.Format(float64(r.Object.Bytes), "B") }},
	{"requests", func(r *Run) string { return strconv.FormatInt(r.Object.Requests, 10) }},
	{"peak", func(r *Run) string { return result.Format(float64(r.Object.PeakBytes), "B/s") }},
	{"reads of a chunk", func(r *Run) string { return fmt.Sprintf("%.2f (%.0f)", r.Object.Reads, r.Object.MostReads) }},
}

func percent(v float64) string { return strconv.FormatFloat(100*v, 'f', 1, 64) + " %" }

// WriteTable writes a table for each scenario.
func (r *Report) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, r.Caveat())
	for _, s := range r.scenarios() {
		fmt.Fprintf(tw, "\n%s: %s\n", s, s.Question())
		for _, c := range columns {
			fmt.Fprint(tw, c.title, "\t")
		}
		fmt.Fprintln(tw)
		for _, run := range r.Runs {
			if run.Scenario != s {
				continue
			}
			for _, c := range columns {
				fmt.Fprint(tw, c.of(run), "\t")
			}
			fmt.Fprintln(tw)
		}
	}
	return tw.Flush()
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"value": value}).Parse(pageText))

// value writes an input for people.
func value(r Row) string {
	switch r.Unit {
	case "s":
		return result.Format(r.Value*1e9, "ns")
	case "1/s":
		return strconv.FormatFloat(r.Value, 'g', 4, 64) + " /s"
	}
	return result.Format(r.Value, r.Unit)
}

// section is a scenario on the page.
type section struct {
	Scenario Scenario
	Pictures []htmlreport.Picture
	Titles   []string
	Rows     []tableRow
}

type tableRow struct {
	Alone bool
	Cells []string
}

// WriteHTML writes the report as a page with pictures that refers to nothing outside of itself.
func (r *Report) WriteHTML(w io.Writer) error {
	data := struct {
		*Report
		Style    template.CSS
		Rows     []Row
		Sections []section
	}{Report: r, Style: htmlreport.Style(), Rows: r.Inputs.Rows()}
	d := r.document()
	for i := range d.Scenarios {
		s := section{Scenario: Scenario(d.Scenarios[i].Name), Pictures: htmlreport.Pictures(d, &d.Scenarios[i])}
		for _, c := range columns {
			s.Titles = append(s.Titles, c.title)
		}
		for _, run := range r.Runs {
			if run.Scenario != s.Scenario {
				continue
			}
			row := tableRow{Alone: run.Alone}
			for _, c := range columns {
				row.Cells = append(row.Cells, c.of(run))
			}
			s.Rows = append(s.Rows, row)
		}
		data.Sections = append(data.Sections, s)
	}
	if err := pageTemplate.Execute(w, data); err != nil {
		return fmt.Errorf("write report of a fleet: %w", err)
	}
	return nil
}

// document puts the runs into the form that charts are drawn from.
func (r *Report) document() *result.Document {
	d := &result.Document{}
	for _, s := range r.scenarios() {
		most := 0
		for _, run := range r.Runs {
			if run.Scenario == s {
				most = max(most, run.Nodes)
			}
		}
		nodes := strconv.Itoa(most)
		d.Scenarios = append(d.Scenarios, result.Scenario{Name: string(s), Charts: []result.Chart{
			{Kind: result.OverParam, Title: "First response by nodes", Metric: "first response", X: "nodes"},
			{Kind: result.Distribution, Title: "First response, " + nodes + " nodes", Metric: "first responses", Only: result.P("nodes", nodes)},
			{Kind: result.OverParam, Title: "Read from the object store by nodes", Metric: "read", X: "nodes"},
			{Kind: result.OverParam, Title: "Where it came from, with peers, by nodes", Metric: "share", X: "nodes"},
			{Kind: result.OverTime, Title: "All that came, with peers, " + nodes + " nodes", Metric: "served", Only: result.P("nodes", nodes)},
		}})
	}
	for _, run := range r.Runs {
		run.addTo(d)
	}
	d.Finish()
	return d
}

// addTo adds the figures of a run to the document that charts are drawn from.
func (r *Run) addTo(d *result.Document) {
	params := result.P("nodes", strconv.Itoa(r.Nodes))
	add := func(subject, metric, unit string, v float64) {
		d.Add(string(r.Scenario), params, subject, []result.Observation{{Metric: result.Metric{Name: metric, Unit: unit}, Values: []float64{v}}})
	}
	add("p50 "+r.Who(), "first response", "ns", r.FirstResponse.P50*1e9)
	add("p99 "+r.Who(), "first response", "ns", r.FirstResponse.P99*1e9)
	add(r.Who(), "read", "B", float64(r.Object.Bytes))
	times := make([]float64, len(r.responses))
	for i, v := range r.responses {
		times[i] = v * 1e9
	}
	d.Add(string(r.Scenario), params, r.Who(), []result.Observation{{Metric: result.Metric{Name: "first responses", Unit: "ns", Many: true}, Values: times}})
	if r.Alone {
		return
	}
	l, p, o := r.Served.Shares()
	add("local", "share", "%", 100*l)
	add("peer", "share", "%", 100*p)
	add("object store", "share", "%", 100*o)
	for _, line := range []struct {
		name string
		of   func(*Bytes) int64
	}{
		{"local", func(b *Bytes) int64 { return b.Local }},
		{"peers", func(b *Bytes) int64 { return b.Peer + b.Through }},
		{"object store", func(b *Bytes) int64 { return b.Object }},
	} {
		curve := []result.Point{{}}
		for i := range r.Curve {
			curve = append(curve, result.Point{T: r.Curve[i].At, V: float64(line.of(&r.Curve[i].Served))})
		}
		d.Add(string(r.Scenario), params, line.name, []result.Observation{{
			Metric: result.Metric{Name: "served", Unit: "B"}, Values: []float64{curve[len(curve)-1].V}, Curve: curve,
		}})
	}
}
