package pagestore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"thaw/internal/durable"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

const (
	// writebackBytes is how much is written before the disk is told to begin: syncing overlaps hashing that way, and
	// the requests stay large.
	writebackBytes = 8 << 20
	// syncQueue bounds the jobs that wait for the disk. A request for writeback that finds the queue full is dropped, for
	// the sync will do what it would have done; the sync of a whole pack waits, and the import with it.
	syncQueue = 64
)

// packSet writes the new pages of an import to as many packs as they need. Its methods are for one goroutine; another one,
// which close ends, syncs behind it.
type packSet struct {
	fs    durable.FS
	dir   string
	limit int // pages of a pack

	writer    *pack.Writer // nil between packs
	file      durable.File // what writer writes to
	requested int64        // bytes of file of which writeback was asked for
	sealed    []manifest.Pack

	queue chan syncJob
	ended chan struct{} // closed when the syncer has ended

	mu      sync.Mutex
	changed chan struct{} // has room for one message: synced or err changed
	synced  int           // packs that are durable; protected by mu
	err     error         // the first error of a sync; protected by mu
	aborted bool          // no sync is needed any more; protected by mu
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
		queue:   make(chan syncJob, syncQueue),
		ended:   make(chan struct{}),
		changed: make(chan struct{}, 1),
	}
	go p.syncer()
	return p
}

// path returns where new pack i, counted from 0, is staged.
func (p *packSet) path(i int) string { return filepath.Join(p.dir, fmt.Sprintf("%06d%s", i, packExt)) }

// room begins a pack if need be and returns its number, the number that its next page will have, and for how many
// pages it has room, at least one.
func (p *packSet) room() (number int, page uint32, n int, err error) {
	if p.writer != nil && p.writer.Pages() == p.limit {
		if err := p.seal(); err != nil {
			return 0, 0, 0, err
		}
	}
	if p.writer == nil {
		if err := p.begin(); err != nil {
			return 0, 0, 0, err
		}
	}
	return len(p.sealed), uint32(p.writer.Pages()), p.limit - p.writer.Pages(), nil
}

func (p *packSet) begin() (err error) {
	if p.file, err = p.fs.Create(p.path(len(p.sealed))); err != nil {
		return err
	}
	p.requested = 0
	p.writer, err = pack.NewWriter(p.file)
	return err
}

// append writes pages to the pack of which room told, no more than fit.
func (p *packSet) append(data []byte, digests []Digest, sums []uint64) error {
	if err := p.writer.Append(data, digests, sums); err != nil {
		return err
	}
	written := pack.Offset(uint32(p.writer.Pages()))
	if n := written - p.requested; n >= writebackBytes {
		select {
		case p.queue <- syncJob{file: p.file, off: p.requested, n: n}:
			p.requested = written
		default:
		}
	}
	return nil
}

// seal ends the current pack, if any, and has it synced. An error of an earlier sync is returned here.
func (p *packSet) seal() error {
	if p.writer == nil {
		return nil
	}
	footer, err := p.writer.Seal()
	if err != nil {
		return err
	}
	p.queue <- syncJob{file: p.file, last: true}
	p.writer, p.file = nil, nil
	p.sealed = append(p.sealed, manifest.Pack{ID: footer.ID, Pages: uint32(footer.Pages())})
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// sync waits until all sealed packs are durable.
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

// close ends the syncer and waits for it. Packs that are not synced by now will not be.
func (p *packSet) close() error {
	p.mu.Lock()
	p.aborted = true
	p.mu.Unlock()
	close(p.queue)
	<-p.ended
	if p.file == nil {
		return nil
	}
	return p.file.Close()
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
