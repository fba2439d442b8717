package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/function/gateway"
)

func newFreeze(a *app) *cobra.Command {
	var api, parameters string
	cmd := &cobra.Command{
		Use:   "freeze APP/OBJECT",
		Short: "Take a memory snapshot of a deployed function now",
		Long: `Has the function server (thaw serve) take a snapshot of a function's current version, and of its template if that has none, and
returns when it can be restored. Without it that is done behind the first boots.`,
		Example: `  thaw freeze sentence-transformers/Embedder
  thaw freeze translator/Model --parameters '{"language": "en"}'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.freezeFunction(cmd.Context(), api, parameters, args[0])
		},
	}
	apiFlag(cmd, &api)
	cmd.Flags().StringVar(&parameters, "parameters", "", "what the class is constructed with, as a JSON object")
	return cmd
}

func (a *app) freezeFunction(ctx context.Context, api, parameters, target string) error {
	app, object, ok := strings.Cut(target, "/")
	if !ok || app == "" || object == "" {
		return cli.Usagef("%q names no function: want APP/OBJECT", target)
	}
	c := gateway.NewClient(api)
	defer c.Close()
	given, err := parametersOf(parameters)
	if err != nil {
		return err
	}
	frozen, err := c.Freeze(ctx, &gateway.FreezeRequest{App: app, Object: object, Parameters: given})
	if err != nil {
		return a.explainCall(err)
	}
	return a.print(frozen, func(w io.Writer) {
		fmt.Fprintf(w, "snapshot %s, %s of memory, %s of it new, in %v; the process stood still for %v\n", frozen.Snapshot, cli.Bytes(frozen.Bytes), cli.Bytes(frozen.NewBytes),
			rounded(frozen.Took), rounded(frozen.Stopped))
		if frozen.Template != "" {
			fmt.Fprintf(w, "taken on top of %s\n", frozen.Template)
		}
		for _, g := range frozen.Generators {
			fmt.Fprintf(w, "each restore repeats the numbers of %s: thaw.register_rng\n", g)
		}
	})
}

// rounded returns seconds for people.
func rounded(seconds float64) time.Duration {
	return time.Duration(seconds * 1e9).Round(time.Millisecond)
}
