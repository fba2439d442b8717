package pagestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"thaw/pagestore/internal/index"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

// chunkPages is the unit in which pages move through an import: 1 MiB, large for the disk and small for the caches.
const chunkPages = 256

// extraChunks is how many chunks there are beyond one for each worker: one being read, one being written, and two for
// each of the queues between. All of them are made at the start; when none is free, reading waits.
const extraChunks = 6

// The pages of an import go through three stages. Chunks come back to the reader when they are written:
//
//	reader ──work──> workers (zero? SHA-256, xxh64, index)
//	   │ └──order──────────────────────────> committer (in image order: repeats, packs, extents)
//	   └<──────────────free────────────────────┘

// chunk is some pages of the image on their way into the store. It belongs to one stage at a time.
type chunk struct {
	n       int
	data    []byte
	digests []Digest
	sums    []uint64
	found   []found
	// hashed has room for one message: the worker is done with the chunk.
	hashed chan struct{}
}

// found is what a worker found out about a page.
type found struct {
	zero   bool
	stored bool // in the store, at at
	at     index.Location
}

func newChunk() *chunk {
	return &chunk{
		data:    make([]byte, chunkPages*PageSize),
		digests: make([]Digest, chunkPages),
		sums:    make([]uint64, chunkPages),
		found:   make([]found, chunkPages),
		hashed:  make(chan struct{}, 1),
	}
}

func (c *chunk) page(i int) []byte { return c.data[i*PageSize:][:PageSize] }

// copyPages moves the image into packs and the builder.
func (im *importer) copyPages(ctx context.Context) error {
	chunks := int(min(uint64(im.opts.Workers+extraChunks), im.pages/chunkPages+1))
	free, work, order := make(chan *chunk, chunks), make(chan *chunk, chunks), make(chan *chunk, chunks)
	for range chunks {
		free <- newChunk()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		defer close(order)
		r := reader{files: im.input.Files, next: func() (*chunk, error) { return receive(ctx, free) }}
		return r.read(im.spaces, func(c *chunk) { work <- c; order <- c })
	})
	for range im.opts.Workers {
		g.Go(func() error { return im.lookup.hashChunks(work) })
	}
	g.Go(func() error { return im.commitChunks(ctx, order, free) })
	if err := g.Wait(); err != nil {
		return err
	}
	im.addSpaces()
	return nil
}

