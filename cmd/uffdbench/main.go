// Uffdbench measures the engine against its baselines.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"thaw/bench/privaterun"
	"thaw/cmd/internal/cli"
)

func main() {
	if code, again := privateRun(); again {
		os.Exit(code)
	}
	ctx, stop := cli.UntilInterrupted()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// privateRun runs the program again where whole restores can be measured, if it is to measure and is not there yet.
func privateRun() (code int, again bool) {
	if len(os.Args) < 2 || os.Args[1] != "run" || os.Geteuid() != 0 {
		return 0, false
	}
	code, again, err := privaterun.Enter()
	if err != nil {
		// Scenarios without containers do not need it.
		fmt.Fprintf(os.Stderr, "uffdbench: warning: there is no /run of its own, so that CRIU probes the kernel at each start: %v\n", err)
		return 0, false
	}
	return code, again
}

// run runs the command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(&app{stdout: stdout, stderr: stderr})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return int(cli.Report(stderr, "uffdbench", cli.Execute(ctx, root), false))
}
