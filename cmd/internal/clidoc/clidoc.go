// Package clidoc writes the reference of a command line program from its command tree, so that it cannot say anything
// else than the program's own help.
package clidoc

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"thaw/cmd/internal/cli"
)

// Markdown returns the reference of all commands of the tree, as one document.
func Markdown(root *cobra.Command) ([]byte, error) {
	cli.Prepare(root)
	var out bytes.Buffer
	fmt.Fprintf(&out, "# %s\n\nThis is what `%s --help` says of each command. Do not edit it: it is made from the commands themselves\n(`go test ./cmd/%s -update`), and a test compares the two.\n\n",
		root.Name(), root.Name(), root.Name())
	err := write(&out, root)
	return out.Bytes(), err
}

func write(out *bytes.Buffer, cmd *cobra.Command) error {
	cmd.DisableAutoGenTag = true
	if err := doc.GenMarkdownCustom(cmd, out, anchor); err != nil {
		return err
	}
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() && !child.IsAdditionalHelpTopicCommand() {
			if err := write(out, child); err != nil {
				return err
			}
		}
	}
	return nil
}

// anchor turns the name of a file that cobra would link to into the heading in our one document.
func anchor(file string) string {
	return "#" + strings.ReplaceAll(strings.TrimSuffix(file, ".md"), "_", "-")
}

// Check fails the test unless the file at path is the reference of the tree; with update it writes the file.
func Check(t *testing.T, root *cobra.Command, path string, update bool) {
	t.Helper()
	want, err := Markdown(root)
	if err != nil {
		t.Fatal(err)
	}
	if update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: make it with -update", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not what the program says (-program +file); make it anew with -update:\n%s", path, diff)
	}
}

// CheckHelp fails the test unless every command says in a sentence what it does, and shows how.
func CheckHelp(t *testing.T, root *cobra.Command) {
	t.Helper()
	cli.Prepare(root)
	checkHelp(t, root)
}

func checkHelp(t *testing.T, cmd *cobra.Command) {
	t.Helper()
	if cmd.Short == "" || cmd.Long == "" {
		t.Errorf("%s does not say what it does", cmd.CommandPath())
	}
	if !strings.Contains(cmd.Example, cmd.Root().Name()+" ") {
		t.Errorf("%s has no example", cmd.CommandPath())
	}
	for _, child := range cmd.Commands() {
		checkHelp(t, child)
	}
}
