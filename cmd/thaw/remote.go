package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/tier"
)

func newRemote(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remote",
		Short: "List and remove snapshots in an object store",
		Long: `Looks after the snapshots that lie in an object store: lists them, takes names away, and frees what no name leads to. What is
pushed and how it is laid out says docs/format/remote.md; how to run such a thing, docs/tiers.md.`,
		Example: `  thaw remote ls --object-store s3://snapshots
  thaw remote rm web
  thaw remote gc --dry-run`,
	}
	cmd.AddCommand(newRemoteList(a), newRemoteRemove(a), newRemoteGC(a))
	return cmd
}

// remoteListed is a line of remote ls.
type remoteListed struct {
	Name       string            `json:"name"`
	Pushed     time.Time         `json:"pushed"` // when the name was written last
	Created    *time.Time        `json:"created,omitempty"`
	Descriptor *pagestore.Digest `json:"descriptor,omitempty"`
	Manifest   *pagestore.Digest `json:"digest,omitempty"` // what thaw snapshot inspect calls the digest
	Packs      int               `json:"packs"`
	Bytes      uint64            `json:"bytes"`             // memory in these packs, before it is compressed
	SetBytes   uint64            `json:"working_set_bytes"` // pages that a restore wants first; 0 if that is not known
	MetaBytes  int64             `json:"meta_bytes"`        // what a restore needs besides memory, as it travels
	Error      string            `json:"error,omitempty"`   // why the name leads to nothing
}

