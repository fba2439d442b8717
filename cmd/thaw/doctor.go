package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/doctor"
)

// diagnosis is what doctor prints.
type diagnosis struct {
	Status doctor.Status `json:"status"`
	doctor.Report
	Host *doctor.Host `json:"host"`
}

func newDoctor(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host has, what it lacks, and how to get it",
		Long: `Looks at the kernel, userfaultfd, tracing, CRIU, runc, cgroups, permissions, disks and thawd, and says of each what is there,
what is missing, and how to get it. It changes nothing.

The exit code is 7 if something is missing without which thaw cannot work here.`,
		Example: `  thaw doctor
  thaw doctor --criu /opt/criu/bin/criu
  thaw doctor --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
	a.toolFlags(cmd)
	return cmd
}

func (a *app) doctor(ctx context.Context) error {
	host, err := doctor.Inspect(ctx, &doctor.Options{Tools: *a.tools(), StoreDir: a.store, RunDir: filepath.Dir(a.socket)})
	if err != nil {
		return err
	}
	out := diagnosis{Report: doctor.Examine(host), Host: host}
	out.Findings = append(out.Findings, a.examineThawd(ctx))
	out.Status = out.Report.Status()
	err = a.print(out, func(w io.Writer) {
		for _, f := range out.Findings {
			fmt.Fprintln(w, f)
		}
	})
	if err == nil && out.Status == doctor.Missing {
		err = &cli.Error{Code: cli.Missing, Err: errors.New("this host lacks what thaw needs; see above")}
	}
	return err
}

// examineThawd asks whether a thawd answers. Snapshots can be made without one, so none is worth a warning.
func (a *app) examineThawd(ctx context.Context) doctor.Finding {
	f := doctor.Finding{Check: "thawd", Status: doctor.OK}
	c := a.client()
	defer c.Close()
	h, err := c.Health(ctx)
	if err != nil {
		f.Status, f.Has, f.Lacks = doctor.Warning, "none", err.Error()+": snapshots can be made, and not thawed"
		if _, hint := cli.Explain(err); hint != "" {
			f.Fix = hint
		}
		return f
	}
	f.Has = fmt.Sprintf("version %s, process %d, store %s, sessions: %d", h.Version, h.PID, h.Store, h.Sessions)
	switch {
	case h.Status == control.HealthDraining:
		f.Status, f.Lacks = doctor.Warning, "it is draining and takes no new sessions"
	case h.Store != filepath.Clean(a.store):
		f.Status, f.Lacks = doctor.Warning, fmt.Sprintf("it serves another store than %s", a.store)
		f.Fix = "use --store or THAW_STORE for both"
	}
	return f
}
