package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/pagestore"
)

// listed is a line of snapshot ls.
type listed struct {
	Name          string     `json:"name"`
	Created       *time.Time `json:"created,omitempty"`
	Processes     int        `json:"processes"`
	Bytes         uint64     `json:"bytes"`          // memory in the image
	NewBytes      uint64     `json:"new_bytes"`      // of these, what this snapshot brought into the store
	SkeletonBytes int64      `json:"skeleton_bytes"` // images without the memory
	HintBytes     int64      `json:"hint_bytes"`     // of its working set
	HotBytes      int64      `json:"hot_bytes"`      // of the second copies of pages of its working set
	Parent        string     `json:"parent,omitempty"`
	Stub          bool       `json:"stub,omitempty"`         // it came from elsewhere, and so do those of its pages that are not here
	StoredBytes   *uint64    `json:"stored_bytes,omitempty"` // of a stub: memory that is not zero
	LocalBytes    *uint64    `json:"local_bytes,omitempty"`  // of a stub: what of that is here
	BeingRemoved  bool       `json:"being_removed,omitempty"`
	Error         string     `json:"error,omitempty"` // why the snapshot cannot be read
}

func newList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List snapshots",
		Long: `Lists the snapshots in the store. SIZE is the memory of the frozen processes, NEW what the snapshot brought into the store
that was not there before. HERE says how much of a snapshot's memory is on this machine, if it came from elsewhere.`,
		Example: `  thaw snapshot ls
  thaw snapshot ls --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.list() },
	}
}

func (a *app) list() error {
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	entries, err := store.List()
	if err != nil {
		return err
	}
	out := make([]listed, 0, len(entries))
	for _, e := range entries {
		l := listLine(e)
		if e.Stub && e.Err == nil && !e.BeingRemoved {
			l.look(store, e.Name)
		}
		out = append(out, l)
	}
	return a.print(map[string]any{"snapshots": out}, func(w io.Writer) {
		rows := [][]string{{"NAME", "CREATED", "PROCESSES", "SIZE", "NEW", "SKELETON", "HERE", "PARENT"}}
		for _, l := range out {
			rows = append(rows, l.row())
		}
		table(w, rows)
	})
}

func listLine(e pagestore.Entry) listed {
	l := listed{Name: e.Name.String(), Stub: e.Stub, BeingRemoved: e.BeingRemoved, HintBytes: e.HintBytes, HotBytes: e.HotBytes}
	if e.Err != nil {
		l.Error = e.Err.Error()
	}
	if i := e.Info; i != nil {
		l.Created, l.Processes, l.SkeletonBytes = &i.Created, i.Spaces, i.SkeletonBytes()
		l.Bytes, l.NewBytes = i.Pages*pagestore.PageSize, i.NewPages*pagestore.PageSize
		if i.Parent != (pagestore.Name{}) {
			l.Parent = i.Parent.String()
		}
	}
	return l
}

// look finds out how much of a stub is here.
func (l *listed) look(store *pagestore.Store, name pagestore.Name) {
	here, err := localOf(store, name)
	if errors.Is(err, pagestore.ErrNotFound) {
		l.BeingRemoved = true // since it was listed
		return
	} else if err != nil {
		l.Error = err.Error()
		return
	}
	stored, local := here.StoredPages*pagestore.PageSize, here.LocalPages*pagestore.PageSize
	l.StoredBytes, l.LocalBytes = &stored, &local
}

// here says how much of the snapshot's memory is on this machine.
func (l *listed) here() string {
	if l.StoredBytes == nil {
		return "all"
	}
	return percent(*l.LocalBytes, *l.StoredBytes)
}

func (l *listed) row() []string {
	switch {
	case l.Error != "":
		return []string{l.Name, "cannot be read: " + l.Error}
	case l.BeingRemoved:
		return []string{l.Name, "being removed"}
	}
	return []string{l.Name, when(*l.Created), fmt.Sprint(l.Processes), cli.Bytes(l.Bytes), cli.Bytes(l.NewBytes),
		cli.Bytes(uint64(l.SkeletonBytes)), l.here(), l.Parent}
}

// inspected is what snapshot inspect prints.
type inspected struct {
	*pagestore.Info
	SkeletonDir   string             `json:"skeleton_dir"`
	SkeletonBytes int64              `json:"skeleton_bytes"`
	HintBytes     int64              `json:"hint_bytes"` // of its working set
	HotBytes      int64              `json:"hot_bytes"`  // of the second copies of pages of its working set
	Sharing       pagestore.Sharing  `json:"sharing"`
	Local         pagestore.Local    `json:"local"`            // how much is on this machine
	Remote        *remotePart        `json:"remote,omitempty"` // where the rest would come from, if the snapshot came from elsewhere
	Processes     []inspectedProcess `json:"processes"`
}

type inspectedProcess struct {
	PID     uint32 `json:"pid"` // when it was frozen
	Zombie  bool   `json:"zombie,omitempty"`
	Regions int    `json:"regions"` // mappings that are restored lazily
	Runs    int    `json:"runs"`    // runs of pages with content in them
}

func newInspect(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME",
		Short: "Show what is known of a snapshot",
		Long: `Shows what a snapshot holds: its processes, how much memory they have, how much of it other snapshots have too and how
