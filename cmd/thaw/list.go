package main

import (
	"encoding/json"
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
	BeingRemoved  bool       `json:"being_removed,omitempty"`
	Error         string     `json:"error,omitempty"` // why the snapshot cannot be read
}

func newList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List snapshots",
		Long: `Lists the snapshots in the store. SIZE is the memory of the frozen processes, NEW what the snapshot brought into the store
that was not there before.`,
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
		out = append(out, listLine(e))
	}
	return a.print(map[string]any{"snapshots": out}, func(w io.Writer) {
		rows := [][]string{{"NAME", "CREATED", "PROCESSES", "SIZE", "NEW", "SKELETON", "PARENT"}}
		for _, l := range out {
			rows = append(rows, l.row())
		}
		table(w, rows)
	})
}

func listLine(e pagestore.Entry) listed {
	l := listed{Name: e.Name.String(), BeingRemoved: e.BeingRemoved, HintBytes: e.HintBytes, HotBytes: e.HotBytes}
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

func (l *listed) row() []string {
	switch {
	case l.Error != "":
		return []string{l.Name, "cannot be read: " + l.Error}
	case l.BeingRemoved:
		return []string{l.Name, "being removed"}
	}
	return []string{l.Name, when(*l.Created), fmt.Sprint(l.Processes), cli.Bytes(l.Bytes), cli.Bytes(l.NewBytes),
		cli.Bytes(uint64(l.SkeletonBytes)), l.Parent}
}

// inspected is what snapshot inspect prints.
type inspected struct {
	*pagestore.Info
	SkeletonDir   string             `json:"skeleton_dir"`
	SkeletonBytes int64              `json:"skeleton_bytes"`
	HintBytes     int64              `json:"hint_bytes"` // of its working set
	HotBytes      int64              `json:"hot_bytes"`  // of the second copies of pages of its working set
	Sharing       pagestore.Sharing  `json:"sharing"`
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
much would be freed with it, and on what kind of host it was frozen.`,
		Example: `  thaw snapshot inspect web
  thaw snapshot inspect prod/web --json`,
		Args: oneName,
		RunE: func(_ *cobra.Command, args []string) error { return a.inspect(args[0]) },
	}
}

func (a *app) inspect(arg string) (err error) {
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
	for _, p := range i.Processes {
		what := fmt.Sprintf("%d regions, %d runs of pages", p.Regions, p.Runs)
		if p.Zombie {
			what = "had exited"
		}
		rows = append(rows, []string{fmt.Sprintf("process %d", p.PID), what})
	}
	table(w, append(rows, hostRows(i.Host)...))
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