func newRemoteList(a *app) *cobra.Command {
	var objectStore string
	cmd := &cobra.Command{
		Use:     "ls [NAMESPACE]",
		Aliases: []string{"list"},
		Short:   "List the snapshots in an object store",
		Long: `Lists the snapshots in an object store, those of one namespace or all. SIZE is the memory in the packs that the snapshot needs, before
compression; snapshots share packs. WORKING SET is what a restore brings first.`,
		Example: `  thaw remote ls --object-store s3://snapshots
  thaw remote ls prod --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withBucket(cmd.Context(), objectStore, func(b blob.Bucket) error { return a.remoteList(cmd.Context(), b, optional(args)) })
		},
	}
	objectStoreFlag(cmd, &objectStore)
	return cmd
}

// optional returns the argument, if there is one.
func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func (a *app) remoteList(ctx context.Context, b blob.Bucket, namespace string) error {
	all, err := tier.List(ctx, b, namespace)
	if err != nil {
		return err
	}
	out := make([]remoteListed, 0, len(all))
	for i := range all {
		out = append(out, remoteLine(&all[i]))
	}
	return a.print(map[string]any{"object_store": b.String(), "snapshots": out}, func(w io.Writer) {
		rows := [][]string{{"NAME", "CREATED", "PUSHED", "SIZE", "PACKS", "WORKING SET"}}
		for i := range out {
			rows = append(rows, out[i].row())
		}
		table(w, rows)
	})
}

func remoteLine(l *tier.Listed) remoteListed {
	out := remoteListed{Name: l.Name.String(), Pushed: time.Unix(0, l.Modified)}
	if l.Err != nil {
		out.Error = l.Err.Error()
		return out
	}
	d := l.Descriptor
	out.Created, out.Descriptor, out.Manifest, out.Packs, out.MetaBytes = &d.Created, &l.Digest, &d.Manifest.Digest, len(d.Packs), d.Meta.Bytes
	for _, p := range d.Packs {
		out.Bytes += uint64(p.Pages) * pagestore.PageSize
	}
	if s := d.WorkingSet; s != nil {
		out.SetBytes = uint64(s.Pages) * pagestore.PageSize
	}
	return out
}

func (l *remoteListed) row() []string {
	if l.Error != "" {
		return []string{l.Name, "cannot be used: " + l.Error}
	}
	set := "not known"
	if l.SetBytes > 0 {
		set = cli.Bytes(l.SetBytes)
	}
	return []string{l.Name, when(*l.Created), when(l.Pushed), cli.Bytes(l.Bytes), fmt.Sprint(l.Packs), set}
}

func newRemoteRemove(a *app) *cobra.Command {
	var objectStore string
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove"},
		Short:   "Take snapshots' names out of an object store",
		Long: `Takes the names of snapshots away, so that nobody finds them any more. Restores that have begun go on: what a name led to stays
for the grace time of thaw remote gc, a day unless it is told otherwise, which then frees what no other snapshot needs.

Snapshots in the store of this machine, and of others, stay: thaw snapshot rm removes those.`,
		Example: `  thaw remote rm web --object-store s3://snapshots
  thaw remote rm prod/web-1 prod/web-2 && thaw remote gc`,
		Args: someNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := parseNames(args)
			if err != nil {
				return err
			}
			return withBucket(cmd.Context(), objectStore, func(b blob.Bucket) error { return a.remoteRemove(cmd.Context(), b, all) })
		},
	}
	objectStoreFlag(cmd, &objectStore)
	return cmd
}

func (a *app) remoteRemove(ctx context.Context, b blob.Bucket, all []pagestore.Name) error {
	removed := []string{}
	var errs []error
	for _, name := range all {
		if err := tier.Remove(ctx, b, name); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, name.String())
	}
	return errors.Join(a.print(map[string]any{"object_store": b.String(), "removed": removed}, func(w io.Writer) {
		for _, name := range removed {
			fmt.Fprintf(w, "%s: removed; restores that have begun can end, and thaw remote gc frees what is left after its grace time\n", name)
		}
	}), errors.Join(errs...))
}

// remoteGCFlags are the flags of remote gc.
type remoteGCFlags struct {
	objectStore string
	grace       time.Duration
	dryRun      bool
}

func newRemoteGC(a *app) *cobra.Command {
	g := &remoteGCFlags{}
	cmd := &cobra.Command{
		Use:   "gc [NAMESPACE]",
		Short: "Free what no name in an object store leads to",
		Long: `Deletes objects that no snapshot's name leads to and that are older than the grace time: of snapshots that were removed, and of pushes
that were broken off. Pushes, removals, restores and other collections may run meanwhile, on any machine.

What a push or a removal has touched within the grace time stays. All who collect at an object store should use the same one: a restore that lasts
longer than that, of a snapshot that was removed, fails.`,
		Example: `  thaw remote gc --object-store s3://snapshots
  thaw remote gc prod --dry-run
  thaw remote gc --grace 1h`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if g.grace <= 0 {
				return cli.Usagef("--grace is %v: restores that have begun need some time", g.grace)
			}
			return withBucket(cmd.Context(), g.objectStore, func(b blob.Bucket) error { return a.remoteGC(cmd.Context(), b, optional(args), g) })
		},
	}
	f := cmd.Flags()
	objectStoreFlag(cmd, &g.objectStore)
	f.DurationVar(&g.grace, "grace", tier.DefaultGrace, "how long what no name leads to is kept")
	f.BoolVar(&g.dryRun, "dry-run", false, "delete nothing, and say what would be deleted")
	return cmd
}

// remoteCollected is what remote gc did in a namespace.
type remoteCollected struct {
	Namespace string `json:"namespace"`
	tier.CollectReport
}

func (a *app) remoteGC(ctx context.Context, b blob.Bucket, namespace string, g *remoteGCFlags) error {
	all := []string{namespace}
	if namespace == "" {
		var err error
		if all, err = tier.Namespaces(ctx, b); err != nil {
			return err
		}
	} else if err := (pagestore.Name{Namespace: namespace, Snapshot: "any"}).Validate(); err != nil {
		return err
	}
	out := []remoteCollected{}
	var errs []error
	for _, name := range all {
		r, err := tier.Collect(ctx, b, name, &tier.CollectOptions{Grace: g.grace, DryRun: g.dryRun})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, remoteCollected{name, r})
	}
	result := map[string]any{"object_store": b.String(), "dry_run": g.dryRun, "namespaces": out}
	return errors.Join(a.print(result, func(w io.Writer) {
		for i := range out {
			out[i].write(w, g.dryRun)
		}
		if len(all) == 0 {
			fmt.Fprintf(w, "there is nothing in %s\n", b)
		}
	}), errors.Join(errs...))
}

func (c *remoteCollected) write(w io.Writer, dryRun bool) {
	verb := "freed"
	if dryRun {
		verb = "would free"
	}
	fmt.Fprintf(w, "%s: %s %s: %d objects\n", c.Namespace, verb, cli.Bytes(uint64(c.DeletedBytes)), c.Deleted)
	fmt.Fprintf(w, "  left %s in %d objects of %d snapshots\n", cli.Bytes(uint64(c.KeptBytes)), c.Kept, c.Names)
	if c.Young > 0 {
		fmt.Fprintf(w, "  %s in %d objects is used by nobody, and not old enough\n", cli.Bytes(uint64(c.YoungBytes)), c.Young)
	}
	if c.Leases > 0 {
		fmt.Fprintf(w, "  %d pushes run, or snapshots were removed not long ago: what they need stays\n", c.Leases)
	}
	if c.Unknown > 0 {
		fmt.Fprintf(w, "  %d objects have names that this version does not know, and were left alone\n", c.Unknown)
	}
}
