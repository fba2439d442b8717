package pagestore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"sync"

	"thaw/internal/durable"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

const (
	// writebackBytes is how much is written before the disk is told to begin: syncing overlaps hashing that way, and
	// the requests stay large.
	writebackBytes = 8 << 20
	// reserveBytes is how much is reserved at a time for a pack that grows. ext4 takes 0.1 s of CPU time for 1 GB of blocks that it
	// reserves one by one when they are written; an import of 1.6 GB went from 1.36 to 1.70 GB/s. What is not used is given back, but is
	// missing elsewhere until then.
	reserveBytes = 16 << 20
	// syncQueue bounds the jobs that wait for the disk. A request for writeback that finds the queue full is dropped, for
	// the sync will do what it would have done; the sync of a whole pack waits, and the import with it.
	syncQueue = 64
)

// packSet writes the new pages of an import to as many packs as they need. Pages are entered by one goroutine at a time, with add,
// and written in the same order by one at a time, with write. A pack is sealed by whichever sees that it is full and all its pages are written. Another goroutine, which close
// ends, syncs behind them.
type packSet struct {
	fs    durable.FS
	dir   string
	limit int // pages of a pack

	// Owned by the caller of add and finish.
	current *newPack

	queue chan syncJob
	ended chan struct{} // closed when the syncer has ended

	mu      sync.Mutex
	sealed  []manifest.Pack       // by number, zero for those that are not sealed yet; protected by mu
	open    map[*newPack]struct{} // not sealed; protected by mu
	changed chan struct{}         // has room for one message: synced or err changed
	synced  int                   // packs that are durable; protected by mu
	err     error                 // the first error of a sync; protected by mu
	aborted bool                  // no sync is needed any more; protected by mu
}

// newPack is a pack under construction.
type newPack struct {
	number   int
	position uint32 // in the manifest's table of packs
	file     durable.File
	writer   *pack.Writer
	reserved int64 // bytes of file; owned by the caller of write

	// Protected by packSet.mu.
	full      bool  // no pages will be added
	holders   int   // who have pages of it to write
	written   int64 // bytes
	requested int64 // the bytes before were asked to be written back
}

// syncJob is a range to write back or, with last set, a file to sync and close.
type syncJob struct {
	file   durable.File
	off, n int64
	last   bool
}

func newPackSet(fsys durable.FS, dir string, limit int) *packSet {
	p := &packSet{
		fs:      fsys,
		dir:     dir,
		limit:   limit,
		open:    make(map[*newPack]struct{}),
		queue:   make(chan syncJob, syncQueue),
		ended:   make(chan struct{}),
		changed: make(chan struct{}, 1),
	}
	go p.syncer()
	return p
}

// path returns where new pack i, counted from 0, is staged.
func (p *packSet) path(i int) string { return filepath.Join(p.dir, fmt.Sprintf("%06d%s", i, packExt)) }

// add gives a page the next place, in a new pack if need be, in which it is page 0 then. The caller sees to it that the page is
// written, and holds the pack until then.
func (p *packSet) add(digest *Digest, sum uint64) (n *newPack, page uint32, err error) {
	if p.current != nil && p.current.writer.Pages() == p.limit {
		if err := p.finish(); err != nil {
			return nil, 0, err
		}
	}
	if p.current == nil {
		if p.current, err = p.begin(); err != nil {
			return nil, 0, err
		}
	}
	return p.current, p.current.writer.Add(digest, sum), nil
}

// reserve sees to it that the disk has the pack's first size bytes reserved.
func (p *packSet) reserve(n *newPack, size int64) {
	if size <= n.reserved {
		return
	}
	to := min(n.reserved+reserveBytes, pack.FileSize(p.limit))
	if err := n.file.Reserve(n.reserved, to-n.reserved); err != nil {
		// The file system cannot, or has not so much left: whether there is enough is for the writes to find out.
		to = math.MaxInt64
	}
	n.reserved = to
}

