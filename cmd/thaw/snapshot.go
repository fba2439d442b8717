package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"thaw/checkpoint"
	"thaw/cmd/internal/cli"
	"thaw/pagestore"
	"thaw/snapshot"
)

func newSnapshot(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Make, list, check and remove snapshots",
		Long: `Makes, lists, checks and removes the snapshots in the page store.

A snapshot is called NAME or NAMESPACE/NAME. Snapshots of one namespace share pages, those of different ones do not.`,
		Example: `  thaw snapshot create --container web --name web
  thaw snapshot ls
  thaw snapshot inspect web`,
	}
	cmd.AddCommand(newCreate(a), newImport(a), newList(a), newInspect(a), newVerify(a), newPush(a), newPull(a), newWarm(a), newOptimize(a), newRemove(a), newGC(a))
	return cmd
}

// createFlags are the flags of snapshot create.
type createFlags struct {
	pid          int
	container    string
	name, parent string
	images       string
	workers      int
	dump         checkpoint.DumpOptions
}

func newCreate(a *app) *cobra.Command {
	c := &createFlags{}
	cmd := &cobra.Command{
		Use:   "create (--pid PID | --container ID) --name NAME",
		Short: "Freeze a process or a container into a snapshot",
		Long: `Freezes a process with all its children, or a container of runc's, and brings its memory into the store. Unless
--leave-running is given, the process is gone afterwards: it lives on in the snapshot.

A process that shares a terminal with others needs --shell-job, one with open connections --tcp-established.`,
		Example: `  thaw snapshot create --pid 4711 --name web
  thaw snapshot create --container web-1 --name prod/web --leave-running
  thaw snapshot create --pid 4711 --name web --images /var/tmp/web-images`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.create(cmd, c) },
	}
	f := cmd.Flags()
	f.IntVar(&c.pid, "pid", 0, "process to freeze, with its children")
	f.StringVar(&c.container, "container", "", "container of runc's to freeze")
	f.StringVar(&c.name, "name", "", "name of the new snapshot")
	f.StringVar(&c.parent, "parent", "", "snapshot that the process was thawed from, for the record")
	f.StringVar(&c.images, "images", "", "keep CRIU's images in this folder (default: they are removed)")
	f.IntVar(&c.workers, "workers", 0, "goroutines that hash (default: one for each CPU)")
	f.BoolVar(&c.dump.LeaveRunning, "leave-running", false, "let the process go on")
	f.BoolVar(&c.dump.ShellJob, "shell-job", false, "allow a process that was started from a shell and has its terminal")
	f.BoolVar(&c.dump.TCPEstablished, "tcp-established", false, "keep open TCP connections")
	f.BoolVar(&c.dump.FileLocks, "file-locks", false, "keep file locks")
	f.BoolVar(&c.dump.ExternalUnixSockets, "ext-unix-sk", false, "allow unix sockets whose other end is outside")
	a.toolFlags(cmd)
	cmd.MarkFlagsOneRequired("pid", "container")
	cmd.MarkFlagsMutuallyExclusive("pid", "container")
	mustMark(cmd.MarkFlagRequired("name"))
	mustMark(cmd.MarkFlagDirname("images"))
	return cmd
}

// created is what snapshot create and import print.
type created struct {
	pagestore.Report
	DumpSeconds float64 `json:"dump_s,omitempty"`
	Images      string  `json:"images,omitempty"`
}

