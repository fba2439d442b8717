package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/objectstore"
)

// objectStoreFlag adds the flag of commands that work on an object store.
func objectStoreFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "object-store", cli.Env(cli.EnvObjectStore, ""),
		"where snapshots are kept: s3://BUCKET[/PREFIX][?endpoint=URL&region=R], gs://BUCKET or file:///FOLDER ($"+cli.EnvObjectStore+")")
}

// openBucket opens the object store that a URL names. The caller calls the function to let it go.
func openBucket(ctx context.Context, rawURL string) (blob.Bucket, func(), error) {
	if rawURL == "" {
		return nil, nil, cli.Usagef("no object store is named: --object-store or %s does", cli.EnvObjectStore)
	}
	b, err := objectstore.Open(ctx, rawURL)
	if err != nil {
		return nil, nil, err
	}
	return b, func() {
		if c, ok := b.(io.Closer); ok {
			_ = c.Close() // of idle connections
		}
	}, nil
}

// withBucket calls fn with the object store that a URL names, and says of its errors what they mean there.
func withBucket(ctx context.Context, rawURL string, fn func(blob.Bucket) error) error {
	b, done, err := openBucket(ctx, rawURL)
	if err != nil {
		return err
	}
	defer done()
	return atBucket(fn(b))
}

// atBucket gives errors of an object store their code and advice, where those of the store on this machine have others.
func atBucket(err error) error {
	explained := func(code cli.Code, hint string) error { return &cli.Error{Code: code, Err: err, Hint: hint} }
	var unreachable *net.OpError
	var failed *url.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, fs.ErrPermission):
		return err
	case errors.Is(err, pagestore.ErrNotFound):
		return explained(cli.NotFound, "thaw remote ls lists what is there")
	case errors.Is(err, pagestore.ErrVersion):
		return explained(cli.Corrupt, "it was pushed by a newer thaw: use that one")
	case errors.Is(err, errors.ErrUnsupported):
		return err
	case errors.As(err, &unreachable), errors.As(err, &failed):
		return explained(cli.Missing, "the object store cannot be reached: is its address right (--object-store, "+cli.EnvObjectStore+"), and does it run?")
	}
	return err
}

// someNames returns Args for a command that takes the names of snapshots.
func someNames(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s takes the names of snapshots", cmd.CommandPath())
	}
	return nil
}

// parseNames reads names of snapshots.
func parseNames(args []string) ([]pagestore.Name, error) {
	all := make([]pagestore.Name, 0, len(args))
	for _, arg := range args {
		name, err := pagestore.ParseName(arg)
		if err != nil {
			return nil, err
		}
		all = append(all, name)
	}
	return all, nil
}
