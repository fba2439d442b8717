package tier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// PullMode is how much of a snapshot Pull brings.
type PullMode uint8

// The modes.
const (
	// OnDemand brings what a restore needs besides memory. The store's Origin brings pages when they are wanted.
	OnDemand PullMode = iota
	// WorkingSetToo brings the pages that a restore wants first, too.
	WorkingSetToo
	// Whole brings everything, so that the places are not needed any more.
	Whole
)

// PullOptions change how Pull works.
type PullOptions struct {
	Mode PullMode
	// Origin, if it is set, is that of the store: it begins to bring the hot object while the rest is on its way.
	Origin *Origin
	// Digest, if it is not zero, is the descriptor that the name has to lead to: what other places say does not count.
	Digest  pagestore.Digest
	Resolve ResolveOptions
	// TempDir is for the meta object, some megabytes. Default: [os.TempDir].
	TempDir string
}

// PullReport says what a pull did.
type PullReport struct {
	Name       pagestore.Name   `json:"name"`
	Descriptor pagestore.Digest `json:"descriptor"`
	// Place has said what the name stands for, MetaPlace has delivered the meta object, of MetaBytes.
	Place     string `json:"place"`
	MetaPlace string `json:"meta_place"`
	MetaBytes int64  `json:"meta_bytes"`
	// Resolved, Adopted and Duration are how long it took until the name was resolved, until the snapshot was there, and in all.
	Resolved time.Duration `json:"resolved_ns"`
	Adopted  time.Duration `json:"adopted_ns"`
	Duration time.Duration `json:"duration_ns"`
}

// Pull makes a stub of a snapshot that is elsewhere, which can be restored at once, and brings as much of its memory as the mode says. Where places know the name, but not what
// it leads to any more, others are asked. Errors are [pagestore.ErrNotFound] if no place knows the name, [pagestore.ErrExists] if the store has a snapshot of that name, those of the places,
// the store and ctx. After an error in a later part of the mode the stub is there, and is of use.
func Pull(ctx context.Context, store *pagestore.Store, places Places, name pagestore.Name, opts *PullOptions) (PullReport, error) {
	p := &puller{store: store, places: places, name: name, start: time.Now()}
	if opts != nil {
		p.opts = *opts
	}
	p.report.Name = name
	err := p.run(ctx)
	p.report.Duration = time.Since(p.start)
	if err != nil {
		return p.report, fmt.Errorf("pull %s: %w", name, err)
	}
	return p.report, nil
}

// puller is one run of Pull.
type puller struct {
	store  *pagestore.Store
	places Places
	name   pagestore.Name
	opts   PullOptions
	start  time.Time
	report PullReport
}

func (p *puller) run(ctx context.Context) error {
	if err := p.name.Validate(); err != nil {
		return err
	}
	switch snap, err := p.store.Snapshot(p.name); {
	case err == nil:
		return errors.Join(pagestore.ErrExists, snap.Close())
	case !errors.Is(err, pagestore.ErrNotFound):
		return err
	}
	if err := p.adoptFromAny(ctx); err != nil {
		return err
	}
	switch p.opts.Mode {
	case WorkingSetToo:
		return Warm(ctx, p.store, p.name)
	case Whole:
		return Mirror(ctx, p.store, p.name)
	}
	return nil
}

// adoptFromAny makes the stub from what the first place says whose word can be followed.
func (p *puller) adoptFromAny(ctx context.Context) error {
	places := p.places(NameKey(p.name))
	var errs []error
	for {
		found, err := Resolve(ctx, places, p.name, &p.opts.Resolve)
		if err != nil {
			if len(errs) > 0 { // there was one: that nobody else knows the name says less
				return errors.Join(errs...)
			}
			return err
		}
		if err = p.adopt(ctx, found); err == nil || ctx.Err() != nil || !elsewhere(err) {
			return err
		}
		errs = append(errs, fmt.Errorf("as %s says: %w", found.Place, err))
		places = without(places, found.Place)
	}
}

// errPlace marks errors that another place may not have.
var errPlace = errors.New("cannot be had")

func elsewhere(err error) bool {
	return errors.Is(err, errPlace) || damaged(err) || errors.Is(err, pagestore.ErrVersion)
}

