package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/cmd/internal/tracepage"
	"thaw/internal/durable"
	"thaw/pagestore"
	"thaw/restore/tracer/trace"
	"thaw/restore/workingset"
)

func newTraceShow(a *app) *cobra.Command {
	var page, snapshot string
	cmd := &cobra.Command{
		Use:   "show (FILE | --snapshot NAME)",
		Short: "Show what a trace or a working set says",
		Long: `Shows what is in a trace, or in a working set: that of a file, or of a snapshot in the store.

Of a trace: from where in the kernel it was recorded and what cannot be seen from there, how many pages were touched, when, by
whom, and in which mappings. Pages are counted once for each address space. READ and WRITTEN say what the first touch was, LATER counts
pages that were read first and written later, KERNEL pages that the kernel touched first, inside of a system call.

Of a working set, which has learned from several restores of a snapshot: which pages are a must (most restores wait for them), which are
likely, so that it pays to bring them as well, and which are the tail that does not pay; when they are touched, and where they are.
START, REQUEST and LATER say whether that is before the first request is made, until its answer, or after it.

Both are drawn as well, each column with the pages of one span of time, which lasts until twice the time of the one before.`,
		Example: `  thaw trace show web.trace
  thaw trace show web.ws --html web.html
  thaw trace show --snapshot web
  thaw trace show web.trace --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if snapshot == "" && len(args) != 1 {
				return fmt.Errorf("%s takes one file, and got %d arguments", cmd.CommandPath(), len(args))
			}
			if snapshot != "" && len(args) > 0 {
				return fmt.Errorf("%s takes either a file or --snapshot", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if snapshot != "" {
				return a.showSnapshot(snapshot, page)
			}
			return a.traceShow(args[0], page)
		},
	}
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "show the working set of this snapshot")
	cmd.Flags().StringVar(&page, "html", "", "write a page with pictures to this file instead; one that exists is replaced")
	mustMark(cmd.MarkFlagFilename("html"))
	return cmd
}

func (a *app) traceShow(name, page string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	set, err := isSet(file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if set {
		ws, err := workingset.Read(file)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s := shownSetOf(name, info.Size(), ws)
		return a.show(s, s.write, s.page, page)
	}
	t, err := trace.Read(file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s := shownTrace(name, info.Size(), t)
	return a.show(s, func(w io.Writer) { s.write(w, t) }, func() *tracepage.Page { return s.page(t) }, page)
}

// showSnapshot shows the working set of a snapshot.
func (a *app) showSnapshot(name, page string) error {
	return a.withSnapshot(name, func(snap *pagestore.Snapshot) error {
		set, size, err := setOf(snap)
		if err != nil {
			return err
		}
		s := shownSetOf(snap.Name().String(), size, set)
		return a.show(s, s.write, s.page, page)
	})
}

// show prints v as JSON or text; with a name for the page it writes that instead of the text.
func (a *app) show(v any, text func(io.Writer), page func() *tracepage.Page, name string) error {
	if name == "" {
		return a.print(v, text)
	}
	var out bytes.Buffer
	if err := page().Write(&out); err != nil {
		return err
	}
	if err := durable.Replace(durable.Disk, name, out.Bytes()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return a.print(v, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", name, cli.Bytes(uint64(out.Len()))) })
}

// shown is what trace show prints of a trace, and trace record.
type shown struct {
	File      string    `json:"file"`
	Kind      string    `json:"kind"`
	Bytes     int64     `json:"bytes"`
	Point     string    `json:"point"`
	Blind     []string  `json:"cannot_see"`
	Started   time.Time `json:"started"`
	Seconds   float64   `json:"length_s"`
	End       string    `json:"end"`
	Cgroup    string    `json:"cgroup,omitempty"`
	Chosen    []uint32  `json:"pids,omitempty"`
	Complete  bool      `json:"complete"`
	LostRing  uint64    `json:"lost_buffer_full"`
	LostSpace uint64    `json:"lost_too_many"`
	Touches   int       `json:"touches"`
	trace.Count
	Times   []trace.Bucket      `json:"times"`
	Regions []trace.RegionCount `json:"regions"`
	Spaces  []shownSpace        `json:"spaces"`
}

type shownSpace struct {
	ID     uint32   `json:"id"`
	PID    uint32   `json:"pid"`
	Parent uint32   `json:"parent,omitempty"`
	Origin string   `json:"origin"`
	Began  float64  `json:"began_s"`
	Ended  *float64 `json:"ended_s,omitempty"`
	trace.Count
}

func shownTrace(name string, size int64, t *trace.Trace) *shown {
	sum := trace.Summarize(t)
	s := &shown{
		File: name, Kind: "trace", Bytes: size, Point: t.Point.String(), Blind: t.Blind.Texts(), Started: t.Started, Seconds: t.Length.Seconds(),
		End: t.End.String(), Cgroup: t.Cgroup, Chosen: t.Chosen(), Complete: t.Complete(), LostRing: t.LostRing, LostSpace: t.LostSpace,
		Touches: len(t.Touches), Count: sum.Total, Times: sum.Times, Regions: sum.Regions,
	}
	for _, c := range sum.Spaces {
		one := shownSpace{
			ID: c.Space.ID, PID: c.Space.PID, Parent: c.Space.Parent, Origin: c.Space.Origin.String(), Began: c.Space.Began.Seconds(), Count: c.Count,
		}
		if c.Space.Ended != trace.Alive {
			ended := c.Space.Ended.Seconds()
			one.Ended = &ended
		}
		s.Spaces = append(s.Spaces, one)
	}
	return s
}

// shownRows is how many address spaces and how many mappings are shown to people: those with most pages.
const shownRows = 20

func (s *shown) write(w io.Writer, t *trace.Trace) {
	s.writeHead(w, t)
	if len(s.Times) > 0 {
		fmt.Fprintf(w, "\nover time, from %s to %s\n", cli.Seconds(s.Times[0].Until), cli.Seconds(s.Times[len(s.Times)-1].Until))
		table(w, sparklines(s.sparks()))
	}
	fmt.Fprintln(w)
	rows := [][]string{append([]string{"UNTIL"}, countHeading...)}
	for _, b := range s.Times {
		if b.Pages+b.Later > 0 {
			rows = append(rows, append([]string{cli.Seconds(b.Until)}, countCells(&b.Count)...))
		}
	}
	table(w, rows)

	fmt.Fprintln(w)
	rows = [][]string{append([]string{"PROCESS", "FROM", "BEGAN"}, countHeading...)}
	spaces := slices.Clone(s.Spaces)
	slices.SortStableFunc(spaces, func(a, b shownSpace) int { return cmp.Compare(b.Pages, a.Pages) })
	for _, x := range spaces[:min(len(spaces), shownRows)] {
		rows = append(rows, append([]string{fmt.Sprint(x.PID), x.Origin, fmt.Sprintf("%.3f s", x.Began)}, countCells(&x.Count)...))
	}
	table(w, rows)
	writeMore(w, len(spaces), "address spaces")

	fmt.Fprintln(w)
	rows = [][]string{append(slices.Clone(countHeading), "MAPPING")}
	for _, r := range s.Regions[:min(len(s.Regions), shownRows)] {
		rows = append(rows, append(countCells(&r.Count), r.Name))
	}
	table(w, rows)
	writeMore(w, len(s.Regions), "mappings")
}

// writeMore says how many rows were left out of a table.
func writeMore(w io.Writer, n int, what string) {
	if n > shownRows {
		fmt.Fprintf(w, "and %d %s with fewer pages; --json lists them\n", n-shownRows, what)
	}
}

// writeHead says what the trace is worth.
func (s *shown) writeHead(w io.Writer, t *trace.Trace) { table(w, s.facts(t)) }

func (s *shown) facts(t *trace.Trace) [][]string {
	rows := [][]string{
		{"recorded", when(t.Started) + ", for " + cli.Seconds(t.Length) + ": " + s.End},
		{"seen from", s.Point},
	}
	for i, blind := range s.Blind {
		rows = append(rows, []string{[]string{"cannot see", ""}[min(i, 1)], blind})
	}
	if s.Cgroup != "" {
		rows = append(rows, []string{"cgroup", s.Cgroup})
	}
	state := cmp.Or(s.incomplete(t), "complete")
	return append(rows,
		[]string{"trace", fmt.Sprintf("%s; %d touches in %s", state, s.Touches, cli.Bytes(uint64(s.Bytes)))},
		[]string{"pages", fmt.Sprintf("%d, %s", s.Pages, cli.Bytes(s.Pages*trace.PageSize))},
	)
}

// incomplete says why the trace lacks touches; empty if it does not.
func (s *shown) incomplete(t *trace.Trace) string {
	switch {
	case t.End == trace.EndBroken:
		return "NOT complete: " + s.End
	case t.Lost() > 0:
		return "NOT complete: " + lostText(t)
	}
	return ""
}

// lostText says what is missing in a trace.
func lostText(t *trace.Trace) string {
	var parts []string
	if t.LostRing > 0 {
		parts = append(parts, fmt.Sprintf("%d events were lost because the buffer was full", t.LostRing))
	}
	if t.LostSpace > 0 {
		parts = append(parts, fmt.Sprintf("%d were lost because there were too many pages or processes", t.LostSpace))
	}
	return strings.Join(parts, ", ")
}

var countHeading = []string{"PAGES", "READ", "WRITTEN", "LATER", "KERNEL"}

func countCells(c *trace.Count) []string {
	var cells []string
	for _, n := range []uint64{c.Pages, c.Read, c.Write, c.Later, c.Kernel} {
		cells = append(cells, fmt.Sprint(n))
	}
	return cells
}

// touchSeries are the parts of a count that are drawn.
var touchSeries = []string{"read first", "written first", "written later"}

func touchCounts(c *trace.Count) []uint64 { return []uint64{c.Read, c.Write, c.Later} }

func (s *shown) sparks() []spark {
	var out []spark
	for i, name := range touchSeries {
		line := spark{name: name}
		for j := range s.Times {
			line.values = append(line.values, touchCounts(&s.Times[j].Count)[i])
		}
		out = append(out, line)
	}
	return out
}

// pageRows is how many rows the tables of a page have: there is more room than on a terminal.
const pageRows = 200

// leftOut says how many rows a table of a page lacks; empty if it has all.
func leftOut(n int, what string) string {
	if n <= pageRows {
		return ""
	}
	return fmt.Sprintf("and %d %s with fewer pages", n-pageRows, what)
}

// page returns what --html writes.
func (s *shown) page(t *trace.Trace) *tracepage.Page {
	p := &tracepage.Page{Title: filepath.Base(s.File)}
	for _, row := range s.facts(t) {
		if n := len(p.Facts); row[0] == "" {
			p.Facts[n-1].Value += "; " + row[1]
			continue
		}
		p.Facts = append(p.Facts, tracepage.Fact{Name: row[0], Value: row[1]})
	}
	if why := s.incomplete(t); why != "" {
		p.Warnings = append(p.Warnings, why)
	}
	times := tracepage.Chart{
		Title: "Touches over time", Series: touchSeries,
		Note: "Since the recording began; each column lasts until twice the time of the one before.",
	}
	for i := range s.Times {
		times.Columns = append(times.Columns, tracepage.Row{Name: cli.Seconds(s.Times[i].Until), Counts: touchCounts(&s.Times[i].Count)})
	}
	regions := tracepage.Table{Title: "Touches by mapping", Series: touchSeries, More: leftOut(len(s.Regions), "mappings")}
	for i := range s.Regions[:min(len(s.Regions), pageRows)] {
		regions.Rows = append(regions.Rows, tracepage.Row{Name: s.Regions[i].Name, Counts: touchCounts(&s.Regions[i].Count)})
	}
	spaces := tracepage.Table{Title: "Touches by process", Series: touchSeries, More: leftOut(len(s.Spaces), "address spaces")}
	for i := range s.Spaces[:min(len(s.Spaces), pageRows)] {
		x := &s.Spaces[i]
		name := fmt.Sprintf("%d (%s, from %.3f s)", x.PID, x.Origin, x.Began)
		spaces.Rows = append(spaces.Rows, tracepage.Row{Name: name, Counts: touchCounts(&x.Count)})
	}
	p.Charts, p.Tables = []tracepage.Chart{times}, []tracepage.Table{regions, spaces}
	return p
}
