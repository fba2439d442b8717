package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/tier"
)

// pushFlags are the flags of snapshot push.
type pushFlags struct {
	objectStore    string
	force, refresh bool
	parallel       int
	tempDir        string
}

func newPush(a *app) *cobra.Command {
	p := &pushFlags{}
	cmd := &cobra.Command{
		Use:   "push NAME...",
		Short: "Bring snapshots to an object store",
		Long: `Brings snapshots to an object store, from where any machine can restore them. What is there already is skipped, also what
an earlier push has left that was broken off; nobody sees anything of a snapshot before all of it is there. Any number of machines
may push at the same time, also the same snapshot.

A name that stands for another snapshot there stays: --force replaces it. One that stands for the same snapshot stays, too, with the working
set that it has there: --refresh replaces it by what this machine has learned.`,
		Example: `  thaw snapshot push web --object-store s3://snapshots
  thaw snapshot push prod/web prod/worker --object-store 's3://snapshots/fleet-1?endpoint=http://10.0.0.9:7070'
  thaw snapshot push web --refresh`,
		Args: someNames,
		RunE: func(cmd *cobra.Command, args []string) error { return a.push(cmd.Context(), args, p) },
	}
	f := cmd.Flags()
	objectStoreFlag(cmd, &p.objectStore)
	f.BoolVar(&p.force, "force", false, "replace a name that stands for another snapshot")
	f.BoolVar(&p.refresh, "refresh", false, "replace a name that stands for the same snapshot with another working set")
	f.IntVar(&p.parallel, "parallel", 4, "packs that are compressed and sent at a time")
	f.StringVar(&p.tempDir, "temp-dir", "", "folder for packs while they are compressed, 256 MiB each (default: that of TMPDIR)")
	mustMark(cmd.MarkFlagDirname("temp-dir"))
	return cmd
}

// pushed is what snapshot push prints.
type pushed struct {
	ObjectStore string            `json:"object_store"`
	Pushed      []tier.PushReport `json:"pushed"`
}

func (a *app) push(ctx context.Context, args []string, f *pushFlags) error {
	all, err := parseNames(args)
	if err != nil {
		return err
	}
	if f.parallel < 1 {
		return cli.Usagef("--parallel is %d: one at least is needed", f.parallel)
	}
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	b, done, err := openBucket(ctx, f.objectStore)
	if err != nil {
		return err
	}
	defer done()
	out := pushed{ObjectStore: b.String(), Pushed: []tier.PushReport{}}
	var errs []error
	for _, name := range all {
		r, err := a.pushOne(ctx, store, name, b, f)
		if err != nil {
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		out.Pushed = append(out.Pushed, r)
	}
	return errors.Join(a.print(out, out.write), errors.Join(errs...))
}

func (a *app) pushOne(ctx context.Context, store *pagestore.Store, name pagestore.Name, b blob.Bucket, f *pushFlags) (tier.PushReport, error) {
	p := cli.NewProgress(a.stderr, "pushing "+name.String(), a.quiet || a.json)
	defer p.Done()
	stage := tier.StagePush
	r, err := tier.Push(ctx, store, name, b, &tier.PushOptions{
		Force: f.force, Refresh: f.refresh, Parallel: f.parallel, TempDir: f.tempDir,
		Progress: func(at tier.PushProgress) {
			if at.Stage == tier.StageWait && stage != at.Stage {
				a.note("%s: waiting for a collection that runs at the object store, some minutes at most", name)
			}
			stage = at.Stage
			p.Set(uint64(at.DoneBytes), uint64(at.TotalBytes))
		},
	})
	return r, advisePush(err)
}

// advisePush says what to do about errors that mean something else here than in the store.
func advisePush(err error) error {
	switch {
	case errors.Is(err, pagestore.ErrExists):
		return &cli.Error{Code: cli.Busy, Err: err, Hint: "--force replaces it; or push under another name"}
	case errors.Is(err, pagestore.ErrNotFound):
		return err // of this machine's store
	case errors.Is(err, pagestore.ErrNotLocal):
		return &cli.Error{Code: cli.Missing, Err: err, Hint: "pages of it are elsewhere: bring them first, thaw snapshot pull --whole"}
	}
	return atBucket(err)
}

func (p *pushed) write(w io.Writer) {
	for i := range p.Pushed {
		r := &p.Pushed[i]
		fmt.Fprintf(w, "%s: %s in %s: %s of %s sent; %d of %d objects were there\n", r.Name, pushedHow(r), cli.Seconds(r.Duration), cli.Bytes(uint64(r.SentBytes)),
			cli.Bytes(uint64(r.Bytes)), r.Skipped, r.Sent+r.Skipped)
	}
}

// pushedHow says what the name stands for now.
func pushedHow(r *tier.PushReport) string {
	switch {
	case r.Named:
		return "pushed"
	case r.Sent == 0:
		return "all of it was there already, looked through"
	}
	return "it is there already, and its name stays as it is (--refresh replaces the working set), looked through"
}
