package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"thaw/cmd/internal/cli"
	"thaw/function/sdk"
)

// runFlags are the flags of run.
type runFlags struct {
	python     string
	args       string
	parameters []string
}

func newRun(a *app) *cobra.Command {
	r := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run FILE::OBJECT[.METHOD]",
		Short: "Call a function here, without a server",
		Long: `Calls a function, or a method of a class, in a Python of this host: no container, no snapshot, and the hooks in the same order
as everywhere. The result is printed as JSON; what the code prints goes to standard error. The exit code is Python's.`,
		Example: `  thaw run app.py::Embedder.embed --json-args '[["a sentence", "another"]]'
  thaw run app.py::hello --json-args '{"name": "you"}' --python ~/venv/bin/python`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%s takes one FILE::OBJECT.METHOD, and got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.runLocal(r, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&r.python, "python", "python3", "Python to run it with, 3.10 or newer")
	f.StringVar(&r.args, "json-args", "", "arguments in JSON: a list by position, or an object by name; for a web endpoint the body")
	f.StringArrayVar(&r.parameters, "param", nil, "parameter of the class, NAME=VALUE; may be repeated")
	return cmd
}

// runLocal becomes the Python that makes the call. It returns only if that fails.
func (a *app) runLocal(r *runFlags, what string) error {
	if file, _, ok := strings.Cut(what, "::"); !ok {
		return cli.Usagef("%s does not say what to call: FILE::OBJECT.METHOD", what)
	} else if _, err := os.Stat(file); err != nil {
		return err
	}
	python, err := exec.LookPath(r.python)
	if err != nil {
		return &cli.Error{Code: cli.Missing, Err: err, Hint: "--python names one"}
	}
	files, err := sdkFiles()
	if err != nil {
		return err
	}
	// Not the folder of the functions: this command is for everybody.
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("folder for the SDK: %w", err)
	}
	dir, _, err := sdk.Unpack(files, filepath.Join(cache, "thaw", "sdk"))
	if err != nil {
		return err
	}
	if err := setPythonPath(dir); err != nil {
		return err
	}
	err = unix.Exec(python, r.command(python, what), os.Environ())
	return &os.PathError{Op: "run", Path: python, Err: err}
}

func (r *runFlags) command(python, what string) []string {
	out := []string{python, "-m", "thaw", "run", what}
	if r.args != "" {
		out = append(out, "--json", r.args)
	}
	for _, p := range r.parameters {
		out = append(out, "--param", p)
	}
	return out
}

// setPythonPath puts the folder before what the user has there.
func setPythonPath(dir string) error {
	if before := os.Getenv("PYTHONPATH"); before != "" {
		dir += string(os.PathListSeparator) + before
	}
	return os.Setenv("PYTHONPATH", dir)
}
