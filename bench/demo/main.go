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
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"thaw/bench/demo/internal/lab"
	"thaw/bench/demo/internal/report"
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
	out, config, err := configure(os.Args[1:])
	if err != nil {
		return 2, err
	}
	private, err := needsPrivateRun()
	if err != nil {
		return 1, err
	}
	if private {
		return restart()
	}
	if err := coverRun(); err != nil {
		return 1, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, out, config); err != nil {
		return 1, err
	}
	return 0, nil
}

// run measures and reports.
func run(ctx context.Context, out string, config lab.Config) (err error) {
	config.Progress = newProgress(os.Stderr)
	l, err := lab.New(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	r, err := l.Measure(ctx)
	if err != nil {
		return err
	}
	return publish(r, out)
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

// configure reads the flags and the environment, and checks what can be checked at once.
func configure(args []string) (out string, config lab.Config, err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	workload := flags.String("workload", "minilm", "what to freeze: minilm or large")
	flags.IntVar(&config.Rounds, "runs", 5, "runs of each mode in each state of the page cache")
	flags.StringVar(&out, "out", "out/demo", "folder for the report")
	modes := flags.String("modes", "", "modes to run, separated by commas (default: all)")
	if err := flags.Parse(args); err != nil {
		return "", config, err
	}
	if config.Workload, err = lab.FindWorkload(*workload); err != nil {
		return "", config, err
	}
	if config.Rounds < 1 {
		return "", config, errors.New("-runs must be at least 1")
	}
	if os.Geteuid() != 0 {
		return "", config, errors.New("runs containers and drops the page cache, which needs root: run it with sudo")
	}
	if out, err = filepath.Abs(out); err != nil {
		return "", config, err
	}
	config.Dir = out
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", config, err
	}
	if config.Modes, err = parseModes(*modes); err != nil {
		return "", config, err
	}
	return out, config, findParts(&config)
}

func parseModes(list string) ([]report.Mode, error) {
	if list == "" {
		return nil, nil
	}
	var modes []report.Mode
	for name := range strings.SplitSeq(list, ",") {
		mode := report.Mode(strings.TrimSpace(name))
		if !slices.Contains(report.Modes(), mode) {
			return nil, fmt.Errorf("no mode is called %q; there are %v", mode, report.Modes())
		}
		modes = append(modes, mode)
	}
	return modes, nil
}

// findParts fills in the paths of what the demo is made of, all of which `make deps build` provides.
func findParts(config *lab.Config) error {
	deps := orDefault(os.Getenv("THAW_DEPS"), ".deps")
	parts := []struct {
		path     *string
		fallback string
		variable string // of the environment, that names another place
	}{
		{&config.CRIU, filepath.Join(deps, "bin", "criu"), "THAW_CRIU"},
		{&config.Rootfs, filepath.Join(deps, "rootfs"), "THAW_ROOTFS"},
		{&config.Examples, "examples", ""},
		{&config.Thaw, filepath.Join("bin", "thaw"), ""},
		{&config.Thawd, filepath.Join("bin", "thawd"), ""},
	}
	for _, part := range parts {
		path, err := filepath.Abs(orDefault(os.Getenv(part.variable), part.fallback))
		if err != nil {
			return err
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w: run `make deps build` in the root of the repository, and the demo from there", err)
		}
		*part.path = path
	}
	runc, err := exec.LookPath(orDefault(os.Getenv("THAW_RUNC"), "runc"))
	if err != nil {
		return fmt.Errorf("runc is needed: %w: run `make deps`", err)
	}
	config.Runc, err = filepath.Abs(runc)
	return err
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
