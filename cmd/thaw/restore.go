package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"thaw/checkpoint"
	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/snapshot"
)

// restoreFlags are the flags of restore.
type restoreFlags struct {
	stream, rate string
	bundle, id   string
	workDir      string
	stdio        string
	detach       bool
	noSet        bool
	copyAll      bool
}

func newRestore(a *app) *cobra.Command {
	r := &restoreFlags{}
	cmd := &cobra.Command{
		Use:   "restore NAME [--bundle DIR --id ID]",
		Short: "Thaw a snapshot",
		Long: `Thaws a snapshot: thawd makes a session, CRIU restores the process, or runc the container, and its memory follows while it
runs. A plain process gets the process numbers that it had; a container needs a bundle, which is that of the frozen one
but for the cgroup, and an id of its own.

Without --detach the command stays until the process ends, passes SIGINT, SIGTERM, SIGHUP and SIGQUIT on to it, and ends
with its exit status (128 and the signal's number if a signal ended it).`,
		Example: `  thaw restore web
  thaw restore web --detach --json
  thaw restore prod/web --bundle /run/bundles/web-2 --id web-2 --detach
  thaw restore web --stream none
  thaw restore web --rate 200MiB`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error { return a.restore(cmd.Context(), args[0], r) },
	}
	f := cmd.Flags()
	f.StringVar(&r.stream, "stream", string(control.StreamAll), "what happens to untouched memory: all is brought behind the faults, or none")
	f.StringVar(&r.rate, "rate", "0", "bound of the stream in bytes a second, such as 200MiB; 0: as fast as it goes")
	f.BoolVar(&r.copyAll, "copy", false, "copy all memory, map none of it from the store's packs")
	f.StringVar(&r.bundle, "bundle", "", "restore a container from this bundle, with runc")
	f.StringVar(&r.id, "id", "", "id of the new container")
	f.StringVar(&r.workDir, "work-dir", "", "folder for the socket and the runtime's logs (default: thawd makes one)")
	f.StringVar(&r.stdio, "stdio", "", "a container's standard streams: inherit ours, or null (default: inherit, null with --detach)")
	f.BoolVarP(&r.detach, "detach", "d", false, "return as soon as the process runs")
	f.BoolVar(&r.noSet, "no-working-set", false, "bring memory as if nothing were known of what the process needs first")
	a.toolFlags(cmd)
	cmd.MarkFlagsRequiredTogether("bundle", "id")
	mustMark(cmd.MarkFlagDirname("bundle"))
	return cmd
}

// restored is what restore prints when the process runs.
type restored struct {
	Snapshot         string   `json:"snapshot"`
	Session          string   `json:"session"`
	PID              int      `json:"pid"`
	Container        string   `json:"container,omitempty"`
	ToRunningSeconds float64  `json:"to_running_s"`
	Warnings         []string `json:"warnings,omitempty"`

	// WorkingSet says what the snapshot's working set has brought so far; see thaw sessions for more, and for later.
	WorkingSet *control.WorkingSetReport `json:"working_set,omitempty"`
}

func (a *app) restore(ctx context.Context, name string, r *restoreFlags) error {
	o, err := a.thawOptions(name, r)
	if err != nil {
		return err
	}
	if !r.detach {
		// Before the restore, so that the process becomes our child when its runtime ends.
		if err := adoptOrphans(); err != nil {
			return err
		}
	}
	var signals chan os.Signal
	if !r.detach {
		var stop func()
		signals, stop = heed()
		defer stop()
	}
	c := a.client()
	defer c.Close()
	t, err := snapshot.Thaw(ctx, c, a.tools(), o)
	if err != nil {
		return err
	}
	if err := a.tellRestored(context.WithoutCancel(ctx), c, t, r); err != nil || r.detach {
		return err
	}
	a.exit, err = waitFor(signals, t.PID)
	if t.Container != nil {
		// It has ended; what runc keeps of it goes, also if we were told to end meanwhile.
		err = errors.Join(err, t.Container.Delete(context.WithoutCancel(ctx)))
	}
	return err
}

// thawOptions makes the options of the flags.
func (a *app) thawOptions(name string, r *restoreFlags) (snapshot.ThawOptions, error) {
	o := snapshot.ThawOptions{Copy: r.copyAll, Session: control.SessionRequest{Snapshot: name, Stream: control.Stream(r.stream)}}
	if r.noSet {
		o.Session.WorkingSet = control.WorkingSetIgnored
	}
	var err error
	if o.Session.RateBytesPerSecond, err = cli.ParseBytes(r.rate); err != nil {
		return o, err
	}
	if o.Session.WorkDir, err = absolute(r.workDir); err != nil {
		return o, err
	}
	if err := o.Session.Validate(); err != nil {
		return o, err
	}
	stdio, err := a.stdio(r)
	if err != nil || r.bundle == "" {
		return o, err
	}
	bundle, err := absolute(r.bundle)
	if err != nil {
		return o, err
	}
	o.Container = &snapshot.ContainerOptions{ID: r.id, Bundle: bundle, Stdio: stdio}
	return o, isFolder(bundle)
}

func (a *app) stdio(r *restoreFlags) (checkpoint.Stdio, error) {
	choice := r.stdio
	if choice == "" {
		choice = "inherit"
		if r.detach {
			choice = "null"
		}
	}
	switch choice {
	case "inherit":
		return checkpoint.Stdio{In: a.stdin, Out: os.Stdout, Err: os.Stderr}, nil
	case "null":
		return checkpoint.Stdio{}, nil
	}
	return checkpoint.Stdio{}, cli.Usagef("--stdio %s is neither inherit nor null", choice)
}

// tellRestored says that the process runs. What is said to people goes to standard error in the foreground, where standard
// output may be the container's own.
func (a *app) tellRestored(ctx context.Context, c *control.Client, t *snapshot.Thawed, r *restoreFlags) error {
	for _, warning := range t.Warnings {
		fmt.Fprintf(a.stderr, "thaw: warning: %s\n", warning)
	}
	out := restored{
		Snapshot: t.Session.Snapshot, Session: t.Session.ID, PID: t.PID, ToRunningSeconds: t.ToRunning.Seconds(), Warnings: t.Warnings,
	}
	if a.json {
		// It runs all the same if thawd cannot say.
		if now, err := c.Session(ctx, t.Session.ID); err == nil {
			out.WorkingSet = now.WorkingSet
		}
	}
	what := fmt.Sprintf("process %d", t.PID)
	if t.Container != nil {
		out.Container = t.Container.ID
		what = fmt.Sprintf("container %s (process %d)", t.Container.ID, t.PID)
	}
	return a.print(out, func(w io.Writer) {
		if !r.detach {
			w = a.stderr
		}
		fmt.Fprintf(w, "%s: %s runs after %s; its memory follows in session %s\n", out.Snapshot, what, cli.Seconds(t.ToRunning), out.Session)
	})
}
