package daemon

import (
	"context"
	"errors"

	"thaw/control"
	"thaw/pagestore"
)

// snapshot leases a snapshot, and has it brought if it is elsewhere: what a restore needs beside memory, nothing more.
func (d *Daemon) snapshot(ctx context.Context, name string) (*origin, error) {
	o, err := openSnapshot(d.opts.Store, name)
	// Twice: between the pull and the lease it may be removed, or evicted.
	for try := 0; try < 2 && d.opts.Remote != nil && errors.Is(err, pagestore.ErrNotFound); try++ {
		parsed, nameErr := pagestore.ParseName(name)
		if nameErr != nil {
			return nil, nameErr
		}
		report, pullErr := d.opts.Remote.Pull(ctx, parsed, control.PullOnDemand)
		if pullErr != nil {
			return nil, pullError(pullErr)
		}
		d.opts.Logger.Info("snapshot comes from elsewhere", "snapshot", name, "source", report.Source, "seconds", report.Took)
		o, err = openSnapshot(d.opts.Store, name)
	}
	return o, err
}

// pullError is an error of a pull as the API tells it.
func pullError(err error) error {
	for _, c := range apiCauses {
		if errors.Is(err, c.err) {
			return apiError(err)
		}
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &control.Error{
		Code: control.CodeElsewhere, Message: err.Error(),
		Hint: "thaw top shows the places and what is wrong with them; try again when they answer",
	}
}

// Pull brings a snapshot that is elsewhere, or more of one that is here.
func (d *Daemon) Pull(ctx context.Context, namespace, snapshot string, r *control.PullRequest) (*control.PullReport, error) {
	if d.opts.Remote == nil {
		return nil, errNoTiers
	}
	name := pagestore.Name{Namespace: namespace, Snapshot: snapshot}
	if err := name.Validate(); err != nil {
		return nil, apiError(err)
	}
	report, err := d.opts.Remote.Pull(ctx, name, r.Mode)
	if err != nil {
		return nil, pullError(err)
	}
	return report, nil
}

// Tiers tells of the places beyond the store.
func (d *Daemon) Tiers() (*control.Tiers, error) {
	if d.opts.Remote == nil {
		return nil, errNoTiers
	}
	return d.opts.Remote.Tiers(), nil
}

var errNoTiers = &control.Error{
	Code: control.CodeNoTiers, Message: "this thawd knows no place beyond its store",
	Hint: "start it with --object-store, --peers or --gossip",
}

// tiers is where the pages of a session's snapshot come from.
type tiers struct {
	local pagestore.Local                          // when the session was made
	since func() (peer, objects control.TierCount) // what has come since
}

// tiersOf begins to count; nil if all is here for good.
func (d *Daemon) tiersOf(o *origin) (*tiers, error) {
	if d.opts.Remote == nil || o.snap == nil || o.snap.Remote() == nil {
		return nil, nil
	}
	local, err := o.snap.Local()
	if err != nil {
		return nil, err
	}
	since, err := d.opts.Remote.Since(o.snap)
	if err != nil {
		return nil, err
	}
	return &tiers{local, since}, nil
}

// partly reports whether pages are missing here.
func (t *tiers) partly() bool { return t != nil && t.local.LocalPages < t.local.StoredPages }

// report says where pages came from; nil for nil.
func (t *tiers) report() *control.SessionTiers {
	if t == nil {
		return nil
	}
	r := &control.SessionTiers{StoredPages: t.local.StoredPages, LocalPages: t.local.LocalPages}
	r.Peer, r.ObjectStore = t.since()
	r.HitRatio = 1
	if all := r.LocalPages*pagestore.PageSize + r.Peer.Bytes + r.ObjectStore.Bytes; all > 0 {
		r.HitRatio = 1 - float64(r.ObjectStore.Bytes)/float64(all)
	}
	return r
}
