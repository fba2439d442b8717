package tier

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// Found is what a name stands for at one place.
type Found struct {
	Name       pagestore.Name
	Descriptor *Descriptor
	// Text is the descriptor as it lies there, and Digest its name.
	Text   []byte
	Digest pagestore.Digest
	// Place has said so.
	Place Place
}

// ResolveOptions change how Resolve works.
type ResolveOptions struct {
	// Stagger is how long a place may take before the next one is asked as well. Default 100 ms. Not measured: several times a round trip.
	Stagger time.Duration
	// Deadline is how long each place may take in all. Default 5 s.
	Deadline time.Duration
}

func (o *ResolveOptions) setDefaults() {
	if o.Stagger <= 0 {
		o.Stagger = 100 * time.Millisecond
	}
	if o.Deadline <= 0 {
		o.Deadline = 5 * time.Second
	}
}

// Resolve finds out what a name stands for. It asks the places in turn, two small requests each, and takes the first answer: where they differ, that of the one that is named
// first and answers. The error wraps [pagestore.ErrNotFound] if all places say that they do not know the name.
func Resolve(ctx context.Context, places []Place, name pagestore.Name, opts *ResolveOptions) (*Found, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	var o ResolveOptions
	if opts != nil {
		o = *opts
	}
	o.setDefaults()
	r := race[*Found]{
		ask: func(ctx context.Context, p Place) (*Found, error) {
			ctx, cancel := context.WithTimeout(ctx, o.Deadline)
			defer cancel()
			return resolveAt(ctx, p, name)
		},
		drop: func(*Found) {},
	}
	a, err := r.run(ctx, places, o.Stagger)
	if err != nil {
		if onlyNotFound(err) {
			err = fmt.Errorf("%w: %w", pagestore.ErrNotFound, err)
		}
		return nil, fmt.Errorf("resolve %s: %w", name, err)
	}
	a.cancel()
	return a.value, nil
}

// onlyNotFound reports whether all places have said that they do not have it.
func onlyNotFound(err error) bool {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return false
	}
	for _, e := range joined.Unwrap() {
		if !errors.Is(e, blob.ErrNotFound) && !errors.Is(e, errNoPlace) {
			return false
		}
	}
	return true
}

// resolveAt asks one place.
func resolveAt(ctx context.Context, p Place, name pagestore.Name) (*Found, error) {
	pointer, err := readPointer(ctx, p, NameKey(name))
	if err != nil {
		return nil, err
	}
	f := &Found{Name: name, Digest: pointer.Descriptor, Place: p}
	if f.Text, err = readDescriptor(ctx, p, name.Namespace, pointer); err != nil {
		return nil, err
	}
	if f.Descriptor, err = ParseDescriptor(f.Text); err != nil {
		return nil, err
	}
	if f.Descriptor.Snapshot != name.Snapshot {
		return nil, corruptf("name leads to the descriptor of %s", f.Descriptor.Snapshot)
	}
	return f, nil
}

// readPointer reads what a name stands for at one place.
func readPointer(ctx context.Context, r blob.Reader, name Key) (pointer, error) {
	text, err := readSmall(ctx, r, name, maxName)
	if err != nil {
		return pointer{}, err
	}
	return parsePointer(text)
}

// readDescriptor reads the text of the descriptor that p points to, and compares it with its digest.
func readDescriptor(ctx context.Context, r blob.Reader, namespace string, p pointer) ([]byte, error) {
	text, err := readSmall(ctx, r, DescriptorKey(namespace, p.Descriptor), p.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read descriptor: %w", err)
	}
	if got := pagestore.Digest(sha256.Sum256(text)); got != p.Descriptor {
		return nil, corruptf("descriptor has digest %s, want %s", got, p.Descriptor)
	}
	return text, nil
}
