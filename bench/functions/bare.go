package functions

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"thaw/control"
	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/function/rootfs"
	"thaw/function/sdk"
	"thaw/pagestore"
)

// A bare restores what a place has frozen with runc, until its process runs, and no further: nothing of its memory comes but what it touches, and
// nobody boots it. It is the least that a restore of the same skeleton, into the same kind of container, costs.
type bare struct {
	host  *instance.Host
	store *pagestore.Store
	lease *registry.Lease
	spec  instance.Spec
	name  pagestore.Name
}

// newBare prepares for a snapshot of the app's current version.
func newBare(ctx context.Context, p *Place, app, snapshot string) (_ *bare, err error) {
	b := &bare{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.name, err = pagestore.ParseName(snapshot); err != nil {
		return nil, err
	}
	reg, err := registry.Open(p.state(), nil)
	if err != nil {
		return nil, err
	}
	key, err := reg.Current(app)
	if err != nil {
		return nil, err
	}
	if b.lease, err = reg.Lease(app, key); err != nil {
		return nil, err
	}
	record := b.lease.Record()
	root, err := rootfs.OpenFolder(record.Root.Path)
	if err != nil {
		return nil, err
	}
	if b.store, err = pagestore.Open(p.store(), nil); err != nil {
		return nil, err
	}
	folder := sdk.Folder(reg.SDKs(), record.Runtime.SDKDigest)
	b.spec = instance.Spec{Name: "bare", Root: root, Code: b.lease.Code(), SDK: folder}
	b.host, err = instance.Open(ctx, instance.HostOptions{
		Dir: filepath.Join(p.dir, "bare"), Layers: filepath.Join(p.state(), "instances", "layers"), CRIU: p.parts.CRIU, Runc: p.parts.Runc,
		Store: b.store, Thawd: p.thawd, SDK: folder, Ask: askForNothing,
	})
	return b, err
}

// askForNothing has thawd bring what is touched, and nothing else.
func askForNothing(r *control.SessionRequest) {
	r.Stream, r.WorkingSet, r.Binds = control.StreamNone, control.WorkingSetIgnored, nil
}

// restore restores once, and returns how long runc took until the process ran.
func (b *bare) restore(ctx context.Context) (time.Duration, error) {
	i, err := b.host.Restore(ctx, b.spec, b.name)
	if err != nil {
		return 0, fmt.Errorf("bare restore: %w", err)
	}
	took := i.Timings().Runtime
	return took, i.Close()
}

// Close gives all back.
func (b *bare) Close() (err error) {
	if b.host != nil {
		err = b.host.Close()
	}
	if b.store != nil {
		err = errors.Join(err, b.store.Close())
	}
	if b.lease != nil {
		err = errors.Join(err, b.lease.Close())
	}
	return err
}
