package pagestore

import (
	"bytes"
	"context"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"thaw/internal/pagehash"
	"thaw/pagestore/internal/index"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

const (
	// chunkPages is the unit in which pages move through an import. 1 MiB stays in the caches of a core from the first step to
	// the last, and is written at 6.5 GB/s from there, at 3.2 from memory. In smaller pieces a file system's cache is made of smaller pieces,
	// too: written in 64 pages each, an image of 256 MiB takes a third more of the kernel's time.
	chunkPages = 256
	// extraGoroutines is how many goroutines there are beyond those that hash, if there are cores for them: they read or write meanwhile. More
	// than one for each core hinder each other: threads that could run wait for one core while the other is idle, a sixth of the time.
	extraGoroutines = 2
	// chunksEach is how many chunks there are for each goroutine: it takes another one while earlier ones cannot be placed yet, or are not written.
	chunksEach = 4
)

// The pages of an import move in chunks. A goroutine takes one, does the first steps and puts it into a line; then it does what can be
// done in the lines, for whichever chunks, and takes the next one. So it does not wait until another chunk is placed or written, unless
// all chunks do.
//
//	take    the next part of the image                one at a time
//	read    its pages from the input: zero?
//	hash    SHA-256                                   Workers at a time
//	find    in the store? xxh64 of the others
//	place   repeats, places in packs, extents         in line
//	write   the new pages                             in line: file systems let in one write to a file at a time anyway
type pipeline struct {
	*importer
	// hashing has room for Workers chunks.
	hashing chan struct{}
	// free are the chunks that nobody uses.
	free    chan *chunk
	placing line
	writing line

	mu     sync.Mutex
	source source // protected by mu
	taken  uint64 // chunks; protected by mu

	// Owned by the chunk that is placed.

	// stored are the new pages of this import, so that each is stored once.
	stored *placedPages
	meter  *meter
}

// place is where a page is stored: a position in the manifest's table of packs and a page of that pack.
type place struct{ pack, page uint32 }

// chunk is some pages of the image on their way into the store. It belongs to one goroutine.
type chunk struct {
	n       int
	parts   []part
	data    []byte
	digests []Digest
	sums    []uint64
	found   []found
	hashes  []uint64 // of digests, in pipeline.stored
	number  uint64   // in image order, from 0
	writes  []write
}

// found is what is found out about a page without the pages before.
type found struct {
	zero   bool
	stored bool // in the store, at at
	at     index.Location
}

// write is pages of the chunk, slots [from, to), that belong into a new pack from page first on.
type write struct {
	pack     *newPack
	from, to int
	first    uint32
}

func newChunk() *chunk {
	return &chunk{
		data:    make([]byte, chunkPages*PageSize),
		digests: make([]Digest, chunkPages),
		sums:    make([]uint64, chunkPages),
		found:   make([]found, chunkPages),
		hashes:  make([]uint64, chunkPages),
	}
}

// pages returns slots [from, to).
func (c *chunk) pages(from, to int) []byte { return c.data[from*PageSize : to*PageSize] }

func (c *chunk) page(i int) []byte { return c.pages(i, i+1) }

// copyPages moves the image into packs and the builder.
func (im *importer) copyPages(ctx context.Context) error {
	workers := im.opts.Workers
	p := &pipeline{
		importer: im,
		hashing:  make(chan struct{}, workers),
		source:   source{spaces: im.spaces},
		stored:   newPlacedPages(im.pages),
		meter:    newMeter(im.opts.Progress, Progress{Stage: StageImport, TotalBytes: im.pages * PageSize}),
	}
	goroutines := max(workers, min(workers+extraGoroutines, runtime.GOMAXPROCS(0)))
	chunks := min(chunksEach*uint64(goroutines), im.pages/chunkPages+1)
	p.free = make(chan *chunk, chunks)
	for range chunks {
		p.free <- newChunk()
	}
	g, ctx := errgroup.WithContext(ctx)
	for range min(uint64(goroutines), chunks) {
		g.Go(func() error { return p.moveChunks(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	p.meter.finish()
	im.report.Bytes = im.report.Pages * PageSize
	im.report.NewBytes = im.report.NewPages * PageSize
	im.addSpaces()
	return im.packs.finish()
}

// moveChunks is one of the goroutines.
func (p *pipeline) moveChunks(ctx context.Context) error {
	for {
		select {
		case c := <-p.free:
			if !p.take(c) {
				p.free <- c // for the others to find out, too
				return nil
			}
			if err := p.move(ctx, c); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take fills in which pages the chunk is to get, and reports whether there are any.
func (p *pipeline) take(c *chunk) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.number = p.taken
	p.taken++
	return p.source.next(c)
}

// move does the first steps of a chunk, and of those in line what can be done.
func (p *pipeline) move(ctx context.Context, c *chunk) error {
	if err := c.read(p.input.Files); err != nil {
		return err
	}
	c.findZeros()
	select {
	case p.hashing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.hash()
	<-p.hashing
	p.find(c)
	p.placing.add(c)
	if err := p.placing.serve(p.place); err != nil {
		return err
	}
	return p.writing.serve(p.write)
}

var zeroPage [PageSize]byte

// findZeros finds out which pages are zero.
func (c *chunk) findZeros() {
	for i := range c.n {
		c.found[i] = found{zero: bytes.Equal(c.page(i), zeroPage[:])}
	}
}

// hash computes the SHA-256 of the pages that are not zero.
func (c *chunk) hash() {
	pagehash.Sum(c.digests[:c.n], c.data, func(i int) bool { return c.found[i].zero })
}

// find finds out which pages the store has, and computes the sums that packs have of the others.
func (p *pipeline) find(c *chunk) {
	known := finder{dedup: p.lookup}
	for i := range c.n {
		f := &c.found[i]
		if f.zero {
			continue
		}
		if f.at, f.stored = known.find(&c.digests[i]); !f.stored {
			c.sums[i] = pack.Sum(c.page(i))
		}
	}
}

// place adds the pages of a chunk to the image, and puts the chunk into the next line. It gives the new ones places in packs and moves them to the front of the
// chunk, for one large write.
func (p *pipeline) place(c *chunk) error {
	c.writes = c.writes[:0]
	p.expect(c)
	fresh := 0
	for i := range c.n {
		where, known := p.known(c, i)
		if !known {
			var err error
			if where, err = p.store(c, i, fresh); err != nil {
				return err
			}
			fresh++
		}
		p.report.Pages++
		if c.found[i].zero {
			p.builder.AddZero()
		} else {
			p.builder.AddPage(where.pack, where.page)
		}
	}
	p.meter.progress.NewBytes = p.report.NewPages * PageSize
	p.meter.add(uint64(c.n) * PageSize)
	p.writing.add(c)
	return nil
}

// expect prepares for the pages that the store does not have.
func (p *pipeline) expect(c *chunk) {
	for i := range c.n {
		if f := &c.found[i]; !f.zero && !f.stored {
			c.hashes[i] = p.stored.expect(&c.digests[i])
		}
	}
}

// known returns where a page is, unless it is new. A page of zeros is nowhere, and not new.
func (p *pipeline) known(c *chunk, i int) (place, bool) {
	f := &c.found[i]
	if f.zero {
		p.report.ZeroPages++
		return place{}, true
	}
	if f.stored {
		p.report.DuplicatePages++
		return place{pack: p.lookup.positionOf(f.at.Pack), page: f.at.Page}, true
	}
	where, ok := p.stored.find(c.hashes[i], &c.digests[i])
	if ok {
		p.report.DuplicatePages++
	}
	return where, ok
}

// store gives page i of the chunk the next place in a new pack, and moves it to slot to <= i.
func (p *pipeline) store(c *chunk, i, to int) (place, error) {
	if to != i {
		copy(c.page(to), c.page(i))
	}
	n, page, err := p.packs.add(&c.digests[i], c.sums[i])
	if err != nil {
		return place{}, err
	}
	if page == 0 {
		n.position = p.lookup.addFresh(n.number)
		p.report.NewPacks++
	}
	if last := len(c.writes) - 1; last >= 0 && c.writes[last].pack == n {
		c.writes[last].to++
	} else {
		p.packs.hold(n)
		c.writes = append(c.writes, write{pack: n, from: to, to: to + 1, first: page})
	}
	where := place{pack: n.position, page: page}
	p.stored.add(c.hashes[i], &c.digests[i], where)
	p.report.NewPages++
	return where, nil
}

// write writes the new pages of a chunk that is placed. Nobody uses the chunk any more then.
func (p *pipeline) write(c *chunk) error {
	for _, w := range c.writes {
		if err := p.packs.write(w.pack, c.pages(w.from, w.to), w.first); err != nil {
			return err
		}
	}
	p.free <- c
	return nil
}

// addSpaces adds the address spaces to the manifest, with the places in the image that their runs have.
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
