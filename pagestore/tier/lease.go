package tier

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"time"

	"thaw/pagestore/blob"
)

// Times of the protocol between pushes, removals and collections, all by the clock of the place. They are part of the format: every node that
// works on a place has to have the same.
const (
	// leaseTime is how long the lease of a push, or of a removal that is under way, counts after it was put last.
	leaseTime = time.Hour
	// leaseRenewal is how often a push puts its lease again.
	leaseRenewal = leaseTime / 4
	// leaseTrust is how old the last renewal may be, by our own clocks, when the name is written: the rest of leaseTime is for requests that take long.
	leaseTrust = leaseTime / 2

	// collectTime is how long the announcement of a collection counts.
	collectTime = 5 * time.Minute
	// collectWork is how long after its announcement a collection may begin to delete a blob: the rest of collectTime is for requests that take long.
	collectWork = 4 * time.Minute

	// settlePoll is how often a push looks whether the collections that it waits for have ended.
	settlePoll = 2 * time.Second
)

// The names of leases begin with what they are.
const (
	leasePush    = "push-"
	leaseCollect = "gc-"
	leaseKept    = "kept-"
)

// lease is a blob of ours among the leases of a namespace: a promise, or a claim, that all who collect there respect.
//
// Who needs blobs that no name leads to yet posts a lease, then looks who has announced a collection. Who collects announces that, then reads the leases.
// Whichever is later sees the other: so a collection either knows what is needed, or is waited for.
type lease struct {
	bucket blob.Bucket
	key    Key
	body   []byte

	posted time.Time // when we began to put it, by our clock
	now    int64     // what the place's clock showed when it was put
	// others are the leases that there were right after ours was put.
	others []blob.Info
}

// postLease puts a lease of a kind, whose name is made unique, and reads which others there are.
func postLease(ctx context.Context, b blob.Bucket, namespace, kind string, body []byte) (*lease, error) {
	l := &lease{bucket: b, key: leaseKey(namespace, kind+strings.ToLower(rand.Text())), body: body}
	if err := l.post(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// post puts the lease, or puts it again, and reads which others there are. On an error it may be there.
func (l *lease) post(ctx context.Context) error {
	l.posted = time.Now()
	if err := l.put(ctx); err != nil {
		return fmt.Errorf("put lease: %w", err)
	}
	all, err := listLeases(ctx, l.bucket, l.key.Namespace)
	if err != nil {
		l.drop(ctx)
		return err
	}
	l.now, l.others = 0, nil
	for _, o := range all {
		if o.Key == l.key.String() {
			l.now = o.Modified
		} else {
			l.others = append(l.others, o)
		}
	}
	if l.now == 0 {
		// All that follows relies on a listing showing what was put before.
		l.drop(ctx)
		return fmt.Errorf("lease %s is not in the listing of %s: its listings cannot be relied on", l.key, l.bucket)
	}
	return nil
}

func (l *lease) put(ctx context.Context) error {
	return l.bucket.Replace(ctx, l.key.String(), bytes.NewReader(l.body), int64(len(l.body)))
}

// drop ends the lease, also after ctx is done. If that does not succeed it counts until it expires, and nothing else comes of it.
func (l *lease) drop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = l.bucket.Delete(ctx, l.key.String())
}

// keep puts the lease again and again until ctx is done, and says when it had begun to. What fails is tried again; whether that took too long
// trusted tells.
func (l *lease) keep(ctx context.Context, renewed func(at time.Time)) {
	for wait := leaseRenewal; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		at := time.Now()
		if err := l.put(ctx); err != nil {
			wait = time.Minute
			continue
		}
		renewed(at)
		wait = leaseRenewal
	}
}

// trusted reports whether a lease that was put at that time surely counts. The monotonic clock stands still while a machine sleeps, the other may be set: both have to agree.
func trusted(at time.Time) bool {
	return time.Since(at) < leaseTrust && time.Since(at.Round(0)) < leaseTrust
}

// collecting returns which collections may delete without having seen the lease.
func (l *lease) collecting() (keys []string) {
	for _, o := range l.others {
		if kindOf(o) == leaseCollect && !expired(o, l.now, collectTime) {
			keys = append(keys, o.Key)
		}
	}
	return keys
}

// settle waits until the collections that collecting returned have ended, or may not delete any more.
func (l *lease) settle(ctx context.Context) error {
	for open := l.collecting(); len(open) > 0; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(settlePoll):
		}
		all, err := listLeases(ctx, l.bucket, l.key.Namespace)
		if err != nil {
			return err
		}
		now := l.now + int64(time.Since(l.posted))
		var left []string
		for _, o := range all {
			for _, key := range open {
				if o.Key == key && !expired(o, now, collectTime) {
					left = append(left, key)
				}
			}
		}
		open = left
	}
	return nil
}

// listLeases returns the leases of a namespace.
func listLeases(ctx context.Context, b blob.Bucket, namespace string) (all []blob.Info, err error) {
	for info, err := range b.List(ctx, prefix(namespace, KindLease)) {
		if err != nil {
			return nil, fmt.Errorf("list leases: %w", err)
		}
		all = append(all, info)
	}
	return all, nil
}

// kindOf returns what a lease is, "" if that is not known.
func kindOf(info blob.Info) string {
	name := info.Key[strings.LastIndexByte(info.Key, '/')+1:]
	for _, kind := range []string{leasePush, leaseCollect, leaseKept} {
		if strings.HasPrefix(name, kind) {
			return kind
		}
	}
	return ""
}

// expired reports whether a blob is at least as old as that.
func expired(info blob.Info, now int64, age time.Duration) bool {
	return now-info.Modified >= int64(age)
}

// readSmall reads a whole blob that is expected to be small, with one request. Errors are those of blob, and one that wraps pagestore.ErrCorrupt if it has more than limit bytes.
func readSmall(ctx context.Context, r blob.Reader, key Key, limit int64) ([]byte, error) {
	body, err := r.Open(ctx, key.String(), 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if int64(len(text)) > limit {
		return nil, corruptf("%s has more than %d bytes", key, limit)
	}
	return text, nil
}
