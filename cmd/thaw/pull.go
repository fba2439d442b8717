package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/node"
	"thaw/pagestore"
)

// pullFlags are the flags of snapshot pull and warm.
type pullFlags struct {
	objectStore string
	whole, set  bool
	deadline    time.Duration
}

// mode says how much is brought.
func (p *pullFlags) mode() control.PullMode {
	switch {
	case p.whole:
		return control.PullWhole
	case p.set:
		return control.PullWorkingSet
	}
	return control.PullOnDemand
}

func newPull(a *app) *cobra.Command {
	p := &pullFlags{}
	cmd := &cobra.Command{
		Use:   "pull NAME",
		Short: "Bring a snapshot from another machine or an object store",
		Long: `Makes a snapshot that is elsewhere known on this machine, so that it can be restored at once: its memory comes when it is needed. With
--working-set the pages that a restore wants first come now, with --whole all memory, and no other place is needed any more. Of a snapshot that is
here already it brings what is missing.

thawd does it, from the places that it knows: peers and an object store (thawd serve --object-store, --peer-listen). With --object-store
the command does it by itself, from there and nowhere else. thaw restore of a name that is elsewhere pulls it, too.`,
		Example: `  thaw snapshot pull web
  thaw snapshot pull prod/web --whole
  thaw snapshot pull web --working-set --object-store s3://snapshots`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error { return a.pull(cmd.Context(), args[0], p) },
	}
	f := cmd.Flags()
	f.BoolVar(&p.whole, "whole", false, "bring all memory")
	f.BoolVar(&p.set, "working-set", false, "bring the pages that a restore wants first")
	cmd.MarkFlagsMutuallyExclusive("whole", "working-set")
	p.add(cmd)
	return cmd
}

func newWarm(a *app) *cobra.Command {
	p := &pullFlags{set: true}
	cmd := &cobra.Command{
		Use:   "warm NAME",
		Short: "Bring what a restore of a snapshot wants first, ahead of time",
		Long: `Brings the working set of a snapshot to this machine, and the snapshot itself if it is elsewhere, so that its next restore waits for nothing: the
same as thaw snapshot pull --working-set. Where nobody knows what a restore needs first (docs/working-sets.md) nothing but the snapshot
itself is brought.`,
		Example: `  thaw snapshot warm web
  thaw snapshot warm prod/web --object-store s3://snapshots`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error { return a.pull(cmd.Context(), args[0], p) },
	}
	p.add(cmd)
	return cmd
}

// add adds the flags that both have. $THAW_OBJECT_STORE is for thawd and for commands that cannot do without it.
func (p *pullFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.objectStore, "object-store", "", "bring it from this object store, without thawd")
	f.DurationVar(&p.deadline, "page-deadline", 30*time.Second, "with --object-store: how long nothing may arrive before the command gives up")
}

func (a *app) pull(ctx context.Context, arg string, p *pullFlags) error {
	name, err := pagestore.ParseName(arg)
	if err != nil {
		return err
	}
	if p.deadline <= 0 {
		return cli.Usagef("--page-deadline is %v: it must be more than 0", p.deadline)
	}
	report, err := a.pullEither(ctx, name, p)
	if err != nil {
		return err
	}
	return a.print(report, func(w io.Writer) { writePull(w, report, p.mode()) })
}

func (a *app) pullEither(ctx context.Context, name pagestore.Name, p *pullFlags) (report *control.PullReport, err error) {
	watch := &arrival{app: a, name: name, mode: p.mode()}
	if p.objectStore != "" {
		return a.pullAlone(ctx, p, watch)
	}
	c := a.client()
	defer c.Close()
	err = watch.during(func() error {
		report, err = c.Pull(ctx, name.String(), p.mode())
		return err
	})
	return report, advisePull(err)
}

// pullAlone brings a snapshot from an object store without thawd.
func (a *app) pullAlone(ctx context.Context, p *pullFlags, watch *arrival) (report *control.PullReport, err error) {
	if err := cli.MakeStore(a.store); err != nil {
		return nil, err
	}
	n, err := node.Open(ctx, node.Config{
		Store: a.store, StoreOptions: cli.StoreOptions(a.log()), ObjectStore: p.objectStore, PageDeadline: p.deadline, Logger: a.log(),
	})
	if err != nil {
		return nil, err
	}
	defer n.Close()
	watch.store = n.Store()
	err = watch.during(func() error {
		report, err = n.Pull(ctx, watch.name, watch.mode)
		return err
	})
	return report, atBucket(err)
}

// advisePull says what else may be done when thawd cannot do it.
func advisePull(err error) error {
	if errors.Is(err, control.CodeUnavailable) {
		_, hint := cli.Explain(err)
		return &cli.Error{Code: cli.Missing, Err: err, Hint: hint + "; or have this command do it, from an object store: --object-store"}
	}
	return err
}

func writePull(w io.Writer, r *control.PullReport, mode control.PullMode) {
	const page = pagestore.PageSize
	how := "was here"
	if !r.Here {
		how = "came from " + r.Source
	}
	took := time.Duration(r.Took * float64(time.Second))
	fmt.Fprintf(w, "%s: %s; %s of %s of its memory (%s) is on this machine after %s\n", r.Snapshot, how, cli.Bytes(r.LocalPages*page),
		cli.Bytes(r.StoredPages*page), percent(r.LocalPages, r.StoredPages), cli.Seconds(took))
	if r.LocalPages < r.StoredPages && mode != control.PullWhole {
		fmt.Fprintln(w, "  the rest comes when it is needed: thaw restore, or thaw snapshot pull --whole")
	}
}