// adopt makes the stub of what a place has named.
func (p *puller) adopt(ctx context.Context, found *Found) error {
	d, ns := found.Descriptor, p.name.Namespace
	if want := p.opts.Digest; want != (pagestore.Digest{}) && found.Digest != want {
		return fmt.Errorf("%w: descriptor is %s, want %s", errPlace, found.Digest, want)
	}
	p.report.Place, p.report.Descriptor, p.report.Resolved = found.Place.String(), found.Digest, time.Since(p.start)
	if w := d.WorkingSet; w != nil && p.opts.Origin != nil {
		p.opts.Origin.prepareHot(HotKey(ns, d.Manifest.Digest, w.Root), w.Pages, w.Root)
	}
	spool, err := p.fetchMeta(ctx, found)
	if err != nil {
		return fmt.Errorf("meta object: %w: %w", errPlace, err)
	}
	defer spool.Close()
	p.report.MetaBytes = spool.size
	m, err := openMeta(spool.reader(0, spool.size), d.Manifest)
	if err != nil {
		return err
	}
	defer m.Close()
	a := pagestore.Adoption{
		Name: p.name, Info: m.Info, Manifest: m.Manifest, Hint: m.Hint, Skeleton: m.extract,
		Remote: pagestore.Remote{Descriptor: found.Text},
	}
	for _, k := range d.Packs {
		a.Remote.Packs = append(a.Remote.Packs, pagestore.RemotePackRoot{ID: k.ID, Pages: k.Pages, Root: k.Root})
	}
	if w := d.WorkingSet; w != nil {
		a.HotOrder, a.Remote.Hot = m.HotOrder, &pagestore.RemoteHotRoot{Pages: w.Pages, Root: w.Root}
	}
	if err := p.store.Adopt(ctx, a); err != nil {
		return err
	}
	p.report.Adopted = time.Since(p.start)
	return nil
}

// fetchMeta brings the meta object, from the place that has named it if that has it, and compares it with its digest. Places that have delivered wrong bytes are asked
// last.
func (p *puller) fetchMeta(ctx context.Context, found *Found) (*spool, error) {
	key := MetaKey(p.name.Namespace, found.Descriptor.Meta.Digest)
	places := append([]Place{found.Place}, without(p.places(key), found.Place)...)
	if p.opts.Origin != nil {
		trusted := p.opts.Origin.trusted(key, places)
		for _, t := range trusted {
			places = without(places, t)
		}
		places = append(trusted, places...)
	}
	var errs []error
	for _, place := range places {
		s, err := readMeta(ctx, place, key, found.Descriptor.Meta, p.opts.TempDir)
		if err == nil {
			p.report.MetaPlace = place.String()
			return s, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", place, err))
		if ctx.Err() != nil {
			break
		}
		if p.opts.Origin != nil {
			p.opts.Origin.blame(place, key, err)
		}
	}
	return nil, errors.Join(errs...)
}

// metaStall is how long a place may take for each megabyte of a meta object.
const metaStall = 5 * time.Second

func readMeta(ctx context.Context, place Place, key Key, want Part, tempDir string) (_ *spool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(metaStall, cancel)
	defer stalled.Stop()
	body, err := place.Open(ctx, key.String(), 0, want.Bytes)
	if errors.Is(err, blob.ErrRange) {
		return nil, fmt.Errorf("%w: %w", errDiffers, err)
	} else if err != nil {
		return nil, err
	}
	defer body.Close()
	s, err := newSpool(tempDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	w := newAppender(s)
	for s.size < want.Bytes {
		if _, err := io.CopyN(w, body, min(1<<20, want.Bytes-s.size)); err != nil {
			return nil, err
		}
		stalled.Reset(metaStall)
	}
	if got := w.part(); got != want {
		if size, err := place.Size(ctx, key.String()); err == nil && size != want.Bytes { // the descriptor may be what is wrong
			return nil, fmt.Errorf("%w: it has %d bytes, want %d", errDiffers, size, want.Bytes)
		}
		return nil, fmt.Errorf("%w: digest is %s, want %s", errWrong, got.Digest, want.Digest)
	}
	return s, nil
}

// Warm brings the pages that a restore of a snapshot wants first, and waits until they are here. It does nothing if they are, or if nobody knows which these are.
func Warm(ctx context.Context, store *pagestore.Store, name pagestore.Name) error {
	return withImage(store, name, func(im *pagestore.Image) error { return im.Warm(ctx) })
}

// Mirror brings all of a snapshot, and waits until it is here, the pages that a restore wants first before the others.
func Mirror(ctx context.Context, store *pagestore.Store, name pagestore.Name) error {
	return withImage(store, name, func(im *pagestore.Image) error {
		if err := im.Warm(ctx); err != nil && ctx.Err() != nil {
			return err
		} // else they come with the others
		return im.Mirror(ctx)
	})
}

func withImage(store *pagestore.Store, name pagestore.Name, fn func(*pagestore.Image) error) error {
	snap, err := store.Snapshot(name)
	if err != nil {
		return err
	}
	defer snap.Close()
	im, err := snap.Image()
	if err != nil {
		return err
	}
	return fn(im)
}