much would be freed with it, and on what kind of host it was frozen.

Of a snapshot that came from elsewhere it shows how much of its memory is here, pack by pack, and from which places the rest would come, as thawd
knows them.`,
		Example: `  thaw snapshot inspect web
  thaw snapshot inspect prod/web --json`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error { return a.inspect(cmd.Context(), args[0]) },
	}
}

func (a *app) inspect(ctx context.Context, arg string) (err error) {
	name, err := pagestore.ParseName(arg)
	if err != nil {
		return err
	}
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	snap, err := store.Snapshot(name)
	if err != nil {
		return err
	}
	defer snap.Close()
	out := inspected{Info: snap.Info(), SkeletonDir: snap.SkeletonDir(), SkeletonBytes: snap.Info().SkeletonBytes()}
	out.HintBytes, out.HotBytes = snap.WorkingSetBytes()
	if out.Sharing, err = snap.Sharing(); err != nil {
		return err
	}
	if out.Local, err = snap.Local(); err != nil {
		return err
	}
	if remote := snap.Remote(); remote != nil {
		out.Remote = a.remotePart(ctx, remote)
	}
	for _, s := range snap.Spaces() {
		out.Processes = append(out.Processes, inspectedProcess{s.ID(), s.Zombie(), s.NumRegions(), s.NumRuns()})
	}
	return a.print(out, out.write)
}

func (i *inspected) write(w io.Writer) {
	const page = pagestore.PageSize
	rows := [][]string{
		{"name", i.Name.String()},
		{"created", when(i.Created)},
		{"digest", i.Digest.String()},
	}
	if i.Parent != (pagestore.Name{}) {
		rows = append(rows, []string{"parent", i.Parent.String()})
	}
	s := &i.Sharing
	rows = append(rows,
		[]string{"memory", cli.Bytes(s.Pages * page)},
		[]string{"  zero", cli.Bytes(s.ZeroPages * page)},
		[]string{"  stored", cli.Bytes(s.StoredPages * page)},
		[]string{"    shared with others", cli.Bytes(s.SharedPages * page)},
		[]string{"    shared with parent", cli.Bytes(s.ParentPages * page)},
		[]string{"    its own", cli.Bytes(s.UniquePages * page)},
		[]string{"new when it was made", cli.Bytes(i.NewPages * page)},
		[]string{"skeleton", fmt.Sprintf("%s in %d files, %s", cli.Bytes(uint64(i.SkeletonBytes)), len(i.Skeleton), i.SkeletonDir)},
	)
	if i.HintBytes > 0 || i.HotBytes > 0 {
		rows = append(rows, []string{"working set", fmt.Sprintf("%s, and %s of pages again", cli.Bytes(uint64(i.HintBytes)), cli.Bytes(uint64(i.HotBytes)))})
	}
	rows = append(rows, i.localRows()...)
	for _, p := range i.Processes {
		what := fmt.Sprintf("%d regions, %d runs of pages", p.Regions, p.Runs)
		if p.Zombie {
			what = "had exited"
		}
		rows = append(rows, []string{fmt.Sprintf("process %d", p.PID), what})
	}
	table(w, append(rows, hostRows(i.Host)...))
	if i.Remote != nil && len(i.Local.Packs) > 0 {
		fmt.Fprintln(w)
		table(w, i.packRows())
	}
}

// hostRows shows the short values of what the snapshot says of its host, whatever they are.
func hostRows(raw json.RawMessage) [][]string {
	var host struct {
		Kernel  string `json:"kernel"`
		Arch    string `json:"arch"`
		CPU     string `json:"cpu"`
		CRIU    string `json:"criu"`
		Runtime string `json:"runtime"`
	}
	if len(raw) == 0 || json.Unmarshal(raw, &host) != nil {
		return nil
	}
	var rows [][]string
	for _, row := range [][]string{
		{"kernel", strings.TrimSpace(host.Kernel + " " + host.Arch)}, {"cpu", host.CPU}, {"criu", host.CRIU}, {"frozen with", host.Runtime},
	} {
		if row[1] != "" {
			rows = append(rows, row)
		}
	}
	return rows
}
