package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/function/gateway"
)

func newCall(a *app) *cobra.Command {
	var api, parameters string
	cmd := &cobra.Command{
		Use:   "call APP/OBJECT[.METHOD] [ARGUMENTS]",
		Short: "Call a function, and print what it returns",
		Long: `Calls a method of a class, or a function, on the function server (thaw serve). ARGUMENTS are a JSON object, the arguments by
name, or a JSON array, the arguments in order; - reads them from standard input. What the method returns is printed as JSON; with --json
also which instance it was, and what the call has waited for.

An exception of the function's author is shown with the author's traceback, and the exit code is 1.`,
		Example: `  thaw call sentence-transformers/Embedder.embed '{"sentences": ["a sentence"]}'
  thaw call tools/add '[1, 2]'
  thaw call translator/Model.translate '["Hallo"]' --parameters '{"language": "en"}'`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.call(cmd.Context(), api, parameters, args) },
	}
	apiFlag(cmd, &api)
	cmd.Flags().StringVar(&parameters, "parameters", "", "what the class is constructed with, as a JSON object")
	return cmd
}

func (a *app) call(ctx context.Context, api, parameters string, args []string) error {
	app, object, ok := strings.Cut(args[0], "/")
	if !ok || app == "" || object == "" {
		return cli.Usagef("%q names no function: want APP/OBJECT or APP/OBJECT.METHOD", args[0])
	}
	object, method, _ := strings.Cut(object, ".")
	arguments, err := a.arguments(args[1:])
	if err != nil {
		return err
	}
	given, err := parametersOf(parameters)
	if err != nil {
		return err
	}
	c := gateway.NewClient(api)
	defer c.Close()
	answer, err := c.Call(ctx, app, object, method, arguments, given)
	if err != nil {
		return a.explainCall(err)
	}
	return a.print(answer, func(w io.Writer) { fmt.Fprintf(w, "%s\n", answer.Value) })
}

// arguments returns the body of a call: nil without an argument.
func (a *app) arguments(args []string) (json.RawMessage, error) {
	if len(args) == 0 {
		return nil, nil
	}
	text := []byte(args[0])
	if args[0] == "-" {
		var err error
		if text, err = io.ReadAll(a.stdin); err != nil {
			return nil, fmt.Errorf("read arguments: %w", err)
		}
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, cli.Usagef("ARGUMENTS are not JSON: %v", err)
	}
	switch v.(type) {
	case map[string]any, []any:
		return text, nil
	}
	return nil, cli.Usagef("ARGUMENTS are neither a JSON object, the arguments by name, nor a JSON array, the arguments in order")
}

// parametersOf returns what --parameters says: nil if it is not there.
func parametersOf(flag string) (json.RawMessage, error) {
	if flag == "" {
		return nil, nil
	}
	var v any
	if err := json.Unmarshal([]byte(flag), &v); err != nil {
		return nil, cli.Usagef("--parameters is not JSON: %v", err)
	}
	if _, ok := v.(map[string]any); !ok {
		return nil, cli.Usagef(`--parameters is no JSON object, such as {"language": "en"}`)
	}
	return json.RawMessage(flag), nil
}

// explainCall shows an exception of the author's as Python would, and says whose failure another one is.
func (a *app) explainCall(err error) error {
	var e *gateway.Error
	if !errors.As(err, &e) {
		if errors.Is(err, fs.ErrPermission) {
			return &cli.Error{Code: cli.Permission, Err: err, Hint: "the socket belongs to the user who runs thaw serve: run as that user, or as root"}
		}
		return err
	}
	out := &cli.Error{Code: cli.Failure, Err: err}
	switch e.Code {
	case gateway.CodeNotDeployed:
		out.Code, out.Hint = cli.NotFound, "thaw functions shows what is deployed"
	case gateway.CodeRequest, gateway.CodeArgument:
		out.Code = cli.Usage
	case gateway.CodeClosing:
		out.Code = cli.Busy
	}
	if e.Traceback == "" {
		return out
	}
	if a.json {
		out.Err = fmt.Errorf("%w\n%s", err, e.Traceback)
		return out
	}
	_, printErr := io.WriteString(a.stderr, e.Traceback)
	return errors.Join(out, printErr)
}
