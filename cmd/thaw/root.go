package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"thaw/checkpoint"
	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/pagestore"
)

// app is what the commands share: the flags that all have, and the streams.
type app struct {
	store, socket string
	criu, runc    string
	runcRoot      string
	json, quiet   bool
	verbose       bool

	stdin          *os.File
	stdout, stderr io.Writer

	exit int // exit code of a command that did its work, where that is not 0: that of a restored process
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "thaw",
		Short: "Freeze processes into snapshots, and thaw them in milliseconds",
		Long: `Thaw freezes processes and containers into snapshots, and thaws them: the process runs at once, and its memory follows,
the pages that it touches first.

Snapshots live in a page store, which keeps each page once. CRIU and runc do the freezing and restoring; thawd brings the
memory. thaw doctor says whether this host has what is needed.

` + exitCodeText(),
		Example: `  thaw doctor
  thaw snapshot create --pid 4711 --name web
  thaw restore web`,
		Version: cli.Version,
	}
	f := root.PersistentFlags()
	f.StringVar(&a.store, "store", cli.Env(cli.EnvStore, cli.DefaultStore), "folder of the page store ($"+cli.EnvStore+")")
	f.StringVar(&a.socket, "socket", cli.Env(cli.EnvSocket, cli.DefaultSocket), "path of thawd's control socket ($"+cli.EnvSocket+")")
	f.BoolVar(&a.json, "json", false, "print one JSON object, and failures as JSON, too")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "show no progress")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log to standard error what is done")
	root.AddCommand(newSnapshot(a), newRestore(a), newSessions(a), newTop(a), newRemote(a), newPeer(a), newTrace(a), newDoctor(a),
		newDeploy(a), newServe(a), newCall(a), newFreeze(a), newFunctions(a), newLogs(a), newRun(a))
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

// toolFlags adds the flags of commands that run CRIU and runc.
func (a *app) toolFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.criu, "criu", cli.Env(cli.EnvCRIU, ""), "path of CRIU, 4.2 or newer (default: the one in PATH) ($"+cli.EnvCRIU+")")
	f.StringVar(&a.runc, "runc", cli.Env(cli.EnvRunc, ""), "path of runc (default: the one in PATH) ($"+cli.EnvRunc+")")
	f.StringVar(&a.runcRoot, "runc-root", "", "folder of runc's state (default: runc's own)")
}

func (a *app) tools() *checkpoint.Tools {
	return &checkpoint.Tools{CRIU: a.criu, Runc: a.runc, StateDir: a.runcRoot, Logger: a.log()}
}

func (a *app) log() *slog.Logger {
	if !a.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// openStore opens the store, which has to be there. The caller closes it.
func (a *app) openStore() (*pagestore.Store, error) {
	return pagestore.Open(a.store, &pagestore.Options{Logger: a.log()})
}

// makeStore opens the store, and makes it if there is nothing yet. The caller closes it.
func (a *app) makeStore() (*pagestore.Store, error) { return cli.OpenStore(a.store, a.log()) }

func (a *app) client() *control.Client { return control.NewClient(a.socket) }

// progress returns a teller of progress for the step called name, and what ends it.
func (a *app) progress(name string) (func(pagestore.Progress), func()) {
	p := cli.NewProgress(a.stderr, name, a.quiet || a.json)
	return func(at pagestore.Progress) {
		if at.Stage == pagestore.StageSync {
			return
		}
		p.Set(at.DoneBytes, at.TotalBytes)
	}, p.Done
}

// print prints the result of a command: v as JSON, or what text writes.
func (a *app) print(v any, text func(w io.Writer)) error {
	if a.json {
		return json.NewEncoder(a.stdout).Encode(v)
	}
	text(a.stdout)
	return nil
}

// oneName returns Args for a command that takes the name of a snapshot.
func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes the name of one snapshot, and got %d arguments", cmd.CommandPath(), len(args))
	}
	return nil
}