func (p *packSet) begin() (*newPack, error) {
	p.mu.Lock()
	n := &newPack{number: len(p.sealed)}
	p.sealed = append(p.sealed, manifest.Pack{})
	p.mu.Unlock()
	var err error
	if n.file, err = p.fs.Create(p.path(n.number)); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.open[n] = struct{}{}
	p.mu.Unlock()
	n.writer, err = pack.NewWriter(n.file)
	return n, err
}

// finish ends the current pack, if any: it is sealed now, or by those who hold it.
func (p *packSet) finish() error {
	n := p.current
	if n == nil {
		return nil
	}
	p.current = nil
	p.mu.Lock()
	n.full = true
	complete := n.holders == 0
	p.mu.Unlock()
	if !complete {
		return nil
	}
	return p.seal(n)
}

// hold keeps a pack from being sealed until one more call of write.
func (p *packSet) hold(n *newPack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.holders++
}

// write writes pages that have places from first on, and ends one hold. The disk is asked for room here and not in add: it may have
// to wait, and others have pages to place.
func (p *packSet) write(n *newPack, data []byte, first uint32) error {
	p.reserve(n, pack.Offset(first)+int64(len(data)))
	if err := n.writer.WritePages(data, first); err != nil {
		return err
	}
	p.mu.Lock()
	n.holders--
	n.written += int64(len(data))
	complete := n.full && n.holders == 0
	requested := p.requestWritebackLocked(n)
	p.mu.Unlock()
	if requested {
		// The syncer has a core now. It takes a moment of it; but while all others have something to do, it would wait for 10 ms.
		runtime.Gosched()
	}
	if !complete {
		return nil
	}
	return p.seal(n)
}

// requestWritebackLocked has the syncer tell the disk to begin with what was written since the last time, if it is enough.
func (p *packSet) requestWritebackLocked(n *newPack) (requested bool) {
	size := n.written - n.requested
	if size < writebackBytes {
		return false
	}
	select {
	case p.queue <- syncJob{file: n.file, off: pack.Offset(0) + n.requested, n: size}:
		n.requested = n.written
		return true
	default:
		return false
	}
}

// seal ends a pack whose pages are all written, and has it synced. An error of an earlier sync is returned here.
func (p *packSet) seal(n *newPack) error {
	footer, err := n.writer.Seal()
	if err != nil {
		return err
	}
	if err := n.file.Truncate(pack.FileSize(footer.Pages())); err != nil { // gives back what is reserved
		return err
	}
	p.mu.Lock()
	p.sealed[n.number] = manifest.Pack{ID: footer.ID, Pages: uint32(footer.Pages())}
	delete(p.open, n)
	err = p.err
	p.mu.Unlock()
	p.queue <- syncJob{file: n.file, last: true}
	return err
}

// sync waits until all packs, which must be sealed, are durable.
func (p *packSet) sync(ctx context.Context, m *meter) error {
	for done := 0; ; {
		p.mu.Lock()
		synced, err := p.synced, p.err
		p.mu.Unlock()
		for ; done < synced; done++ {
			m.add(uint64(p.sealed[done].Pages) * PageSize)
		}
		if err != nil || done == len(p.sealed) {
			return err
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// close ends the syncer and waits for it. Packs that are not synced by now will not be. Nobody may be writing.
func (p *packSet) close() error {
	p.mu.Lock()
	p.aborted = true
	p.mu.Unlock()
	close(p.queue)
	<-p.ended
	var errs []error
	for n := range p.open {
		errs = append(errs, n.file.Close())
	}
	return errors.Join(errs...)
}

func (p *packSet) syncer() {
	defer close(p.ended)
	for job := range p.queue {
		if !job.last {
			// A hint; an error of the disk shows again in the sync.
			_ = job.file.Writeback(job.off, job.n)
			continue
		}
		p.mu.Lock()
		aborted := p.aborted
		p.mu.Unlock()
		var err error
		if !aborted {
			err = job.file.Sync()
		}
		p.note(errors.Join(err, job.file.Close()))
	}
}

// note records the end of one sync.
func (p *packSet) note(err error) {
	p.mu.Lock()
	p.synced++
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}
