// Command demo freezes a Python process with a model in its memory and measures how soon it answers again: started
// cold, restored by CRIU alone in both of its ways, and restored by Thaw. It prints a table and writes report.json, and
// a plot of it, to the output folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"thaw/bench/demo/internal/report"
	"thaw/bench/lab"
	"thaw/bench/privaterun"
)

func main() {
	code, err := start()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	os.Exit(code)
}

// start runs the demo here or in a mount namespace of its own, and returns the exit code.
func start() (code int, err error) {
	p, config, err := configure(os.Args[1:])
	if err != nil {
		return 2, err
	}
	code, again, err := privaterun.Enter()
	if err != nil {
		return 1, err
	}
	if again {
		return code, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, p, config); err != nil {
		return 1, err
	}
	return 0, nil
}

// run measures and reports.
func run(ctx context.Context, p *plan, config *lab.Config) (err error) {
	show := newProgress(os.Stderr)
	config.Progress = show
	l, err := lab.New(ctx, *config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	r, err := measure(ctx, l, p, config, show)
	if err != nil {
		return err
	}
	return publish(r, config.Dir)
}

// publish writes the report and its plots and prints the table.
func publish(r *report.Report, out string) error {
	if err := r.WriteFile(filepath.Join(out, "report.json")); err != nil {
		return err
	}
	for _, name := range []string{"report.svg", "report.png"} {
		if err := r.WritePlot(filepath.Join(out, name)); err != nil {
			return err
		}
	}
	if err := r.WriteTable(os.Stdout); err != nil {
		return err
	}
	fmt.Printf("\nreport: %s, with a plot beside it\n", filepath.Join(out, "report.json"))
	return nil
}

// configure reads the flags and the environment, and checks what can be checked at once. The report goes to the lab's folder.
func configure(args []string) (*plan, *lab.Config, error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	workload := flags.String("workload", "minilm", "what to freeze: "+strings.Join(workloads(), ", "))
	runs := flags.Int("runs", 5, "runs of each mode in each state of the page cache")
	out := flags.String("out", "out/demo", "folder for the report")
	input := flags.String("input", string(lab.SameInput), "what to ask: same, as before the freeze, or other")
	modes := flags.String("modes", "", "modes to run, separated by commas (default: all)")
	if err := flags.Parse(args); err != nil {
		return nil, nil, err
	}
	if *runs < 1 {
		return nil, nil, errors.New("-runs must be at least 1")
	}
	w, err := lab.FindWorkload(*workload)
	if err != nil {
		return nil, nil, err
	}
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("runs containers and drops the page cache, which needs root: run it with sudo")
	}
	p := &plan{workload: w, input: lab.Input(*input), rounds: *runs}
	if !slices.Contains(lab.Inputs(), p.input) {
		return nil, nil, fmt.Errorf("no input is called %q; there are %v", p.input, lab.Inputs())
	}
	if p.modes, err = parseModes(*modes); err != nil {
		return nil, nil, err
	}
	config := &lab.Config{Learn: true}
	if config.Parts, err = lab.FindParts(""); err != nil {
		return nil, nil, err
	}
	if config.Dir, err = filepath.Abs(*out); err != nil {
		return nil, nil, err
	}
	return p, config, os.MkdirAll(config.Dir, 0o755)
}

func workloads() (names []string) {
	for _, w := range lab.Workloads() {
		names = append(names, w.Name)
	}
	return names
}

func parseModes(list string) ([]lab.Mode, error) {
	if list == "" {
		return lab.Modes(), nil
	}
	var modes []lab.Mode
	for name := range strings.SplitSeq(list, ",") {
		mode := lab.Mode(strings.TrimSpace(name))
		if !slices.Contains(lab.Modes(), mode) {
			return nil, fmt.Errorf("no mode is called %q; there are %v", mode, lab.Modes())
		}
		modes = append(modes, mode)
	}
	return modes, nil
}
