package daemon

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/restore"
)

// Options are the settings of a [Daemon].
type Options struct {
	// Store is where snapshots come from. The daemon only reads it, and does not close it. Required.
	Store *pagestore.Store

	// RunDir is where work folders are made for sessions whose client names none. Required; made if it is not there.
	RunDir string

	// Version is what Health tells. Default: "devel".
	Version string

	// ConnectTimeout is how long a session waits for its runtime to hand over a process. Default: one minute; a runtime
	// does so within a second, unless there is much that cannot be restored lazily.
	ConnectTimeout time.Duration

	// MaxSessions bounds the sessions that have not ended. Default: 1024; each holds about ten descriptors.
	MaxSessions int

	// History is how many ended sessions stay visible. Default: 64. Negative: none.
	History int

	// ReadAhead bounds, in bytes, what is read of a snapshot before its runtime has connected. Default: 4 GiB; it goes to
	// the page cache, where the kernel can take it back. Negative: nothing.
	ReadAhead int64

	// Hold bounds how long processes are held, before they run, for the pages that they must have by the snapshot's working set.
	// Default: restore.DefaultHold. Negative: not at all.
	Hold time.Duration

	// HoldFar is Hold of sessions whose snapshot is not all here. Default: restore.DefaultHoldFar. Negative: not at all.
	HoldFar time.Duration

	// RecordShare is the share of restores of snapshots, from 0 to 1, in which the recorder watches what is touched, for the working sets
	// to learn. They are slower: each page that is not in the set faults by itself. Of a snapshot
	// with fewer than three recordings it is a quarter. Default: 0.02. Negative: none.
	RecordShare float64

	// Server says how the sessions' faults are waited for, and with how many threads. The defaults need no tuning.
	Server restore.ServerOptions

	// Remote knows places beyond the store. Default: there are none, and a session for a snapshot that is not here is refused.
	Remote Remote

	// Failure says what becomes of pages that cannot be had. Default: restore.FailurePoison.
	Failure restore.FailurePolicy

	// Guard holds every process that is served, for the case that thawd is killed. Default: none, and then a process
	// that still misses memory reads zeros in its place if that happens. See [StartGuardian].
	Guard restore.Guard

	// Logger gets a line when a session begins and when it ends, and what the layers below have to say. Default: none.
	Logger *slog.Logger
}

// A Remote brings snapshots that are elsewhere to the store. It is safe for concurrent use.
type Remote interface {
	// Pull brings a snapshot, and as much of its memory as the mode says; of one that is here only the memory. The error wraps
	// [pagestore.ErrNotFound] if no place knows the name.
	Pull(ctx context.Context, name pagestore.Name, mode control.PullMode) (*control.PullReport, error)
	// Since returns a function that says what has come of a snapshot's pages since now, from peers and from the object store.
	Since(snap *pagestore.Snapshot) (func() (peer, store control.TierCount), error)
	// Restoring says that a restore has begun here; done, which may be called more than once, that it is over, or needs little any more. Meanwhile
	// what nobody waits for is put off.
	Restoring() (done func())
	// Tiers tells of the places.
	Tiers() *control.Tiers
}

func (o *Options) setDefaults() error {
	switch {
	case o.Store == nil:
		return errors.New("a daemon needs a page store")
	case o.RunDir == "":
		return errors.New("a daemon needs a folder for work folders")
	}
	dir, err := filepath.Abs(o.RunDir)
	if err != nil {
		return err
	}
	o.RunDir = dir
	if o.Version == "" {
		o.Version = "devel"
	}
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = time.Minute
	}
	if o.MaxSessions <= 0 {
		o.MaxSessions = 1024
	}
	if o.RecordShare == 0 {
		o.RecordShare = 0.02
	}
	if o.HoldFar == 0 {
		o.HoldFar = restore.DefaultHoldFar
	}
	if o.History == 0 {
		o.History = 64
	}
	if o.ReadAhead == 0 {
		o.ReadAhead = 4 << 30
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
