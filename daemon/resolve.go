package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"thaw/pagestore"
	"thaw/restore"
)

// ErrNoSnapshot says that a skeleton belongs to no snapshot of the store that it lies in, or lies in none.
var ErrNoSnapshot = errors.New("not the skeleton of a snapshot")

// ResolveSkeleton finds the snapshot whose skeleton is the folder dir, so that a program that knows only the folder, such
// as the stand-in for criu lazy-pages, can serve its pages. The layouts are by image pid. The closer gives up the lease
// on the snapshot; the source must not be in use any more then.
func ResolveSkeleton(dir string) (restore.PageSource, map[int]restore.Layout, io.Closer, error) {
	store, err := storeAbove(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	o, err := originOf(store, dir)
	if err != nil {
		return nil, nil, nil, errors.Join(err, store.Close())
	}
	return o.source, o.layouts, closerFunc(func() error { return errors.Join(o.close(), store.Close()) }), nil
}

// storeAbove opens the store that dir lies in.
func storeAbove(dir string) (*pagestore.Store, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	for {
		store, err := pagestore.Open(path, nil)
		if err == nil {
			return store, nil
		}
		if !errors.Is(err, pagestore.ErrNotStore) {
			return nil, err
		}
		above := filepath.Dir(path)
		if above == path {
			return nil, fmt.Errorf("%s: %w: it lies in no store", dir, ErrNoSnapshot)
		}
		path = above
	}
}

// originOf leases the snapshot of the store whose skeleton is dir.
func originOf(store *pagestore.Store, dir string) (*origin, error) {
	want, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	entries, err := store.List()
	if err != nil {
		return nil, err
	}
	var unreadable []error
	for _, e := range entries {
		if e.BeingRemoved {
			continue
		}
		snap, err := store.Snapshot(e.Name)
		if err != nil {
			unreadable = append(unreadable, err)
			continue
		}
		if got, err := os.Stat(snap.SkeletonDir()); err == nil && os.SameFile(want, got) {
			o, err := leased(snap)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("open snapshot %s: %w", e.Name, err), snap.Close())
			}
			return o, nil
		}
		if err := snap.Close(); err != nil {
			return nil, err
		}
	}
	return nil, errors.Join(fmt.Errorf("%s: %w: no snapshot of store %s has it", dir, ErrNoSnapshot, store.Dir()), errors.Join(unreadable...))
}

// A closerFunc is an io.Closer that is a function.
type closerFunc func() error

// Close calls f.
func (f closerFunc) Close() error { return f() }
