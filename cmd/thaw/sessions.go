package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/pagestore"
)

func newSessions(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "sessions [ID]",
		Short: "List thawd's sessions",
		Long: `Lists the sessions of thawd: live ones, and the last ones that have ended. With an ID it shows one of them.

MEMORY says how much of the snapshot is in place, FAULTS how often a process had to wait for a page.`,
		Example: `  thaw sessions
  thaw sessions k3v5tq2nzc7u4xwa
  thaw sessions --json --socket /run/thaw/a.sock`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%s takes at most one session", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.sessions(cmd, args) },
	}
}

func (a *app) sessions(cmd *cobra.Command, args []string) error {
	c := a.client()
	defer c.Close()
	if len(args) == 1 {
		s, err := c.Session(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(s, func(w io.Writer) { writeSession(w, s) })
	}
	all, err := c.Sessions(cmd.Context())
	if err != nil {
		return err
	}
	return a.print(control.SessionList{Sessions: all}, func(w io.Writer) {
		rows := [][]string{{"ID", "SNAPSHOT", "STATE", "CREATED", "PROCESSES", "MEMORY", "FAULTS", "ERROR"}}
		for i := range all {
			s := &all[i]
			rows = append(rows, []string{s.ID, source(s), string(s.State), when(s.Created), fmt.Sprint(s.Progress.Processes),
				memory(&s.Progress), fmt.Sprint(faults(s)), s.Error})
		}
		table(w, rows)
	})
}

// source names what a session restores from.
func source(s *control.Session) string {
	if s.Snapshot != "" {
		return s.Snapshot
	}
	return s.ImagesDir
}

// memory says how much is in place.
func memory(p *control.Progress) string {
	return fmt.Sprintf("%s of %s", cli.Bytes(p.PagesDone*pagestore.PageSize), cli.Bytes(p.PagesTotal*pagestore.PageSize))
}

// faults returns how many faults a page was installed for.
func faults(s *control.Session) uint64 { return s.Counters.Faults["installed"] }

func writeSession(w io.Writer, s *control.Session) {
	rows := [][]string{
		{"id", s.ID},
		{"snapshot", source(s)},
		{"state", string(s.State)},
		{"created", when(s.Created)},
	}
	if s.Running != nil {
		rows = append(rows, []string{"restored after", cli.Seconds(s.Running.Sub(s.Created))})
	}
	if s.Ended != nil {
		rows = append(rows, []string{"ended after", cli.Seconds(s.Ended.Sub(s.Created))})
	}
	rows = append(rows,
		[]string{"processes", fmt.Sprintf("%d, %d of them still served", s.Progress.Processes, s.Progress.Live)},
		[]string{"memory", memory(&s.Progress)},
		[]string{"  for faults", cli.Bytes(s.Counters.BytesDemand)},
		[]string{"  streamed", cli.Bytes(s.Counters.BytesStreamed)},
		[]string{"  zero", cli.Bytes(s.Counters.BytesZero)},
		[]string{"images", s.ImagesDir},
		[]string{"work folder", s.WorkDir},
	)
	if s.Error != "" {
		rows = append(rows, []string{"error", s.Error})
	}
	if p := s.FailedPage; p != nil {
		rows = append(rows, []string{"failed page", fmt.Sprintf("image page %d: page %d of pack %s", p.Page, p.PackPage, p.Pack)})
		if p.Reason != "" {
			rows = append(rows, []string{"  because", p.Reason})
		}
	}
	table(w, rows)
}
