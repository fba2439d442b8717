package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"thaw/bench/htmlreport"
	"thaw/bench/result"
	"thaw/cmd/internal/cli"
)

func newReport(a *app) *cobra.Command {
	var html string
	cmd := &cobra.Command{
		Use:   "report RUN.json...",
		Short: "Show runs that were made before",
		Long: `Prints the figures that were to be reached from results of run --json, and with --html writes the page with pictures. Several results
are joined, if they hold different scenarios and come from the same host, commit and settings: a long run can be made in parts.`,
		Example: `  uffdbench report run.json --html run.html
  uffdbench report faults.json fills.json --html all.html`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%s takes at least one file", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			var all *result.Document
			for _, path := range args {
				d, err := readDocument(path)
				if err != nil {
					return err
				}
				if all == nil {
					all = d
				} else if err := all.Join(d); err != nil {
					return cli.Usagef("%s: %v", path, err)
				}
			}
			if html != "" {
				if err := writeFile(html, func(w io.Writer) error { return htmlreport.Write(w, all) }); err != nil {
					return err
				}
			}
			return all.WriteGoals(a.stdout)
		},
	}
	cmd.Flags().StringVar(&html, "html", "", "write a page with pictures to this file")
	return cmd
}
