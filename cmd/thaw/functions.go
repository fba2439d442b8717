package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/function/registry"
	"thaw/function/version"
)

func newFunctions(a *app) *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use:   "functions [APP]",
		Short: "Show deployed apps, their versions and snapshots",
		Long: `Shows what is deployed: the versions of each app, what changed from one to the next, and which snapshots serve which version:
how old and how large they are, how often they were used, and how much faster a boot from one is than a cold boot (the median
of the last cold boots over that of the last restored ones). A star marks the version that new instances get.`,
		Example: `  thaw functions
  thaw functions sentence-transformers
  thaw functions --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.functions(state, args) },
	}
	stateFlag(cmd, &state)
	cmd.AddCommand(newFunctionsRemove(a))
	return cmd
}

func (a *app) functions(state string, names []string) error {
	reg, err := registry.Open(state, nil)
	if errors.Is(err, registry.ErrNotRegistry) && len(names) == 0 {
		return a.printApps(nil) // nothing was ever deployed
	} else if err != nil {
		return err
	}
	if len(names) == 0 {
		if names, err = reg.Apps(); err != nil {
			return err
		}
	}
	var apps []*registry.App
	for _, name := range names {
		found, err := reg.App(name)
		if err != nil {
			return err
		}
		apps = append(apps, found)
	}
	return a.printApps(apps)
}

func (a *app) printApps(apps []*registry.App) error {
	out := make([]listedApp, 0, len(apps))
	for _, app := range apps {
		out = append(out, listApp(app))
	}
	return a.print(map[string]any{"apps": out}, func(w io.Writer) {
		if len(out) == 0 {
			fmt.Fprintln(w, "nothing is deployed: thaw deploy FILE")
		}
		for i := range out {
			out[i].write(w, time.Now())
		}
	})
}

func newFunctionsRemove(a *app) *cobra.Command {
	var state, key string
	cmd := &cobra.Command{
		Use:   "rm APP [--version KEY]",
		Short: "Remove an app, or an old version of one",
		Long: `Removes an app with all its versions, or one version that is not the current one. Instances that run go on. Snapshots stay in
the page store: thaw snapshot rm removes them.`,
		Example: `  thaw functions rm sentence-transformers --version 3f2a0c9d1e2f
  thaw functions rm sentence-transformers`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%s takes the name of one app, and got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.removeFunctions(cmd.Context(), state, args[0], key)
		},
	}
	stateFlag(cmd, &state)
	cmd.Flags().StringVar(&key, "version", "", "key of the version, or its beginning")
	return cmd
}

// removedFunctions is what functions rm prints.
type removedFunctions struct {
	App  string        `json:"app"`
	Keys []version.Key `json:"keys"`
	// Snapshots are the names in the page store of what is left there.
	Snapshots []string `json:"snapshots"`
}

func (a *app) removeFunctions(ctx context.Context, state, name, prefix string) error {
	reg, err := registry.Open(state, nil)
	if err != nil {
		return err
	}
	found, err := reg.App(name)
	if err != nil {
		return err
	}
	gone := found.Versions
	if prefix != "" {
		entry, err := findVersion(found, prefix)
		if err != nil {
			return err
		}
		gone = []registry.Entry{*entry}
		err = reg.Remove(ctx, name, entry.Key)
		if err != nil {
			return err
		}
	} else if err := reg.RemoveApp(ctx, name); err != nil {
		return err
	}
	out := removedFunctions{App: name, Snapshots: []string{}}
	for _, e := range gone {
		out.Keys = append(out.Keys, e.Key)
		if e.Stats == nil {
			continue
		}
		for i := range e.Stats.Snapshots {
			out.Snapshots = append(out.Snapshots, e.Stats.Snapshots[i].Name)
		}
	}
	return a.print(out, func(w io.Writer) {
		for _, k := range out.Keys {
			fmt.Fprintf(w, "removed %s, version %s\n", name, k.Short())
		}
		for _, s := range out.Snapshots {
			fmt.Fprintf(w, "its snapshot is still there: thaw snapshot rm %s\n", s)
		}
	})
}

// findVersion returns the version whose key begins so.
func findVersion(app *registry.App, prefix string) (*registry.Entry, error) {
	var found *registry.Entry
	for i := range app.Versions {
		if key := app.Versions[i].Key.String(); len(prefix) <= len(key) && key[:len(prefix)] == prefix {
			if found != nil {
				return nil, cli.Usagef("several versions of %s begin with %s: give more of the key", app.Name, prefix)
			}
			found = &app.Versions[i]
		}
	}
	if found == nil {
		return nil, fmt.Errorf("version %s of app %s: %w", prefix, app.Name, registry.ErrNotFound)
	}
	return found, nil
}
