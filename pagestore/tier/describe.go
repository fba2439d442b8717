package tier

import (
	"context"
	"errors"
	"fmt"

	"thaw/pagestore"
	"thaw/pagestore/internal/frame"
)

// described is a snapshot of a store as other places know it.
type described struct {
	name pagestore.Name
	Descriptor
	text   []byte
	digest pagestore.Digest
	meta   *spool
	// local says that no page may come from elsewhere.
	local bool
	// order is which pages of the image the hot object has.
	order []pagestore.PageRun
}

func (d *described) Close() error { return d.meta.Close() }

// how is how something is made.
type how struct {
	tempDir string
	// local says that no page may come from elsewhere.
	local bool
	// step, if it is set, is called between parts of the work, some milliseconds of it each.
	step func()
}

// describe makes the descriptor of a snapshot, and its meta object. It reads no pages but the hot ones, to hash them.
func describe(ctx context.Context, snap *pagestore.Snapshot, store *pagestore.Store, how how) (_ *described, err error) {
	d := &described{name: snap.Name(), local: how.local}
	d.Snapshot, d.Created = snap.Name().Snapshot, snap.Info().Created
	if d.meta, err = newSpool(how.tempDir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	files, err := snap.Files()
	if err != nil {
		return nil, err
	}
	d.Manifest = Part{snap.Digest(), int64(len(files.Manifest))}
	w := newAppender(d.meta)
	if err := writeMeta(w, &files, snap.SkeletonDir()); err != nil {
		return nil, err
	}
	d.Meta = w.part()
	how.next()
	if err := d.describePacks(snap, store, how); err != nil {
		return nil, err
	}
	if err := d.describeHot(ctx, snap, how); err != nil {
		return nil, err
	}
	d.text, d.digest, err = d.Encode()
	return d, err
}

func (h how) next() {
	if h.step != nil {
		h.step()
	}
}

func (d *described) describePacks(snap *pagestore.Snapshot, store *pagestore.Store, how how) error {
	packs, err := snap.Packs()
	if err != nil {
		return err
	}
	for _, p := range packs {
		if snap.Remote() == nil {
			if p.Root, err = packRoot(store, d.name.Namespace, p.ID); err != nil {
				return err
			}
		}
		how.next()
		d.Packs = append(d.Packs, Pack{ID: p.ID, Pages: p.Pages, Root: p.Root})
	}
	return nil
}

// packRoot returns the root of the framed object of a pack that is here.
func packRoot(store *pagestore.Store, namespace string, id pagestore.PackID) (root pagestore.Digest, err error) {
	held, err := store.HeldPack(namespace, id)
	if err != nil {
		return root, err
	}
	defer held.Close()
	nodes, err := held.Nodes()
	if err != nil {
		return root, err
	}
	if nodes == nil {
		return root, fmt.Errorf("%w: %s is not all here", pagestore.ErrMissingPack, id)
	}
	return frame.Root(nodes), nil
}

// describeHot finds out the root of the hot object, by hashing its pages unless it came from afar.
func (d *described) describeHot(ctx context.Context, snap *pagestore.Snapshot, how how) error {
	order, encoded, err := snap.HotOrder()
	if err != nil || encoded == nil {
		return err
	}
	d.order = order
	if remote := snap.Remote(); remote != nil && remote.Hot != nil {
		if _, packed := snap.WorkingSetBytes(); packed == 0 { // it has no other since
			d.WorkingSet = &WorkingSet{remote.Hot.Pages, remote.Hot.Root}
			return nil
		}
	}
	var nodes []byte
	pages := 0
	err = d.eachHotFrame(ctx, snap, func(content []byte) error {
		node := frame.Node(frame.Digests(nil, content))
		nodes = append(nodes, node[:]...)
		pages += len(content) / pagestore.PageSize
		how.next()
		return nil
	})
	if err != nil {
		return err
	}
	d.WorkingSet = &WorkingSet{uint32(pages), frame.Root(nodes)}
	return nil
}

// eachHotFrame calls fn with the content of each frame of the hot object. The content is valid during the call.
func (d *described) eachHotFrame(ctx context.Context, snap *pagestore.Snapshot, fn func(content []byte) error) error {
	image, err := snap.Image()
	if err != nil {
		return err
	}
	buf := make([]byte, 0, frame.HotPages*pagestore.PageSize)
	for _, run := range d.order {
		for page, left := run.Image, run.Pages; left > 0; {
			if err := ctx.Err(); err != nil {
				return err
			}
			room := (cap(buf) - len(buf)) / pagestore.PageSize
			limit := int(min(left, uint64(room)))
			if d.local {
				if limit = image.Holds(page, limit); limit == 0 {
					return fmt.Errorf("image page %d: %w", page, pagestore.ErrNotLocal)
				}
			}
			data, n, err := image.Load(page, limit)
			if err != nil {
				return err
			}
			if data == nil {
				return corruptf("hot page %d of the image is zero", page)
			}
			buf = append(buf, data...)
			page, left = page+uint64(n), left-uint64(n)
			if len(buf) == cap(buf) {
				if err := fn(buf); err != nil {
					return err
				}
				buf = buf[:0]
			}
		}
	}
	if len(buf) == 0 {
		return nil
	}
	return fn(buf)
}

// frameHot writes the hot object.
func (d *described) frameHot(ctx context.Context, snap *pagestore.Snapshot, to *spool, how how) error {
	w, err := frame.NewWriter(to, frame.Hot, d.Manifest.Digest, d.WorkingSet.Pages)
	if err != nil {
		return err
	}
	err = d.eachHotFrame(ctx, snap, func(content []byte) error {
		how.next()
		return w.Add(content)
	})
	if err != nil {
		return err
	}
	return finishFrames(w, d.WorkingSet.Root)
}

// framePack writes the framed object of a pack that is here.
func framePack(ctx context.Context, store *pagestore.Store, namespace string, p Pack, to *spool) error {
	held, err := store.HeldPack(namespace, p.ID)
	if err != nil {
		return err
	}
	defer held.Close()
	w, err := frame.NewWriter(to, frame.Pack, p.ID, p.Pages)
	if err != nil {
		return err
	}
	buf := make([]byte, frame.PackPages*pagestore.PageSize)
	for i := range held.Frames() {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := held.ReadFrame(buf, i)
		if err != nil {
			return err
		}
		if err := w.Add(buf[:n]); err != nil {
			return err
		}
	}
	return finishFrames(w, p.Root)
}

// finishFrames ends an object, unless it has other pages than it should.
func finishFrames(w *frame.Writer, root pagestore.Digest) error {
	x, err := w.Finish()
	if err != nil {
		return err
	}
	if x.Root() != root {
		return corruptf("pages have root %s, want %s", x.Root(), root)
	}
	return nil
}
