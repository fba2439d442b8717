package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"thaw/bench/host"
	"thaw/bench/htmlreport"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/checkpoint"
	"thaw/cmd/internal/cli"
)

// runFlags are the flags of run.
type runFlags struct {
	json, html string
	reps       int
	quick      bool
	filter     string
	dir        string
	criu       string
	profile    string
	silent     bool
}

func newRun(a *app) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [SCENARIO...]",
		Short: "Run scenarios and print what they measured",
		Long: `Runs the scenarios that are named, or all, and prints what they measured in the Go benchmark format, a line for each
repetition of each trial. Progress, and the figures that were to be reached, go to standard error.

A trial is one setting with one subject; its name is params/subject, as the progress shows it. --filter chooses trials by it.
The baselines are compiled with the system's C compiler ($CC, or cc) at their first use. Needs root. Scenarios with containers need what
"make deps build" provides, are run from the root of the repository, and empty the page cache; without the parts they are left out.`,
		Example: `  uffdbench run
  uffdbench run fault sessions --reps 20 --json run.json --html run.html
  uffdbench run fault --filter 'threads=1/(thaw|c-poll)'
  uffdbench run --quick`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd.Context(), args, &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.json, "json", "", "write the whole result as JSON to this file; - is standard output, instead of the benchmark format")
	flags.StringVar(&f.html, "html", "", "write a page with pictures to this file")
	flags.IntVar(&f.reps, "reps", 10, "how often each trial is run")
	flags.BoolVar(&f.quick, "quick", false, "run each trial once, in tiny sizes: says whether it works, not how fast")
	flags.StringVar(&f.filter, "filter", "", "run only trials whose name matches this regular expression")
	flags.StringVar(&f.dir, "dir", "", "folder for stores and files, on the disk to measure (default: that for temporary files)")
	flags.StringVar(&f.criu, "criu", cli.Env(cli.EnvCRIU, ""), "path of CRIU, 4.2 or newer (default: the one in PATH) ($"+cli.EnvCRIU+")")
	flags.StringVar(&f.profile, "cpuprofile", "", "write a CPU profile of the engine (and the harness) to this file, for go tool pprof")
	flags.BoolVarP(&f.silent, "quiet", "q", false, "show no progress")
	return cmd
}

func (a *app) run(ctx context.Context, names []string, f *runFlags) error {
	opts := &scenario.Options{Repetitions: f.reps, Quick: f.quick, Dir: f.dir}
	chosen, err := choose(names, f.quick)
	if err != nil {
		return err
	}
	if opts.Filter, err = compile(f.filter); err != nil {
		return err
	}
	if f.reps < 1 {
		return cli.Usagef("--reps must be at least 1")
	}
	if f.quick {
		opts.Repetitions = 1
	}
	if os.Geteuid() != 0 {
		return &cli.Error{Code: cli.Permission, Err: errors.New("userfaultfd of other processes needs a privilege"), Hint: "run it with sudo"}
	}
	criu := findCRIU(ctx, f.criu)
	opts.CRIU = criu.path
	h, err := host.Describe(ctx, orTemp(f.dir), criu.version)
	if err != nil {
		return err
	}
	p := newProgress(a.stderr, f.silent)
	opts.Progress = p
	stopProfile, err := startProfile(f.profile)
	if err != nil {
		return err
	}
	d, err := scenario.Run(ctx, chosen, opts)
	p.done()
	err = errors.Join(err, stopProfile())
	switch {
	case errors.Is(err, scenario.ErrNothing):
		return cli.Usagef("--filter %s: %v", f.filter, err)
	case errors.Is(err, scenario.ErrLeftOut):
		return &cli.Error{Code: cli.Missing, Err: err}
	}
	if err != nil {
		return err
	}
	d.Host = h
	return a.publish(d, f)
}

// startProfile begins to sample where the CPU time of this process goes, if path says where to write it.
func startProfile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// publish writes what was measured to where it is wanted.
func (a *app) publish(d *result.Document, f *runFlags) error {
	if f.html != "" {
		if err := writeFile(f.html, func(w io.Writer) error { return htmlreport.Write(w, d) }); err != nil {
			return err
		}
	}
	switch f.json {
	case "-":
		return errors.Join(d.WriteJSON(a.stdout), d.WriteGoals(a.stderr))
	case "":
	default:
		if err := writeFile(f.json, d.WriteJSON); err != nil {
			return err
		}
	}
	return errors.Join(d.WriteGoBench(a.stdout), d.WriteGoals(a.stderr))
}

// writeFile writes a file whole or not at all.
func writeFile(path string, write func(io.Writer) error) error {
	var data bytes.Buffer
	if err := write(&data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".uffdbench-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // fails once it is renamed, as it should
	_, err = temp.Write(data.Bytes())
	if err = errors.Join(err, temp.Chmod(0o644), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// choose returns the scenarios of the given names, all if there are none.
func choose(names []string, quick bool) ([]scenario.Scenario, error) {
	all := scenarios()
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(s scenario.Scenario) bool { return s.Apart && !quick }), nil
	}
	var chosen []scenario.Scenario
	for _, name := range names {
		i := slices.IndexFunc(all, func(s scenario.Scenario) bool { return s.Name == name })
		if i < 0 {
			var known []string
			for _, s := range all {
				known = append(known, s.Name)
			}
			return nil, cli.Usagef("no scenario is called %q; there are %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func compile(filter string) (*regexp.Regexp, error) {
	if filter == "" {
		return nil, nil
	}
	re, err := regexp.Compile(filter)
	if err != nil {
		return nil, cli.Usagef("--filter: %v", err)
	}
	return re, nil
}

func orTemp(dir string) string {
	if dir == "" {
		return os.TempDir()
	}
	return dir
}

// criu is a CRIU that was found; empty if none was.
type criu struct{ path, version string }

// findCRIU returns the CRIU to measure. That there is none is no error: the scenarios say what they leave out.
func findCRIU(ctx context.Context, path string) criu {
	tools := &checkpoint.Tools{CRIU: path}
	version, err := tools.CRIUVersion(ctx)
	if err != nil {
		return criu{}
	}
	if path == "" {
		path = "criu"
	}
	return criu{path, version}
}
