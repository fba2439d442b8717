package main

import (
	"flag"
	"testing"

	"thaw/cmd/internal/cli"
	"thaw/cmd/internal/clidoc"
)

var update = flag.Bool("update", false, "write docs/cli/uffdbench.md instead of comparing it")

func TestReferenceIsWhatTheProgramSays(t *testing.T) {
	// The defaults in the help are those of a user who has set none of them.
	t.Setenv(cli.EnvCRIU, "")
	clidoc.Check(t, newRoot(&app{}), "../../docs/cli/uffdbench.md", *update)
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	clidoc.CheckHelp(t, newRoot(&app{}))
}
