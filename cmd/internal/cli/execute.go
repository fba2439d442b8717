package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Execute runs the command line. What is wrong with the command line itself, before any command has begun, is an error
// with code Usage.
func Execute(ctx context.Context, root *cobra.Command) error {
	begun := false
	Prepare(root)
	markBegin(root, &begun)
	err := root.ExecuteContext(ctx)
	if err != nil && !begun {
		return &Error{Code: Usage, Err: err}
	}
	return err
}

// Prepare completes a command tree: it adds the commands that cobra has for all programs.
func Prepare(root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	for _, group := range root.Commands() {
		if group.HasSubCommands() && !group.Runnable() {
			refuseUnknown(group)
		}
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			cmd.Example = fmt.Sprintf("  source <(%s completion bash)", root.Name())
			for _, shell := range cmd.Commands() {
				shell.Example = completionExample(root.Name(), shell.Name())
			}
		case "help":
			cmd.Example = fmt.Sprintf("  %s help %s", root.Name(), root.Commands()[0].Name())
		}
	}
}

func completionExample(program, shell string) string {
	switch shell {
	case "fish":
		return fmt.Sprintf("  %s completion fish | source", program)
	case "powershell":
		return fmt.Sprintf("  %s completion powershell | Out-String | Invoke-Expression", program)
	default:
		return fmt.Sprintf("  source <(%s completion %s)", program, shell)
	}
}

// refuseUnknown makes a command that only holds others fail on a name that none of them has, as the root does. By default
// it would print its help and succeed.
func refuseUnknown(group *cobra.Command) {
	group.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		}
		return nil
	}
	group.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// markBegin makes every command of the tree note that it has begun.
func markBegin(cmd *cobra.Command, begun *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*begun = true
			return run(cmd, args)
		}
	}
	for _, child := range cmd.Commands() {
		markBegin(child, begun)
	}
}

// UntilInterrupted returns a context that ends with SIGINT or SIGTERM. After the first one the next kills the program, as
// it would have without us.
func UntilInterrupted() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
