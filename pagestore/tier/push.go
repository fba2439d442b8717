package tier

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// upload is one blob that a push needs at the place.
type upload struct {
	key Key
	// weight is how many bytes it has before it is compressed, for progress.
	weight int64
	// have reports whether the place has it, whole and right: there is nothing to do then. One that is present and of no use is not an error.
	have func(ctx context.Context) (ok, present bool, err error)
	// put brings it, and returns how many bytes were sent.
	put func(ctx context.Context, replace bool) (int64, error)
}

// pusher brings one descriptor, and all that it names, to a bucket.
type pusher struct {
	bucket blob.Bucket
	name   pagestore.Name
	opts   PushOptions

	text    []byte // of the descriptor
	digest  pagestore.Digest
	uploads []upload // without the descriptor's

	mu       sync.Mutex
	renewed  time.Time    // when the lease was put last; protected by mu
	lapsed   bool         // it was put again too late at some time; protected by mu
	report   PushReport   // protected by mu while uploads run
	progress PushProgress // protected by mu
}

// errLeaseLost says that the lease may have expired before the name was written: what it was to protect may be gone.
var errLeaseLost = errors.New("lease was not renewed for too long")

// newPusher prepares a push of a descriptor.
func newPusher(b blob.Bucket, name pagestore.Name, text []byte, uploads []upload, opts PushOptions) *pusher {
	p := &pusher{bucket: b, name: name, opts: opts, text: text, digest: sha256.Sum256(text), uploads: uploads}
	p.report.Name, p.report.Descriptor = name, p.digest
	return p
}

// run brings everything, the name last.
func (p *pusher) run(ctx context.Context) error {
	for {
		err := p.runLeased(ctx)
		if !errors.Is(err, errLeaseLost) {
			return err
		}
		// The machine slept, or the place could not be reached. What has arrived is found, unless it was collected.
	}
}

// runLeased is run with one lease.
func (p *pusher) runLeased(ctx context.Context) error {
	l, err := postLease(ctx, p.bucket, p.name.Namespace, leasePush, p.text)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.renewed, p.lapsed = l.posted, false
	p.mu.Unlock()
	keepCtx, stop := context.WithCancel(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() { l.keep(keepCtx, p.noteRenewal) })
	defer func() {
		stop()
		keeper.Wait()
		l.drop(ctx) // after an error, too: what has arrived has the grace time
	}()
	if err := p.bring(ctx); err != nil {
		return err
	}
	if len(l.collecting()) > 0 {
		// They may have decided about what was there before our lease was. All that they delete is gone when they have ended.
		p.stage(StageWait)
		if err := l.settle(ctx); err != nil {
			return fmt.Errorf("wait for a collection that is running: %w", err)
		}
		if err := p.bring(ctx); err != nil {
			return err
		}
	}
	if !p.leased() {
		return errLeaseLost
	}
	p.stage(StageName)
	return p.writeName(ctx)
}

func (p *pusher) noteRenewal(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// One that came too late protects nothing that was there before it.
	p.lapsed = p.lapsed || !trusted(p.renewed)
	p.renewed = at
}

// leased reports whether the lease has counted without a break since it was posted.
func (p *pusher) leased() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.lapsed && trusted(p.renewed)
}

