package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"thaw/bench/fleet"
	"thaw/cmd/internal/cli"
)

// fleetFlags are the flags of fleet.
type fleetFlags struct {
	nodes, scenario    string
	inputs, json, html string
	seed               uint64
	silent             bool
}

func newFleet(a *app) *cobra.Command {
	var f fleetFlags
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Simulate many nodes that restore from each other and from an object store",
		Long: `Simulates fleets, with peers and with the object store alone, and prints for each how long first responses took, which tier served what
was needed before them, and what the object store had to do. Nothing is measured: the simulation computes with service times, each of
which is marked as measured or assumed in the report. --inputs replaces some of them, or all. The same inputs and seed give the same report.

Scenarios: burst (all nodes boot one snapshot at once), poisson (a steady rate of many snapshots), diurnal (a rate that swings),
churn (nodes die and join), zone (a zone is lost).`,
		Example: `  uffdbench fleet
  uffdbench fleet --nodes 100,1000 --scenario burst,zone --html fleet.html
  uffdbench fleet --inputs measured.json --json - > fleet.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.fleet(cmd.Context(), &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.nodes, "nodes", "10,100,1000,5000", "how many nodes; several numbers are simulated one after the other")
	flags.StringVar(&f.scenario, "scenario", "burst,poisson,diurnal,churn,zone", "what happens")
	flags.StringVar(&f.inputs, "inputs", "", "file with inputs to use in place of those that are built in; docs/format/fleet.md")
	flags.Uint64Var(&f.seed, "seed", 1, "where chance begins")
	flags.StringVar(&f.json, "json", "", "write the whole report as JSON to this file; - is standard output, instead of the table")
	flags.StringVar(&f.html, "html", "", "write a page with pictures to this file")
	flags.BoolVarP(&f.silent, "quiet", "q", false, "show no progress")
	return cmd
}

func (a *app) fleet(ctx context.Context, f *fleetFlags) error {
	scenarios, err := fleet.ParseScenarios(f.scenario)
	if err != nil {
		return cli.Usagef("--scenario: %v", err)
	}
	nodes, err := parseNodes(f.nodes)
	if err != nil {
		return err
	}
	in := fleet.Default()
	if f.inputs != "" {
		if in, err = readInputs(f.inputs); err != nil {
			return err
		}
	}
	each := func(r *fleet.Run) {
		if !f.silent {
			fmt.Fprintf(a.stderr, "%s, %d nodes, %s: done\n", r.Scenario, r.Nodes, r.Who())
		}
	}
	report, err := fleet.SimulateAll(ctx, in, scenarios, nodes, f.seed, each)
	if err != nil {
		return err
	}
	if f.html != "" {
		if err := writeFile(f.html, report.WriteHTML); err != nil {
			return err
		}
	}
	switch f.json {
	case "-":
		return report.WriteJSON(a.stdout)
	case "":
	default:
		if err := writeFile(f.json, report.WriteJSON); err != nil {
			return err
		}
	}
	return report.WriteTable(a.stdout)
}

// parseNodes reads numbers that are separated by commas.
func parseNodes(list string) ([]int, error) {
	var out []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 || n > fleet.MaxNodes {
			return nil, cli.Usagef("--nodes: %.40q is no number of 1 to %d", s, fleet.MaxNodes)
		}
		out = append(out, n)
	}
	return out, nil
}

func readInputs(path string) (*fleet.Inputs, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in, err := fleet.Read(f)
	if err != nil {
		return nil, &cli.Error{Code: cli.Corrupt, Err: fmt.Errorf("%s: %w", path, err), Hint: "docs/format/fleet.md says what an inputs file holds"}
	}
	return in, nil
}
