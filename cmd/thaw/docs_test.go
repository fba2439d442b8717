package main

import (
	"flag"
	"testing"

	"thaw/cmd/internal/cli"
	"thaw/cmd/internal/clidoc"
)

var update = flag.Bool("update", false, "write docs/cli/thaw.md instead of comparing it")

func TestReferenceIsWhatTheProgramSays(t *testing.T) {
	// The defaults in the help are those of a user who has set none of them.
	for _, variable := range []string{cli.EnvStore, cli.EnvSocket, cli.EnvCRIU, cli.EnvRunc, cli.EnvState, cli.EnvRoot, cli.EnvAPI, cli.EnvObjectStore} {
		t.Setenv(variable, "")
	}
	clidoc.Check(t, newRoot(&app{}), "../../docs/cli/thaw.md", *update)
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	clidoc.CheckHelp(t, newRoot(&app{}))
}
