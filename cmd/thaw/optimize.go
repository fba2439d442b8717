package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/pagestore"
	"thaw/snapshot"
)

// optimizeFlags are the flags of snapshot optimize.
type optimizeFlags struct {
	runs     int
	requests []string
	bundle   string
	packOnly bool
}

func newOptimize(a *app) *cobra.Command {
	o := &optimizeFlags{}
	cmd := &cobra.Command{
		Use:   "optimize NAME --request COMMAND... [--bundle DIR]",
		Short: "Learn which pages a restored process needs first",
		Long: `Restores the snapshot some times, makes a request of what is restored, records which pages are touched until it is answered, and
ends what was restored. What the runs have in common is the snapshot's working set: later restores bring it before the process
runs. At last the pages that lie scattered are written again in the order in which they are needed, so that a restore from a
cold disk reads them in one go.

A request is a command of a shell that ends when it has been answered, such as a call of curl. It finds the number of the
process in THAW_PID, and the container's id in THAW_CONTAINER. What it writes to its standard output a container reads from its standard
input, and what the container writes it can read from its own. With several requests each run makes the next one; they
should be as different as real ones are.

thawd records with eBPF: it needs CAP_BPF and CAP_PERFMON, or root.`,
		Example: `  thaw snapshot optimize web --request 'curl -sf http://127.0.0.1:8080/'
  thaw snapshot optimize web --runs 6 --request 'curl -sf "$URL/a"' --request 'curl -sf "$URL/b"'
  thaw snapshot optimize prod/embedder --bundle /run/bundles/embedder --request 'cat request.json; head -n 1 >&2'
  thaw snapshot optimize web --pack-only`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error { return a.optimize(cmd, args[0], o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.runs, "runs", 3, "how often the snapshot is restored and recorded")
	f.StringArrayVar(&o.requests, "request", nil, "command that makes a request and ends when it has been answered; may be repeated")
	f.StringVar(&o.bundle, "bundle", "", "restore containers from this bundle, with runc")
	f.BoolVar(&o.packOnly, "pack-only", false, "restore nothing: pack what has been learned before")
	a.toolFlags(cmd)
	cmd.MarkFlagsOneRequired("request", "pack-only")
	cmd.MarkFlagsMutuallyExclusive("request", "pack-only")
	mustMark(cmd.MarkFlagDirname("bundle"))
	return cmd
}

// optimized is what snapshot optimize prints.
type optimized struct {
	Snapshot    string                     `json:"snapshot"`
	Recordings  int                        `json:"recordings"`   // that the working set has learned from, earlier ones too
	PagesMust   uint64                     `json:"pages_must"`   // pages that processes are held for
	PagesLikely uint64                     `json:"pages_likely"` // pages that follow
	PagesPacked uint64                     `json:"pages_packed"` // of these, the ones that were written again
	PagesFar    uint64                     `json:"pages_far"`    // of these, the ones that come first, as one object, where the snapshot is restored from elsewhere
	Seconds     float64                    `json:"seconds"`
	Runs        []*control.RecordingReport `json:"runs"`
}

func (a *app) optimize(cmd *cobra.Command, name string, f *optimizeFlags) error {
	parsed, err := pagestore.ParseName(name)
	if err != nil {
		return err
	}
	bundle, err := absolute(f.bundle)
	if err != nil {
		return err
	}
	if bundle != "" {
		if err := isFolder(bundle); err != nil {
			return err
		}
	}
	out := optimized{Snapshot: parsed.String(), Runs: []*control.RecordingReport{}}
	o := snapshot.OptimizeOptions{Name: parsed, Runs: f.runs, Requests: f.requests, Bundle: bundle, Stderr: os.Stderr}
	switch {
	case f.packOnly:
		o.Runs = 0
	case f.runs < 1:
		return cli.Usagef("--runs is %d: one at least is needed; see --pack-only", f.runs)
	}
	o.Done = func(run int, r *control.RecordingReport) {
		out.Runs = append(out.Runs, r)
		a.note("run %d of %d: %d pages of the snapshot and %d of files were touched in %.3f s", run+1, f.runs, r.PagesTouched, r.PagesOfFiles, r.Seconds)
		if !r.Complete {
			a.note("warning: touches were lost in run %d, so it counts for what was seen only", run+1)
		}
	}
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	// What is restored ends as our child, so that its number is free for the next one.
	if err := adoptOrphans(); err != nil {
		return err
	}
	c := a.client()
	defer c.Close()
	r, err := snapshot.Optimize(cmd.Context(), store, c, a.tools(), o)
	if err != nil {
		return err
	}
	out.Recordings, out.PagesMust, out.PagesLikely, out.PagesPacked, out.PagesFar = r.Recordings, r.PagesMust, r.PagesLikely, r.PagesPacked, r.PagesFar
	out.Seconds = r.Duration.Seconds()
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s: working set of %d recordings: %s must be there before a process runs, %s follow; %s packed; %s\n", out.Snapshot, out.Recordings,
			cli.Bytes(out.PagesMust*pagestore.PageSize), cli.Bytes(out.PagesLikely*pagestore.PageSize), cli.Bytes(out.PagesPacked*pagestore.PageSize), cli.Seconds(r.Duration))
	})
}