func (a *app) create(cmd *cobra.Command, c *createFlags) error {
	o := snapshot.FreezeOptions{PID: c.pid, Container: c.container, Dump: c.dump}
	var err error
	if cmd.Flags().Changed("pid") && c.pid <= 0 {
		return cli.Usagef("--pid %d is no process", c.pid)
	}
	if o.ImagesDir, err = absolute(c.images); err != nil {
		return err
	}
	if o.Import, err = importOptions(c.name, c.parent, c.workers); err != nil {
		return err
	}
	store, err := a.makeStore()
	if err != nil {
		return err
	}
	defer store.Close()
	var done func()
	o.Import.Progress, done = a.progress("importing")
	report, err := snapshot.Freeze(cmd.Context(), store, a.tools(), o)
	done()
	if err != nil {
		return adviseFreeze(err)
	}
	return a.print(created{*report.Import, report.Dump.Seconds(), report.ImagesDir}, func(w io.Writer) {
		fmt.Fprintf(w, "%s: frozen in %s\n", report.Import.Name, cli.Seconds(report.Dump))
		printImport(w, report.Import)
		if report.ImagesDir != "" {
			fmt.Fprintf(w, "CRIU's images are in %s\n", report.ImagesDir)
		}
	})
}

// adviseFreeze says what to do with images that are all that is left of a process.
func adviseFreeze(err error) error {
	var kept *snapshot.KeptError
	if !errors.As(err, &kept) {
		return err
	}
	code, hint := cli.Explain(err)
	if hint != "" {
		hint += "; then: "
	}
	return &cli.Error{Code: code, Err: err, Hint: fmt.Sprintf("%sthaw snapshot import %s --name NAME", hint, kept.ImagesDir)}
}

func newImport(a *app) *cobra.Command {
	var name, parent string
	var workers int
	cmd := &cobra.Command{
		Use:   "import DIR --name NAME",
		Short: "Make a snapshot of CRIU's images",
		Long: `Makes a snapshot of a folder of images that "criu dump" or "runc checkpoint" wrote. The images stay as they are; the
snapshot does not need them.`,
		Example: `  criu dump --tree 4711 --images-dir /var/tmp/web && thaw snapshot import /var/tmp/web --name web
  thaw snapshot import /var/tmp/web --name prod/web-2 --parent prod/web`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%s takes one folder, and got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := importOptions(name, parent, workers)
			if err != nil {
				return err
			}
			return a.importImages(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "name of the new snapshot")
	f.StringVar(&parent, "parent", "", "snapshot that the process was thawed from, for the record")
	f.IntVar(&workers, "workers", 0, "goroutines that hash (default: one for each CPU)")
	mustMark(cmd.MarkFlagRequired("name"))
	return cmd
}

func (a *app) importImages(cmd *cobra.Command, dir string, o snapshot.ImportOptions) error {
	dir, err := absolute(dir)
	if err != nil {
		return err
	}
	if err := isFolder(dir); err != nil {
		return err
	}
	store, err := a.makeStore()
	if err != nil {
		return err
	}
	defer store.Close()
	var done func()
	o.Progress, done = a.progress("importing")
	report, err := snapshot.Import(cmd.Context(), store, dir, o)
	done()
	if err != nil {
		return err
	}
	return a.print(created{Report: *report}, func(w io.Writer) { printImport(w, report) })
}

func importOptions(name, parent string, workers int) (snapshot.ImportOptions, error) {
	o := snapshot.ImportOptions{Workers: workers}
	var err error
	if o.Name, err = pagestore.ParseName(name); err != nil {
		return o, err
	}
	if parent != "" {
		o.Parent, err = pagestore.ParseName(parent)
	}
	return o, err
}

func printImport(w io.Writer, r *pagestore.Report) {
	fmt.Fprintf(w, "%s: %s of memory imported in %s (%s/s)\n", r.Name, cli.Bytes(r.Bytes), cli.Seconds(r.Duration),
		cli.Bytes(uint64(float64(r.Bytes)/max(r.Duration.Seconds(), 1e-9))))
	page := uint64(pagestore.PageSize)
	fmt.Fprintf(w, "  new %s, in the store before or repeated %s, zero %s, skeleton %s\n", cli.Bytes(r.NewBytes),
		cli.Bytes(r.DuplicatePages*page), cli.Bytes(r.ZeroPages*page), cli.Bytes(uint64(r.SkeletonBytes)))
}
