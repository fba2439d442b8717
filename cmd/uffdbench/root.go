package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"thaw/bench/functions"
	"thaw/bench/restores"
	"thaw/bench/scenario"
	"thaw/bench/suite"
	"thaw/cmd/internal/cli"
)

// app is what the commands share.
type app struct {
	stdout, stderr io.Writer
}

// scenarios are all that there are, in the order in which they are run.
func scenarios() []scenario.Scenario {
	return slices.Concat(suite.All(), restores.All(), []scenario.Scenario{functions.Scenario()})
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "uffdbench",
		Short: "Measure Thaw's engine against its baselines",
		Long: `Runs scenarios: each asks one question of the engine and, in the same run and interleaved with it, of programs that do the least
that can be done, of CRIU's own server and of the kernel alone. What counts is the ratio of medians within one run.

docs/benchmarks.md says how to read the results.

` + exitCodeText(),
		Example: `  uffdbench list
  uffdbench run fault --html report.html
  uffdbench run --json run.json > run.txt && benchstat -col /subject run.txt`,
		Version: cli.Version,
	}
	root.AddCommand(newRun(a), newList(a), newCompare(a), newReport(a), newFleet(a))
	return root
}

// exitCodeText is the table of exit codes in the help.
func exitCodeText() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, m := range cli.Codes() {
		fmt.Fprintf(&b, "\n    %3d  %s", m.Code, m.Meaning)
	}
	return b.String()
}

func newList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the scenarios",
		Long:    "Lists the scenarios and what each measures, in the order in which run takes them.",
		Example: "  uffdbench list",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			for _, s := range scenarios() {
				fmt.Fprintf(a.stdout, "%-18s %s\n", s.Name, s.Summary)
			}
			return nil
		},
	}
}
