// Uffdbench measures the engine against its baselines.
package main

import (
	"context"
	"io"
	"os"

	"thaw/cmd/internal/cli"
)

func main() {
	ctx, stop := cli.UntilInterrupted()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(&app{stdout: stdout, stderr: stderr})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return int(cli.Report(stderr, "uffdbench", cli.Execute(ctx, root), false))
}
