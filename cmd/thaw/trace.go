package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/internal/durable"
	"thaw/restore/tracer"
)

// tracerCommand is what thaw runs itself with as the helper that records. It is nobody else's to run.
const tracerCommand = "tracer"

func newTrace(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Record which pages a process touches first",
		Long: `Records which pages of its memory a process touches first, and shows what was recorded.

It works on any process, restored or not. What several restores of a snapshot touched is its working set; those of several hosts
can be merged.`,
		Example: `  thaw trace record --pid 4711 --duration 10s -o web.trace
  thaw trace show web.trace
  thaw trace merge -o web.ws tuesday.ws monday.ws`,
	}
	cmd.AddCommand(newTraceRecord(a), newTraceShow(a), newTraceMerge(a), newTraceDrop(a))
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
