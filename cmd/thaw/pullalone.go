package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/tier"
)

// pullAlone brings a snapshot from an object store without thawd.
func (a *app) pullAlone(ctx context.Context, name pagestore.Name, p *pullFlags) (report *control.PullReport, err error) {
	err = withBucket(ctx, p.objectStore, func(b blob.Bucket) error {
		report, err = a.pullFrom(ctx, b, name, p)
		return err
	})
	return report, err
}

// pullFrom brings it from one place.
func (a *app) pullFrom(ctx context.Context, b blob.Bucket, name pagestore.Name, p *pullFlags) (*control.PullReport, error) {
	places := func(tier.Key) []tier.Place { return []tier.Place{{Reader: b, Tier: 1}} }
	origin := tier.NewOrigin(tier.OriginOptions{Places: places})
	defer origin.Close()
	made, err := a.makeStore()
	if err != nil {
		return nil, err
	}
	if err := made.Close(); err != nil {
		return nil, err
	}
	store, err := pagestore.Open(a.store, &pagestore.Options{Origin: origin, Logger: a.log()})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	watch := &arrival{app: a, name: name, mode: p.mode(), stall: p.stall, store: store}
	report := &control.PullReport{Snapshot: name.String()}
	start := time.Now()
	err = watch.during(ctx, func() error { return lastError(origin) }, func(ctx context.Context) error {
		return pullAs(ctx, store, places, origin, name, p.mode(), report)
	})
	if err != nil {
		return nil, err
	}
	here, err := localOf(store, name)
	report.StoredPages, report.LocalPages, report.Took = here.StoredPages, here.LocalPages, time.Since(start).Seconds()
	return report, err
}

// pullAs makes a stub, unless the snapshot is here already, and brings what the mode says.
func pullAs(ctx context.Context, store *pagestore.Store, places tier.Places, origin *tier.Origin, name pagestore.Name, mode control.PullMode, report *control.PullReport) error {
	switch r, err := tier.Pull(ctx, store, places, name, &tier.PullOptions{Origin: origin}); {
	case errors.Is(err, pagestore.ErrExists):
		report.Here = true
	case err != nil:
		return err
	default:
		report.Descriptor, report.Source, report.MetaBytes = r.Descriptor.String(), r.Place, uint64(r.MetaBytes)
		report.Resolved, report.Adopted = r.Resolved.Seconds(), r.Adopted.Seconds()
	}
	switch mode {
	case control.PullWorkingSet:
		return tier.Warm(ctx, store, name)
	case control.PullWhole:
		return tier.Mirror(ctx, store, name)
	}
	return nil
}

// lastError returns what a place said last of those that do not deliver.
func lastError(origin *tier.Origin) error {
	for _, s := range origin.Stats().Sources {
		if s.LastError != nil {
			return fmt.Errorf("%s: %w", s.Source, s.LastError)
		}
	}
	return nil
}