// bring uploads what the place does not have, the descriptor last.
func (p *pusher) bring(ctx context.Context) error {
	p.notify(func() {
		p.progress = PushProgress{Stage: StagePush, SentBytes: p.progress.SentBytes}
		p.report.Sent, p.report.Skipped = 0, 0
		for _, u := range p.uploads {
			p.progress.TotalBytes += u.weight
		}
		p.progress.TotalBytes += int64(len(p.text))
	})
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(p.opts.Parallel)
	for _, u := range p.uploads {
		g.Go(func() error { return p.upload(groupCtx, u) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return p.upload(ctx, bytesUpload(p.bucket, DescriptorKey(p.name.Namespace, p.digest), p.text))
}

func (p *pusher) upload(ctx context.Context, u upload) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ok, present, err := u.have(ctx)
	if err != nil {
		return fmt.Errorf("look for %s: %w", u.key, err)
	}
	var sent int64
	if !ok {
		if sent, err = u.put(ctx, present); errors.Is(err, blob.ErrExists) {
			ok = true // another node was faster
		} else if err != nil {
			return fmt.Errorf("put %s: %w", u.key, err)
		}
	}
	p.notify(func() {
		p.progress.DoneBytes += u.weight
		p.progress.SentBytes += sent
		p.report.SentBytes += sent
		if ok {
			p.progress.SkippedBytes += u.weight
			p.report.Skipped++
		} else {
			p.report.Sent++
		}
	})
	return nil
}

// notify changes the progress and calls back, one at a time.
func (p *pusher) notify(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	if p.opts.Progress != nil {
		p.opts.Progress(p.progress)
	}
}

func (p *pusher) stage(s PushStage) { p.notify(func() { p.progress.Stage = s }) }

// bytesUpload is an upload of bytes that are in memory, and of which the key has the digest.
func bytesUpload(b blob.Bucket, key Key, text []byte) upload {
	return upload{
		key:    key,
		weight: int64(len(text)),
		have: func(ctx context.Context) (ok, present bool, err error) {
			return haveSize(ctx, b, key, int64(len(text)))
		},
		put: func(ctx context.Context, replace bool) (int64, error) {
			return int64(len(text)), putBytes(ctx, b, key, text, replace)
		},
	}
}

// haveSize reports whether there is a blob of that size.
func haveSize(ctx context.Context, r blob.Reader, key Key, want int64) (ok, present bool, err error) {
	size, err := r.Size(ctx, key.String())
	if errors.Is(err, blob.ErrNotFound) {
		return false, false, nil
	}
	return err == nil && size == want, err == nil, err
}

func putBytes(ctx context.Context, b blob.Bucket, key Key, text []byte, replace bool) error {
	put := b.Create
	if replace {
		put = b.Replace
	}
	return put(ctx, key.String(), bytes.NewReader(text), int64(len(text)))
}

// writeName makes the name stand for the descriptor, unless it stands for another one that has to stay.
func (p *pusher) writeName(ctx context.Context) error {
	text, err := encodePointer(p.text)
	if err != nil {
		return err
	}
	switch was, err := p.claimName(ctx, text); {
	case err == nil && was.Descriptor == p.digest:
		return nil
	case err == nil:
		if stay, err := p.stays(ctx, was); err != nil || stay {
			return err
		}
		if err := keepAfter(ctx, p.bucket, p.name.Namespace, was); err != nil {
			return err
		}
	case !p.opts.Force || !damaged(err):
		return err
	}
	if err := putBytes(ctx, p.bucket, NameKey(p.name), text, true); err != nil {
		return fmt.Errorf("replace %s: %w", NameKey(p.name), err)
	}
	p.report.Named = true
	return nil
}

// claimName writes the name if there is none, and returns what it stands for then.
func (p *pusher) claimName(ctx context.Context, text []byte) (pointer, error) {
	key := NameKey(p.name)
	was, err := readPointer(ctx, p.bucket, key)
	if !errors.Is(err, blob.ErrNotFound) {
		return was, err
	}
	err = putBytes(ctx, p.bucket, key, text, false)
	if err != nil && !errors.Is(err, blob.ErrExists) {
		return was, fmt.Errorf("put %s: %w", key, err)
	}
	created := err == nil
	// Also after a success: where Create is not exclusive another push may have come in between.
	was, err = readPointer(ctx, p.bucket, key)
	p.report.Named = created && err == nil && was.Descriptor == p.digest
	return was, err
}

// stays reports whether the name has to go on standing for was, which is another descriptor than ours. That is an error unless both are the same snapshot.
func (p *pusher) stays(ctx context.Context, was pointer) (bool, error) {
	if p.opts.Force {
		return false, nil
	}
	text, err := readDescriptor(ctx, p.bucket, p.name.Namespace, was)
	if errors.Is(err, blob.ErrNotFound) || damaged(err) {
		return false, nil // it leads to nothing
	} else if err != nil {
		return false, err
	}
	theirs, err := ParseDescriptor(text)
	if err != nil {
		return false, err
	}
	ours, err := ParseDescriptor(p.text)
	if err != nil {
		return false, err
	}
	if theirs.Manifest != ours.Manifest {
		return false, fmt.Errorf("%w: %s has another one of that name, of %s", pagestore.ErrExists, p.bucket, theirs.Created.Format(time.DateTime))
	}
	if p.opts.Refresh {
		return false, nil
	}
	p.report.Descriptor = was.Descriptor
	return true, nil
}

// damaged reports whether an error says that bytes are not what they should be, at whatever place.
func damaged(err error) bool { return errors.Is(err, pagestore.ErrCorrupt) }

// Push brings a snapshot to a bucket: what is there already is skipped, also what an earlier push has brought that was broken off. Nobody sees anything of it before all is there. Any
// number of nodes may push the same snapshot, or others, at the same time, and collect meanwhile. Errors are [pagestore.ErrExists] if another snapshot has the name there,
// [pagestore.ErrNotFound] if it is not here, [pagestore.ErrNotLocal] and [pagestore.ErrMissingPack] if a pack is neither here nor there, those of the store, of blob and of ctx.
func Push(ctx context.Context, store *pagestore.Store, name pagestore.Name, b blob.Bucket, opts *PushOptions) (PushReport, error) {
	start := time.Now()
	var o PushOptions
	if opts != nil {
		o = *opts
	}
	o.setDefaults()
	report, err := push(ctx, store, name, b, o)
	if err != nil {
		return PushReport{}, fmt.Errorf("push %s to %s: %w", name, b, err)
	}
	report.Duration = time.Since(start)
	return report, nil
}

func push(ctx context.Context, store *pagestore.Store, name pagestore.Name, b blob.Bucket, opts PushOptions) (PushReport, error) {
	snap, err := store.Snapshot(name)
	if err != nil {
		return PushReport{}, err
	}
	defer snap.Close()
	d, err := describe(ctx, snap, store, how{tempDir: opts.TempDir})
	if err != nil {
		return PushReport{}, err
	}
	defer d.Close()
	p := newPusher(b, name, d.text, snapshotUploads(b, store, snap, d, opts), opts)
	if err := p.run(ctx); err != nil {
		return PushReport{}, err
	}
	for _, u := range p.uploads {
		p.report.Bytes += u.weight
	}
	return p.report, nil
}

// snapshotUploads returns what a push of a snapshot needs at the place, the small and urgent first.
func snapshotUploads(b blob.Bucket, store *pagestore.Store, snap *pagestore.Snapshot, d *described, opts PushOptions) []upload {
	ns := d.name.Namespace
	metaKey := MetaKey(ns, d.Meta.Digest)
	uploads := []upload{{
		key: metaKey, weight: d.Meta.Bytes,
		have: func(ctx context.Context) (ok, present bool, err error) {
			return haveSize(ctx, b, metaKey, d.Meta.Bytes)
		},
		put: func(ctx context.Context, replace bool) (int64, error) {
			return putSpool(ctx, b, metaKey, d.meta, replace)
		},
	}}
	if w := d.WorkingSet; w != nil {
		hot := func(ctx context.Context, to *spool) error { return d.frameHot(ctx, snap, to, how{}) }
		uploads = append(uploads, framedUpload(b, HotKey(ns, d.Manifest.Digest, w.Root), w.Pages, w.Root, opts.TempDir, hot))
	}
	for _, p := range d.Packs {
		fill := func(ctx context.Context, to *spool) error { return framePack(ctx, store, ns, p, to) }
		uploads = append(uploads, framedUpload(b, PackKey(ns, p.ID), p.Pages, p.Root, opts.TempDir, fill))
	}
	return uploads
}

// framedUpload is the upload of a framed object, which fill makes if it is needed.
func framedUpload(b blob.Bucket, key Key, pages uint32, root pagestore.Digest, tempDir string, fill func(context.Context, *spool) error) upload {
	return upload{
		key: key, weight: int64(pages) * pagestore.PageSize,
		have: func(ctx context.Context) (ok, present bool, err error) { return haveFramed(ctx, b, key, pages, root) },
		put: func(ctx context.Context, replace bool) (int64, error) {
			s, err := newSpool(tempDir)
			if err != nil {
				return 0, err
			}
			defer s.Close()
			if err := fill(ctx, s); err != nil {
				return 0, err
			}
			return putSpool(ctx, b, key, s, replace)
		},
	}
}

// haveFramed reports whether there is a framed object of those pages, as long as its index says.
func haveFramed(ctx context.Context, r blob.Reader, key Key, pages uint32, root pagestore.Digest) (ok, present bool, err error) {
	size, err := r.Size(ctx, key.String())
	if errors.Is(err, blob.ErrNotFound) {
		return false, false, nil
	} else if err != nil {
		return false, false, err
	}
	switch x, err := readIndex(ctx, r, key, pages, root); {
	case errors.Is(err, errWrong) || errors.Is(err, blob.ErrRange):
		return false, true, nil
	case errors.Is(err, blob.ErrNotFound): // since
		return false, false, nil
	case err != nil:
		return false, false, err
	default:
		return x.Size() == size, true, nil
	}
}

func putSpool(ctx context.Context, b blob.Bucket, key Key, s *spool, replace bool) (int64, error) {
	put := b.Create
	if replace {
		put = b.Replace
	}
	return s.size, put(ctx, key.String(), s.reader(0, s.size), s.size)
}
