package main

import (
	"flag"
	"os"
	"testing"

	"thaw/cmd/internal/cli"
	"thaw/cmd/internal/clidoc"
	"thaw/internal/testenv"
)

// TestMain is also what thawd runs itself with: the test binary runs itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == tracerCommand {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	testenv.Main(m)
}

var update = flag.Bool("update", false, "write docs/cli/thawd.md instead of comparing it")

func TestReferenceIsWhatTheProgramSays(t *testing.T) {
	for _, variable := range []string{cli.EnvStore, cli.EnvSocket} {
		t.Setenv(variable, "")
	}
	clidoc.Check(t, newRoot(nil, new(int)), "../../docs/cli/thawd.md", *update)
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	clidoc.CheckHelp(t, newRoot(nil, new(int)))
}
