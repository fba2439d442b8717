package main

import (
	"log/slog"

	"thaw/cmd/internal/cli"
	"thaw/daemon"
	"thaw/node"
	"thaw/pagestore"
	"thaw/restore"
)

// newDaemon makes the daemon that the flags describe.
func newDaemon(o *serveOptions, store *pagestore.Store, n *node.Node, g restore.Guard, log *slog.Logger) (*daemon.Daemon, error) {
	readAhead, err := cli.ParseBytes(o.readAhead)
	if err != nil {
		return nil, err
	}
	failure, err := parseFailure(o.badPages)
	if err != nil {
		return nil, err
	}
	wait, err := restore.ParseWaitPolicy(o.wait)
	if err != nil {
		return nil, cli.Usagef("--wait: %v", err)
	}
	opts := &daemon.Options{
		Server: restore.ServerOptions{Readers: o.readers, Wait: wait},
		Store:  store, RunDir: o.runDir, Version: cli.Version, ConnectTimeout: o.connectTimeout,
		MaxSessions: o.maxSessions, History: o.history, ReadAhead: int64(readAhead), Hold: o.hold, HoldFar: o.holdFar, RecordShare: o.recordShare, Guard: g, Failure: failure, Logger: log,
	}
	if n != nil {
		opts.Remote = n
	}
	if o.recordShare < 0 || o.recordShare > 1 {
		return nil, cli.Usagef("--record-share is %g: it must be from 0 to 1", o.recordShare)
	}
	// On the command line 0 means none, and in Options the default.
	if opts.ReadAhead == 0 {
		opts.ReadAhead = -1
	}
	if opts.Hold == 0 {
		opts.Hold = -1
	}
	if opts.HoldFar == 0 {
		opts.HoldFar = -1
	}
	if opts.RecordShare == 0 {
		opts.RecordShare = -1
	}
	if opts.History == 0 {
		opts.History = -1
	}
	return daemon.New(opts)
}

// parseFailure reads what FailurePolicy.String writes.
func parseFailure(text string) (restore.FailurePolicy, error) {
	for _, p := range []restore.FailurePolicy{restore.FailurePoison, restore.FailureHold, restore.FailureKill} {
		if text == p.String() {
			return p, nil
		}
	}
	return 0, cli.Usagef("--bad-pages %s is none of poison, hold and kill", text)
}
