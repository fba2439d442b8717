package tier

import (
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

// DefaultGrace is how long what no name leads to is kept.
const DefaultGrace = 24 * time.Hour

// gcRequests is how many requests a collection has under way at a time.
const gcRequests = 16

// CollectOptions change how Collect works.
type CollectOptions struct {
	// Grace is how long a blob that no name leads to is kept after it was put, and all of a snapshot after its name was removed: restores that have
	// begun need it, and pushes that were broken off go on with it. All who collect at a place should agree. Default: [DefaultGrace].
	Grace time.Duration
	// DryRun deletes nothing, and counts what would be deleted.
	DryRun bool
}

// CollectReport says what a collection did and what is left.
type CollectReport struct {
	// Names lead to snapshots; Leases are pushes that are under way, and snapshots whose names were removed less than the grace time ago.
	Names  int `json:"names"`
	Leases int `json:"leases"`
	// Deleted blobs had DeletedBytes.
	Deleted      int   `json:"deleted"`
	DeletedBytes int64 `json:"deleted_bytes"`
	// Kept blobs are needed; Young ones are not, but for them the grace time is not over.
	Kept       int   `json:"kept"`
	KeptBytes  int64 `json:"kept_bytes"`
	Young      int   `json:"young"`
	YoungBytes int64 `json:"young_bytes"`
	// Unknown blobs have keys that this version does not know, and are left alone.
	Unknown int `json:"unknown"`
}

// Collect deletes from a namespace of a bucket what no name leads to, what no push that is under way needs, and what is older than the grace time. Any number of
// nodes may push, remove, restore and collect meanwhile. If it cannot be found out what a name or a lease leads to, nothing is deleted, and the error says which; nor is anything
// if there are so many names and leases, or the place is so slow, that finding it out takes longer than what was found out can be relied on. It needs a
// place whose listings show all that was put before they began.
func Collect(ctx context.Context, b blob.Bucket, namespace string, opts *CollectOptions) (CollectReport, error) {
	c := &collector{bucket: b, namespace: namespace}
	if opts != nil {
		c.opts = *opts
	}
	if c.opts.Grace <= 0 {
		c.opts.Grace = DefaultGrace
	}
	for {
		more, err := c.round(ctx)
		if err != nil {
			return c.report, fmt.Errorf("collect garbage of %s in %s: %w", namespace, b, err)
		}
		if !more {
			return c.report, nil
		}
	}
}

// collector is one run of Collect.
type collector struct {
	bucket    blob.Bucket
	namespace string
	opts      CollectOptions

	begun time.Time // the announcement of this round
	now   int64     // by the place's clock
	vain  int       // rounds in a row whose time was up before they had deleted anything

	mu     sync.Mutex
	marked map[string]bool // protected by mu; not changed once the sweep begins
	report CollectReport   // Deleted counts over all rounds; protected by mu
	failed bool            // a blob could not be deleted, or it is not known whether it was; protected by mu
}

var errTimeUp = fmt.Errorf("finding out what is needed took longer than the %v in which a collection may delete", collectWork)

// round announces a collection and does as much of it as may be done on one announcement; more says that there is more to do.
func (c *collector) round(ctx context.Context) (more bool, err error) {
	before := c.report.Deleted
	c.report = CollectReport{Deleted: before, DeletedBytes: c.report.DeletedBytes}
	c.marked = make(map[string]bool)
	announced, err := postLease(ctx, c.bucket, c.namespace, leaseCollect, []byte("collecting\n"))
	if err != nil {
		return false, err
	}
	defer func() {
		// What has failed may still happen: a push is to wait for it then, until the announcement does not count any more.
		if !c.failed {
			announced.drop(ctx)
		}
	}()
	c.begun, c.now = announced.posted, announced.now
	if err := c.mark(ctx, announced); err != nil {
		return false, err
	}
	err = c.sweep(ctx)
	if !errors.Is(err, errTimeUp) {
		return false, err
	}
	if c.report.Deleted > before {
		c.vain = 0
		return true, nil
	}
	if c.vain++; c.vain > 1 { // once, the machine may have slept
		return false, err
	}
	return true, nil
}

// mark marks all that is needed. A push makes its name before it ends its lease, so the leases are read before the names; a removal makes its lease before it
// takes the name away, so they are read after the names, too.
func (c *collector) mark(ctx context.Context, announced *lease) error {
	if err := c.markLeases(ctx, announced.others); err != nil {
		return err
	}
	if err := c.markNames(ctx); err != nil {
		return err
	}
	again, err := listLeases(ctx, c.bucket, c.namespace)
	if err != nil {
		return err
	}
	return c.markLeases(ctx, again)
}

// markLeases marks what pushes need and what was removed of late, and deletes the leases that have expired.
func (c *collector) markLeases(ctx context.Context, all []blob.Info) error {
	c.report.Leases = 0
	var g errgroup.Group // without a context, as in sweep
	g.SetLimit(gcRequests)
	for _, info := range all {
		kind := kindOf(info)
		life := map[string]time.Duration{leasePush: leaseTime, leaseCollect: collectTime, leaseKept: max(c.opts.Grace, leaseTime)}[kind]
		switch {
		case kind == "": // of a later version, or somebody's own
		case expired(info, c.now, life):
			if c.opts.DryRun {
				continue
			}
			g.Go(func() error {
				if err := c.bucket.Delete(ctx, info.Key); err != nil {
					return fmt.Errorf("delete expired lease %s: %w", info.Key, err)
				}
				return nil
			})
		case kind != leaseCollect:
			g.Go(func() error {
				if err := c.markLease(ctx, info); err != nil {
					return fmt.Errorf("read lease %s: %w", info.Key, err)
				}
				return nil
			})
		}
	}
	return g.Wait()
}

func (c *collector) markLease(ctx context.Context, info blob.Info) error {
	key, err := ParseKey(info.Key)
	if err != nil {
		return err
	}
	text, err := readSmall(ctx, c.bucket, key, maxDescriptor)
	if errors.Is(err, blob.ErrNotFound) {
		return nil // it has ended since
	} else if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Leases++
	return c.markDescriptorLocked(text)
}

// markNames marks what the names lead to.
func (c *collector) markNames(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(gcRequests)
	var listErr error
	for info, err := range c.bucket.List(ctx, prefix(c.namespace, KindName)) {
		if err != nil {
			listErr = fmt.Errorf("list names: %w", err)
			break
		}
		g.Go(func() error {
			if err := c.markName(ctx, info.Key); err != nil {
				return fmt.Errorf("find out what %s leads to: %w", info.Key, err)
			}
			return nil
		})
	}
	return errors.Join(g.Wait(), listErr)
}

func (c *collector) markName(ctx context.Context, name string) error {
	key, err := ParseKey(name)
	if err != nil {
		return err
	}
	p, err := readPointer(ctx, c.bucket, key)
	if errors.Is(err, blob.ErrNotFound) {
		return nil // removed since, and not by us: we would have waited for this collection
	} else if err != nil {
		return err
	}
	text, err := readDescriptor(ctx, c.bucket, c.namespace, p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Names++
	return c.markDescriptorLocked(text)
}

// markDescriptorLocked marks a descriptor and all that it names.
func (c *collector) markDescriptorLocked(text []byte) error {
	d, err := ParseDescriptor(text)
	if err != nil {
		return err
	}
	c.marked[DescriptorKey(c.namespace, sha256.Sum256(text)).String()] = true
	for _, key := range d.keys(c.namespace) {
		c.marked[key.String()] = true
	}
	return nil
}

// sweep deletes what is not marked and old.
func (c *collector) sweep(ctx context.Context) error {
	var g errgroup.Group // without a context: a request that is given up may be carried out after all
	g.SetLimit(gcRequests)
	var listErr error
	for info, err := range c.bucket.List(ctx, keyRoot+"/"+c.namespace+"/") {
		if err != nil {
			listErr = fmt.Errorf("list blobs: %w", err)
			break
		}
		key, err := ParseKey(info.Key)
		switch {
		case err != nil:
			c.count(&c.report.Unknown, nil, 0)
		case key.Kind == KindName || key.Kind == KindLease:
		case c.marked[info.Key]:
			c.count(&c.report.Kept, &c.report.KeptBytes, info.Size)
		case !expired(info, c.now, c.opts.Grace):
			c.count(&c.report.Young, &c.report.YoungBytes, info.Size)
		default:
			g.Go(func() error { return c.delete(ctx, info) })
		}
	}
	return errors.Join(g.Wait(), listErr, ctx.Err())
}

func (c *collector) delete(ctx context.Context, info blob.Info) error {
	// Whoever posted a lease after we read them waits until our announcement has ended or expired.
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.opts.DryRun {
		c.count(&c.report.Deleted, &c.report.DeletedBytes, info.Size)
		return nil
	}
	if time.Since(c.begun) >= collectWork || time.Since(c.begun.Round(0)) >= collectWork {
		return errTimeUp
	}
	ctx, cancel := context.WithDeadline(ctx, c.begun.Add((collectWork+collectTime)/2))
	defer cancel()
	if err := c.bucket.Delete(ctx, info.Key); err != nil {
		c.mu.Lock()
		c.failed = true
		c.mu.Unlock()
		return fmt.Errorf("delete %s: %w", info.Key, err)
	}
	c.count(&c.report.Deleted, &c.report.DeletedBytes, info.Size)
	return nil
}

func (c *collector) count(n *int, bytes *int64, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
	if bytes != nil {
		*bytes += size
	}
}

// Remove takes the name of a snapshot away. What it led to stays for the grace time of the collections that follow, so that restores that have begun can end. The error
// wraps [pagestore.ErrNotFound] if there is no such name.
func Remove(ctx context.Context, b blob.Bucket, name pagestore.Name) error {
	if err := name.Validate(); err != nil {
		return err
	}
	if err := remove(ctx, b, name); err != nil {
		return fmt.Errorf("remove %s from %s: %w", name, b, err)
	}
	return nil
}

func remove(ctx context.Context, b blob.Bucket, name pagestore.Name) error {
	p, err := readPointer(ctx, b, NameKey(name))
	if errors.Is(err, blob.ErrNotFound) {
		return pagestore.ErrNotFound
	} else if err != nil {
		return err
	}
	if err := keepAfter(ctx, b, name.Namespace, p); err != nil {
		return err
	}
	return b.Delete(ctx, NameKey(name).String())
}

// keepAfter sees to it that what p points to stays for the grace time although its name is about to change or go.
func keepAfter(ctx context.Context, b blob.Bucket, namespace string, p pointer) error {
	text, err := readDescriptor(ctx, b, namespace, p)
	if errors.Is(err, blob.ErrNotFound) || damaged(err) {
		return nil // it leads to nothing
	} else if err != nil {
		return err
	}
	_, err = postLease(ctx, b, namespace, leaseKept, text)
	return err
}
