// Thaw freezes processes into snapshots and thaws them.
package main

import (
	"context"
	"io"
	"os"
	"slices"

	"thaw/cmd/internal/cli"
	"thaw/function/describe"
	"thaw/restore/tracer"
)

func main() {
	ctx, stop := cli.UntilInterrupted()
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the command line and returns the exit code.
func run(ctx context.Context, args []string, stdin *os.File, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == tracerCommand {
		return tracer.Main(args[1:])
	}
	if len(args) > 0 && args[0] == describe.Command {
		return describe.Main(args[1:])
	}
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := cli.Execute(ctx, root); err != nil {
		// An error in the command line may come before the flag was read.
		return int(cli.Report(stderr, "thaw", err, a.json || slices.Contains(args, "--json")))
	}
	return a.exit
}