// receive waits for a chunk; it is nil if the channel is closed.
func receive(ctx context.Context, from <-chan *chunk) (*chunk, error) {
	select {
	case c := <-from:
		return c, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// reader fills chunks with the pages of the image, in order. Runs that follow each other in a file are read at once.
type reader struct {
	files []io.ReaderAt
	next  func() (*chunk, error)

	chunk *chunk
	// What is to be read into the end of the chunk.
	file    int
	offset  int64
	pending int // pages
}

func (r *reader) read(spaces []Space, send func(*chunk)) (err error) {
	for _, s := range spaces {
		for _, run := range s.Runs {
			for done := uint64(0); done < run.Pages; {
				if r.chunk == nil {
					if r.chunk, err = r.next(); err != nil {
						return err
					}
					r.chunk.n = 0
				}
				n := int(min(run.Pages-done, uint64(chunkPages-r.chunk.n)))
				if err := r.want(run.File, run.Offset+int64(done)*PageSize, n); err != nil {
					return err
				}
				done += uint64(n)
				if r.chunk.n == chunkPages {
					if err := r.flush(); err != nil {
						return err
					}
					send(r.chunk)
					r.chunk = nil
				}
			}
		}
	}
	if r.chunk == nil {
		return nil
	}
	if err := r.flush(); err != nil {
		return err
	}
	send(r.chunk)
	return nil
}

// want adds n pages to the chunk.
func (r *reader) want(file int, offset int64, n int) error {
	if r.pending > 0 && (file != r.file || offset != r.offset+int64(r.pending)*PageSize) {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if r.pending == 0 {
		r.file, r.offset = file, offset
	}
	r.pending += n
	r.chunk.n += n
	return nil
}

// flush reads what is pending.
func (r *reader) flush() error {
	dst := r.chunk.data[(r.chunk.n-r.pending)*PageSize : r.chunk.n*PageSize]
	n, err := r.files[r.file].ReadAt(dst, r.offset)
	r.pending = 0
	switch {
	case n == len(dst):
		return nil
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: file %d has no %d bytes at offset %d, only %d", ErrShortInput, r.file, len(dst), r.offset, n)
	}
	return fmt.Errorf("read file %d at offset %d: %w", r.file, r.offset, err)
}

var zeroPage [PageSize]byte

// hashChunks is one worker.
func (d *dedup) hashChunks(work <-chan *chunk) (err error) {
	for c := range work {
		for i := range c.n {
			page := c.page(i)
			if c.found[i].zero = bytes.Equal(page, zeroPage[:]); c.found[i].zero {
				continue
			}
			c.digests[i] = sha256.Sum256(page)
			c.sums[i] = pack.Sum(page)
			c.found[i].at, c.found[i].stored = d.find(&c.digests[i])
		}
		c.hashed <- struct{}{}
	}
	return nil
}

// commitChunks is the committer: the only one to write packs and to extend the image.
func (im *importer) commitChunks(ctx context.Context, order <-chan *chunk, free chan<- *chunk) error {
	c := committer{importer: im, placed: make(map[Digest]place)}
	meter := newMeter(im.opts.Progress, Progress{Stage: StageImport, TotalBytes: im.pages * PageSize})
	for {
		ch, err := receive(ctx, order)
		if err != nil {
			return err
		}
		if ch == nil {
			break
		}
		select {
		case <-ch.hashed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := c.commit(ch); err != nil {
			return err
		}
		meter.progress.NewBytes = im.report.NewPages * PageSize
		meter.add(uint64(ch.n) * PageSize)
		free <- ch
	}
	meter.finish()
	im.report.Bytes = im.report.Pages * PageSize
	im.report.NewBytes = im.report.NewPages * PageSize
	return nil
}

// place is where a page is stored: a position in the manifest's table of packs and a page of that pack.
type place struct{ pack, page uint32 }

// committer decides where each page goes.
type committer struct {
	*importer
	// placed are the new pages of this import, so that each is stored once.
	placed map[Digest]place
	// at is where the next new page goes; left pages fit there.
	at   place
	left int
}

// commit adds the pages of a chunk to the image. It moves the new ones to the front of the chunk, for one large write.
func (c *committer) commit(ch *chunk) error {
	from, to := 0, 0 // the new pages that are not written yet
	for i := range ch.n {
		where, known := c.known(ch, i)
		if !known {
			if c.left == 0 {
				if err := c.write(ch, from, to); err != nil {
					return err
				}
				from = to
				if err := c.nextPack(); err != nil {
					return err
				}
			}
			where = c.place(ch, i, to)
			to++
		}
		c.report.Pages++
		if ch.found[i].zero {
			c.builder.AddZero()
		} else {
			c.builder.AddPage(where.pack, where.page)
		}
	}
	return c.write(ch, from, to)
}

// known returns where a page is, unless it is new. A page of zeros is nowhere, and not new.
func (c *committer) known(ch *chunk, i int) (place, bool) {
	f := &ch.found[i]
	if f.zero {
		c.report.ZeroPages++
		return place{}, true
	}
	if f.stored {
		c.report.DuplicatePages++
		return place{pack: c.lookup.positionOf(f.at.Pack), page: f.at.Page}, true
	}
	where, ok := c.placed[ch.digests[i]]
	if ok {
		c.report.DuplicatePages++
	}
	return where, ok
}

// place gives page i of the chunk the next place, and moves it to slot to <= i.
func (c *committer) place(ch *chunk, i, to int) place {
	if to != i {
		copy(ch.page(to), ch.page(i))
		ch.digests[to], ch.sums[to] = ch.digests[i], ch.sums[i]
	}
	where := c.at
	c.placed[ch.digests[to]] = where
	c.report.NewPages++
	c.at.page++
	c.left--
	return where
}

// write appends slots [from, to) of the chunk to the current pack.
func (c *committer) write(ch *chunk, from, to int) error {
	if from == to {
		return nil
	}
	return c.packs.append(ch.data[from*PageSize:to*PageSize], ch.digests[from:to], ch.sums[from:to])
}

// nextPack begins a pack for the pages to come.
func (c *committer) nextPack() error {
	number, page, room, err := c.packs.room()
	if err != nil {
		return err
	}
	c.at, c.left = place{pack: c.lookup.addFresh(number), page: page}, room
	c.report.NewPacks++
	return nil
}

// addSpaces adds the address spaces to the manifest, with the places in the image that the reader gave their runs.
func (im *importer) addSpaces() {
	var next uint64
	for _, s := range im.spaces {
		regions := make([]manifest.Region, len(s.Regions))
		for i, r := range s.Regions {
			regions[i] = manifest.Region{Start: r.Start, End: r.End, Flags: uint64(r.Flags)}
		}
		runs := make([]manifest.Run, len(s.Runs))
		for i, r := range s.Runs {
			runs[i] = manifest.Run{Addr: r.Addr, Pages: r.Pages, Image: next}
			next += r.Pages
		}
		im.builder.AddSpace(s.ID, s.Zombie, regions, runs)
	}
}
