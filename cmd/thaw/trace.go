package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/internal/durable"
	"thaw/restore/tracer"
	"thaw/restore/tracer/trace"
)

// tracerCommand is what thaw runs itself with as the helper that records. It is nobody else's to run.
const tracerCommand = "tracer"

func newTrace(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Record which pages a process touches first",
		Long: `Records which pages of its memory a process touches first, and shows what was recorded.

It works on any process, restored or not.`,
		Example: `  thaw trace record --pid 4711 --duration 10s -o web.trace
  thaw trace show web.trace`,
	}
	cmd.AddCommand(newTraceRecord(a), newTraceShow(a))
	return cmd
}

// recordFlags are the flags of trace record.
type recordFlags struct {
	target   tracer.Target
	duration time.Duration
	output   string
	maxPages int
	buffer   string
}

func newTraceRecord(a *app) *cobra.Command {
	f := &recordFlags{}
	cmd := &cobra.Command{
		Use:   "record (--pid PID... | --cgroup FOLDER) -o FILE",
		Short: "Record the first touches of processes",
		Long: `Records the first touch of each page by processes and the children that they fork, and the first write if that was a read,
until --duration is over, the processes have ended, or it is interrupted (SIGINT, SIGTERM), and writes the trace.

A touch is seen where it faults: pages that are in place already are not noticed. What else cannot be seen depends on where
the kernel lets itself be traced; thaw doctor and the trace say it. If touches were lost, because they came too fast or were too
many, the trace says that it is not complete.

A helper process with CAP_BPF and CAP_PERFMON records; without root it needs read access to tracefs, too. The names of mapped
files are known only of processes that this user may look at.`,
		Example: `  thaw trace record --pid 4711 -o web.trace
  thaw trace record --pid 4711 --pid 4712 --duration 30s -o web.trace
  thaw trace record --cgroup /sys/fs/cgroup/web -d 1m -o web.trace --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.traceRecord(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.IntSliceVar(&f.target.PIDs, "pid", nil, "process to record, with the children that it will fork; may be repeated")
	flags.StringVar(&f.target.Cgroup, "cgroup", "", "record the processes in this cgroup (version 2) and below")
	flags.DurationVarP(&f.duration, "duration", "d", 0, "end after this time (default: when the processes end, or when interrupted)")
	flags.StringVarP(&f.output, "output", "o", "", "file to write; one that exists is replaced")
	flags.IntVar(&f.maxPages, "max-pages", 1<<20, "pages that can be told apart; those beyond are lost; 72 bytes of kernel memory each")
	flags.StringVar(&f.buffer, "buffer", "4MiB", "buffer between kernel and recorder")
	cmd.MarkFlagsOneRequired("pid", "cgroup")
	cmd.MarkFlagsMutuallyExclusive("pid", "cgroup")
	mustMark(cmd.MarkFlagRequired("output"))
	mustMark(cmd.MarkFlagFilename("output"))
	mustMark(cmd.MarkFlagDirname("cgroup"))
	return cmd
}

// options checks the numbers.
func (f *recordFlags) options() (*tracer.Options, error) {
	ring, err := cli.ParseBytes(f.buffer)
	if err != nil {
		return nil, err
	}
	switch {
	case ring == 0 || ring > 1<<30:
		return nil, cli.Usagef("--buffer is %s: from 4KiB to 1GiB can be had", f.buffer)
	case f.maxPages < 1 || f.maxPages > 1<<26:
		return nil, cli.Usagef("--max-pages is %d: from 1 to %d can be had", f.maxPages, 1<<26)
	case f.duration < 0:
		return nil, cli.Usagef("--duration is %v: it must not be negative", f.duration)
	}
	return &tracer.Options{RingBytes: int(ring), MaxPages: f.maxPages}, nil
}

func (a *app) traceRecord(ctx context.Context, f *recordFlags) error {
	opts, err := f.options()
	if err != nil {
		return err
	}
	// Not only after the recording.
	if err := isFolder(filepath.Dir(f.output)); err != nil {
		return fmt.Errorf("write %s: %w", f.output, err)
	}
	client, err := tracer.Start(ctx, f.target, opts)
	if err != nil {
		return err
	}
	defer client.Close()
	a.note("recording from %v; interrupt to end it", client.Info().Point)
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	t, recordErr := tracer.Collect(ctx, client, f.target.Cgroup, tracer.Mappings)
	data, err := t.Encode(nil)
	if err != nil {
		return errors.Join(recordErr, err)
	}
	if err := durable.Replace(durable.Disk, f.output, data); err != nil {
		return errors.Join(recordErr, fmt.Errorf("write %s: %w", f.output, err))
	}
	if recordErr != nil {
		return fmt.Errorf("%w; %s has what was recorded until then", recordErr, f.output)
	}
	if t.Lost() > 0 {
		a.note("warning: %s; see --buffer and --max-pages", lostText(t))
	}
	s := shownTrace(f.output, int64(len(data)), t)
	return a.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d pages of %d address spaces in %s\n", f.output, s.Pages, len(s.Spaces), cli.Seconds(t.Length))
	})
}

// note tells people what goes on.
func (a *app) note(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.stderr, "thaw: "+format+"\n", args...)
	}
}

func newTraceShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Show what a trace says",
		Long: `Shows what was recorded: from where in the kernel and what cannot be seen from there, how many pages were touched, when, by
whom, and in which mappings.

Pages are counted once for each address space. READ and WRITTEN say what the first touch was, LATER counts pages that were read
first and written later, KERNEL pages that the kernel touched first, inside of a system call.`,
		Example: `  thaw trace show web.trace
  thaw trace show web.trace --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%s takes one file, and got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.traceShow(args[0]) },
	}
}

func (a *app) traceShow(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	t, err := trace.Read(file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s := shownTrace(name, info.Size(), t)
	return a.print(s, func(w io.Writer) { s.write(w, t) })
}

// shown is what trace show prints, and trace record.
type shown struct {
	File      string    `json:"file"`
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
		File: name, Bytes: size, Point: t.Point.String(), Blind: t.Blind.Texts(), Started: t.Started, Seconds: t.Length.Seconds(),
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
func (s *shown) writeHead(w io.Writer, t *trace.Trace) {
	state := "complete"
	switch {
	case t.End == trace.EndBroken:
		state = "NOT complete: " + s.End
	case t.Lost() > 0:
		state = "NOT complete: " + lostText(t)
	}
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
	table(w, append(rows,
		[]string{"trace", fmt.Sprintf("%s; %d touches in %s", state, s.Touches, cli.Bytes(uint64(s.Bytes)))},
		[]string{"pages", fmt.Sprintf("%d, %s", s.Pages, cli.Bytes(s.Pages*trace.PageSize))},
	))
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
