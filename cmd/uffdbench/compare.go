package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"thaw/bench/result"
	"thaw/cmd/internal/cli"
)

func newCompare(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "compare BEFORE.json AFTER.json",
		Short: "Compare two runs",
		Long: `Compares two results of run --json: the medians of what both measured, their ratio, the spread of each (interquartile range
over median), and how probable so large a difference is if nothing has changed (Mann and Whitney's U test over the
repetitions). Below 0.05 it counts as a difference, else as noise. Of distributions the 99th percentile is compared, too.`,
		Example: `  uffdbench compare before.json after.json
  uffdbench compare before.json after.json --all`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%s takes two files, and got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			var docs [2]*result.Document
			for i, path := range args {
				var err error
				if docs[i], err = readDocument(path); err != nil {
					return err
				}
			}
			return result.Compare(docs[0], docs[1]).WriteTable(a.stdout, all)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "show what is noise, too")
	return cmd
}

func readDocument(path string) (*result.Document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, err := result.ReadJSON(f)
	if err != nil {
		return nil, &cli.Error{Code: cli.Corrupt, Err: fmt.Errorf("%s: %w", path, err), Hint: "make one with uffdbench run --json"}
	}
	return d, nil
}
