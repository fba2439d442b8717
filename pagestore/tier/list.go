package tier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// listRequests is how many names a listing reads at a time.
const listRequests = 16

// Listed is a snapshot that a bucket has.
type Listed struct {
	Name pagestore.Name
	// Modified is when the name was written last, in nanoseconds since 1970 by the bucket's clock.
	Modified int64
	// Digest is that of the descriptor. Both are zero if Err says why the name leads to nothing.
	Descriptor *Descriptor
	Digest     pagestore.Digest
	Err        error
}

// List returns the snapshots of a bucket, sorted by namespace and name: of one namespace, or of all if that is "", for which everything that is there has to be
// listed. Each costs two small requests. One that cannot be read is listed with its error; the errors of List are those of listing, and that of ctx.
func List(ctx context.Context, b blob.Bucket, namespace string) ([]Listed, error) {
	from := keyRoot + "/"
	if namespace != "" {
		if err := (pagestore.Name{Namespace: namespace, Snapshot: "any"}).Validate(); err != nil {
			return nil, err
		}
		from = prefix(namespace, KindName)
	}
	var all []*listing
	var g errgroup.Group
	g.SetLimit(listRequests)
	var listErr error
	for info, err := range b.List(ctx, from) {
		if err != nil {
			listErr = err
			break
		}
		key, err := ParseKey(info.Key)
		if err != nil || key.Kind != KindName {
			continue
		}
		l := &listing{Listed: Listed{Name: pagestore.Name{Namespace: key.Namespace, Snapshot: key.Name}, Modified: info.Modified}}
		all = append(all, l)
		g.Go(func() error {
			l.read(ctx, b)
			return nil
		})
	}
	if err := errors.Join(g.Wait(), listErr, ctx.Err()); err != nil {
		return nil, fmt.Errorf("list the snapshots in %s: %w", b, err)
	}
	return sorted(all), nil
}

// listing is a name that is being read.
type listing struct {
	Listed
	gone bool // since it was listed
}

// read finds out what the name leads to.
func (l *listing) read(ctx context.Context, b blob.Bucket) {
	p, err := readPointer(ctx, b, NameKey(l.Name))
	if errors.Is(err, blob.ErrNotFound) {
		l.gone = true
		return
	}
	var text []byte
	if err == nil {
		text, err = readDescriptor(ctx, b, l.Name.Namespace, p)
	}
	if err == nil {
		l.Descriptor, err = ParseDescriptor(text)
	}
	if err != nil {
		l.Err = err
		return
	}
	l.Digest = p.Descriptor
}

// sorted returns those that are still there.
func sorted(all []*listing) []Listed {
	out := make([]Listed, 0, len(all))
	for _, l := range all {
		if !l.gone {
			out = append(out, l.Listed)
		}
	}
	slices.SortFunc(out, func(a, b Listed) int {
		return cmp.Or(strings.Compare(a.Name.Namespace, b.Name.Namespace), strings.Compare(a.Name.Snapshot, b.Name.Snapshot))
	})
	return out
}

// Namespaces returns the namespaces of which a bucket has anything, sorted. All that is there has to be listed for that.
func Namespaces(ctx context.Context, b blob.Bucket) ([]string, error) {
	var all []string
	for info, err := range b.List(ctx, keyRoot+"/") {
		if err != nil {
			return nil, fmt.Errorf("list the namespaces in %s: %w", b, err)
		}
		key, err := ParseKey(info.Key)
		if err == nil && (len(all) == 0 || all[len(all)-1] != key.Namespace) {
			all = append(all, key.Namespace)
		}
	}
	slices.Sort(all) // by key "a-b/" comes before "a/"
	return slices.Compact(all), nil
}
