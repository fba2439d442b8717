// Thawd is the memory server of a node: it brings the pages of restored processes.
package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/daemon"
	"thaw/restore/criu/lazypages"
	"thaw/restore/guard"
	"thaw/restore/tracer"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	switch {
	case len(args) == 1 && args[0] == guardCommand:
		return guard.Main()
	case len(args) > 0 && args[0] == tracerCommand:
		return tracer.Main(args[1:])
	}
	var lazyPages int // exit code of the stand-in, which has CRIU's
	root := newRoot(stderr, &lazyPages)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := cli.Execute(context.Background(), root); err != nil {
		return int(cli.Report(stderr, "thawd", err, false))
	}
	return lazyPages
}

// What thawd runs itself with, as the guard of its processes and as the helper that records their touches. They are nobody
// else's to run.
const (
	guardCommand  = "guard"
	tracerCommand = "tracer"
)

func newRoot(stderr io.Writer, lazyPages *int) *cobra.Command {
	root := &cobra.Command{
		Use:   "thawd",
		Short: "Bring the memory of restored processes, page by page",
		Long: `Thawd brings the memory of restored processes while they run: the pages that they touch at once, the others behind
them. Runtimes ask it for a session over its control API (docs/openapi.yaml); thaw restore does that by itself.

While thawd serves, processes depend on it. SIGTERM lets it finish: it takes no new sessions, brings the memory of the
running ones at full speed, and ends. A second signal makes it end at once, and kills the processes that still miss memory,
because without thawd they would read zeros in its place. If thawd itself is killed, a second small process, its guard,
does the same.`,
		Example: `  thawd serve --store /var/lib/thaw --socket /run/thaw/thawd.sock
  thawd lazy-pages --images-dir /var/tmp/images --work-dir /var/tmp/work`,
		Version: cli.Version,
	}
	root.AddCommand(newServe(stderr), newLazyPages(lazyPages))
	return root
}

// newLazyPages is the command that stands in for criu lazy-pages. It takes CRIU's arguments, not ours.
func newLazyPages(code *int) *cobra.Command {
	return &cobra.Command{
		Use:   "lazy-pages [CRIU's options]",
		Short: "Serve one restore in place of criu lazy-pages",
		Long: `Serves one "criu restore --lazy-pages" and ends when all its memory is in place, like criu lazy-pages, whose options and
exit codes it has. The images are a plain folder, as criu dump wrote it, or the skeleton of a snapshot in a store.`,
		Example: `  thawd lazy-pages --images-dir /var/tmp/images --work-dir /var/tmp/work
  thawd lazy-pages -D /var/tmp/images -d --pidfile lazy-pages.pid -o lazy-pages.log -v4`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			// Without more descriptors it serves as many processes as it may have.
			_, _ = raiseFileLimit()
			setProcs()
			*code = lazypages.Run(args, cmd.OutOrStdout(), cmd.ErrOrStderr(), &lazypages.Options{Resolve: daemon.ResolveSkeleton})
			return nil
		},
	}
}
