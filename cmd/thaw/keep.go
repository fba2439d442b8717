package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/pagestore"
)

// verified is what snapshot verify prints.
type verified struct {
	OK           bool      `json:"ok"`
	Snapshots    int       `json:"snapshots"`
	Packs        int       `json:"packs"`
	Pages        uint64    `json:"pages"`
	BadPages     uint64    `json:"bad_pages"` // all of them, also those that Findings does not list
	Findings     []finding `json:"findings"`
	BadSnapshots []string  `json:"bad_snapshots"` // snapshots that are hit by any finding, sorted
}

// finding is one thing that is wrong in the store.
type finding struct {
	What      string   `json:"what"` // snapshot, pack, page or working set
	Message   string   `json:"message"`
	Pack      string   `json:"pack,omitempty"`
	Page      *uint32  `json:"page,omitempty"` // number in the pack
	Snapshots []string `json:"snapshots"`      // that use it
}

func newVerify(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read the whole store and compare it with its hashes",
		Long: `Reads all packs, manifests, skeletons and working sets of the store and compares them with their SHA-256. It says what is
damaged, where, and which snapshots are hit. Nothing is changed; snapshots can be made, thawed and removed meanwhile.

The exit code is 4 if anything is damaged.`,
		Example: `  thaw snapshot verify
  thaw snapshot verify --json --store /srv/thaw`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.verify(cmd) },
	}
}

func (a *app) verify(cmd *cobra.Command) error {
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	tell, done := a.progress("verifying")
	report, err := store.Verify(cmd.Context(), tell)
	done()
	if err != nil {
		return err
	}
	out := findings(&report)
	if err := a.print(out, out.write); err != nil {
		return err
	}
	if !out.OK && len(report.BadWorkingSets) == len(out.Findings) {
		return &cli.Error{
			Code: cli.Corrupt,
			Err:  fmt.Errorf("store %s has damaged working sets, and no other damage: %d", store.Dir(), len(report.BadWorkingSets)),
			Hint: "nothing is lost: restores go without; the file that is named may be deleted",
		}
	}
	if !out.OK {
		return &cli.Error{
			Code: cli.Corrupt,
			Err:  fmt.Errorf("store %s is damaged: snapshots hit: %d", store.Dir(), len(out.BadSnapshots)),
			Hint: "freeze the processes of these snapshots anew, then remove the snapshots: thaw snapshot rm",
		}
	}
	return nil
}

// findings puts a report into words.
func findings(r *pagestore.VerifyReport) *verified {
	v := &verified{
		OK: r.OK(), Snapshots: r.Snapshots, Packs: r.Packs, Pages: r.Pages, BadPages: r.BadPageCount,
		Findings: []finding{}, BadSnapshots: []string{},
	}
	add := func(f finding, users []pagestore.Name) {
		f.Snapshots = names(users)
		v.Findings = append(v.Findings, f)
		v.BadSnapshots = union(v.BadSnapshots, f.Snapshots)
	}
	for _, b := range r.BadSnapshots {
		add(finding{What: "snapshot", Message: fmt.Sprintf("snapshot %s: %v", b.Name, b.Err)}, []pagestore.Name{b.Name})
	}
	for _, b := range r.BadPacks {
		add(finding{What: "pack", Message: fmt.Sprintf("pack %s of namespace %s: %v", b.Pack, b.Namespace, b.Err), Pack: b.Pack.String()}, b.Snapshots)
	}
	for _, b := range r.BadPages {
		page := b.Page
		add(finding{What: "page", Message: b.Error(), Pack: b.Pack.String(), Page: &page}, b.Snapshots)
	}
	// These hit no snapshot.
	for _, b := range r.BadWorkingSets {
		add(finding{What: "working set", Message: fmt.Sprintf("working set of snapshot %s, which is whole without: %v", b.Name, b.Err)}, nil)
	}
	return v
}

func (v *verified) write(w io.Writer) {
	for _, f := range v.Findings {
		fmt.Fprintln(w, f.Message)
		for _, s := range f.Snapshots {
			fmt.Fprintf(w, "  used by %s\n", s)
		}
	}
	if more := v.BadPages - countPages(v.Findings); more > 0 {
		fmt.Fprintf(w, "and %d pages more\n", more)
	}
	state := "all is well"
	if !v.OK {
		state = "damaged"
	}
	fmt.Fprintf(w, "%s: %d snapshots, %d packs, %s\n", state, v.Snapshots, v.Packs, cli.Bytes(v.Pages*pagestore.PageSize))
}

func countPages(all []finding) (n uint64) {
	for _, f := range all {
		if f.What == "page" {
			n++
		}
	}
	return n
}

func newRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove snapshots",
		Long: `Removes snapshots from the store. Restores that run keep what they need until they end; the pages that no snapshot needs
any more are freed by thaw snapshot gc.`,
		Example: `  thaw snapshot rm web
  thaw snapshot rm prod/web-1 prod/web-2 && thaw snapshot gc`,
		Args: someNames,
		RunE: a.remove,
	}
}

func (a *app) remove(cmd *cobra.Command, args []string) error {
	all, err := parseNames(args)
	if err != nil {
		return err
	}
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	removed := []string{}
	var errs []error
	for _, name := range all {
		if err := store.Remove(cmd.Context(), name); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, name.String())
	}
	return errors.Join(a.print(map[string]any{"removed": removed}, func(w io.Writer) {
		for _, name := range removed {
			fmt.Fprintf(w, "%s: removed\n", name)
		}
	}), errors.Join(errs...))
}

func newGC(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Free the pages that no snapshot needs",
		Long: `Deletes the packs that no snapshot uses, and the folders of removed snapshots that no restore uses any more. Packs are freed
whole: pages that nobody needs stay as long as another page of their pack is needed.`,
		Example: `  thaw snapshot gc
  thaw snapshot gc --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.collect(cmd) },
	}
}

func (a *app) collect(cmd *cobra.Command) error {
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	report, err := store.GC(cmd.Context())
	if err != nil {
		return err
	}
	return a.print(report, func(w io.Writer) {
		fmt.Fprintf(w, "freed %s: %d packs, %d removed snapshots\n", cli.Bytes(uint64(report.BytesFreed)), report.PacksDeleted, report.SnapshotsDeleted)
		fmt.Fprintf(w, "left %s in %d packs, of which %s is used by nobody\n", cli.Bytes(uint64(report.PackBytes)), report.Packs,
			cli.Bytes(uint64(report.DeadBytes)))
		if report.SnapshotsLeased > 0 {
			fmt.Fprintf(w, "%d removed snapshots are still in use\n", report.SnapshotsLeased)
		}
	})
}
