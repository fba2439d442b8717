package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"thaw/pagestore"
)

// snapshotName is what the only snapshot of a store is called.
var snapshotName = pagestore.Name{Namespace: "bench", Snapshot: "image"}

// input is what an import gets of a placed image.
func (p placement) input(im *image) pagestore.Input {
	s := pagestore.Space{ID: 1, Regions: []pagestore.Region{{Start: p.Base, End: p.end()}}}
	for _, e := range p.layout().Extents {
		s.Runs = append(s.Runs, pagestore.Run{Addr: e.Addr, Pages: e.Pages, Offset: int64(e.Image * page)})
	}
	return pagestore.Input{Spaces: []pagestore.Space{s}, Files: []io.ReaderAt{bytes.NewReader(im.data)}}
}

// makeStore makes a store with the image as its only snapshot.
func makeStore(ctx context.Context, dir string, im *image, p placement) (_ *pagestore.Store, err error) {
	store, err := pagestore.Create(dir)
	if err != nil {
		return nil, err
	}
	if _, err := store.Import(ctx, snapshotName, p.input(im), nil); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// openImage opens the snapshot and its image. The snapshot is to be closed.
func openImage(store *pagestore.Store) (*pagestore.Snapshot, *pagestore.Image, error) {
	snapshot, err := store.Snapshot(snapshotName)
	if err != nil {
		return nil, nil, err
	}
	im, err := snapshot.Image()
	if err != nil {
		return nil, nil, errors.Join(err, snapshot.Close())
	}
	return snapshot, im, nil
}

// evict drops all files below path from the page cache. What somebody has mapped stays.
func evict(path string) error {
	return filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		// Only clean pages can be dropped.
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return fmt.Errorf("sync %s: %w", path, err)
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return fmt.Errorf("drop %s from the page cache: %w", path, err)
		}
		return nil
	})
}
