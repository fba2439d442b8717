package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"thaw/bench/baseline"
	"thaw/bench/result"
	"thaw/internal/pagehash"
)

// partsPages is how many pages a thread takes at a time, as an import does: 1 MiB stays in the caches of a core.
const partsPages = 256

// partsReserve is how many bytes of the file are reserved at a time, as by the store: blocks that are reserved one by one cost more.
const partsReserve = 16 << 20

// partsWriteback is after how many bytes the disk is told to begin with them, as by the store: the image is to be on the disk soon, and a core has to
// work for that, too.
const partsWriteback = 8 << 20

// parts does to the pages what whoever stores them has to do, and nothing else: it reads them, hashes them as a store does, computes the sums of the new
// ones, writes those, and has the disk begin with them. As in an import so many workers hash at a time, and two others may read and write
// beside them if there are cores for that. Each has its share of the pages and a file of its own: nobody looks for a page, and nobody waits for
// another's nor, in the end, for the disk.
func (c *importCase) parts(context.Context) (_ []result.Observation, err error) {
	threads := max(c.workers, min(c.workers+2, runtime.NumCPU()))
	files := make([]*os.File, threads)
	for i := range files {
		if files[i], err = os.CreateTemp(c.dir, "parts-*"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, files[i].Close(), os.Remove(files[i].Name())) }()
	}
	cpu, start := ownCPU(), time.Now()
	begin := make(chan span, c.pages()*page/partsWriteback+1)
	var writeback, g errgroup.Group
	writeback.Go(func() error { return beginWriteback(begin) })
	hashing := make(chan struct{}, c.workers)
	share := (c.pages()/uint64(threads)/partsPages + 1) * partsPages
	for i, f := range files {
		first := min(uint64(i)*share, c.pages())
		g.Go(func() error { return c.share(f, first, min(first+share, c.pages()), hashing, begin) })
	}
	err = g.Wait()
	cost := baseline.Cost{Time: time.Since(start), CPU: ownCPU() - cpu, Bytes: uint64(len(c.data))}
	close(begin)
	err = errors.Join(err, writeback.Wait())
	return []result.Observation{one(importRate, rate(cost.Bytes, cost.Time)), one(cpuCost, perGB(cost.CPU, cost.Bytes))}, err
}

// span is n bytes of a file.
type span struct {
	file   *os.File
	off, n int64
}

// beginWriteback has the disk begin with what it is told, and waits for nothing but room in the queue of the disk.
func beginWriteback(spans <-chan span) error {
	for s := range spans {
		if err := unix.SyncFileRange(int(s.file.Fd()), s.off, s.n, unix.SYNC_FILE_RANGE_WRITE); err != nil {
			return fmt.Errorf("begin writeback: %w", err)
		}
	}
	return nil
}

// share does that to pages [first, end). hashing has room for those who may hash at a time.
func (c *importCase) share(f *os.File, first, end uint64, hashing chan struct{}, begin chan<- span) error {
	size := int64((c.newBefore(end) - c.newBefore(first)) * page)
	for at := int64(0); at < size; at += partsReserve {
		if err := unix.Fallocate(int(f.Fd()), 0, at, min(partsReserve, size-at)); err != nil {
			return fmt.Errorf("reserve %d bytes: %w", partsReserve, err)
		}
	}
	buf := make([]byte, partsPages*page)
	var written, begun int64
	for ; first < end; first += partsPages {
		fresh := c.part(first, min(first+partsPages, end), buf, hashing)
		if _, err := f.WriteAt(fresh, written); err != nil {
			return err
		}
		if written += int64(len(fresh)); written-begun >= partsWriteback {
			begin <- span{f, begun, written - begun}
			begun = written
			runtime.Gosched() // or it would wait for a core
		}
	}
	return nil
}

// part does what comes before writing to pages [first, end), and returns the new ones in buf, which has room for all.
func (c *importCase) part(first, end uint64, buf []byte, hashing chan struct{}) []byte {
	buf = buf[:copy(buf, c.data[first*page:end*page])]
	var digests [partsPages][pagehash.Size]byte
	hashing <- struct{}{}
	pagehash.Sum(digests[:end-first], buf, nil)
	<-hashing
	fresh := uint64(0)
	for p := first; p < end; p++ {
		data := buf[(p-first)*page:][:page]
		if p%100 >= uint64(c.known) {
			xxhash.Sum64(data)
			if first+fresh != p {
				copy(buf[fresh*page:], data)
			}
			fresh++
		}
	}
	return buf[:fresh*page]
}

// newBefore returns how many of the pages before page p the store does not know.
func (c *importCase) newBefore(p uint64) uint64 {
	known := uint64(c.known)
	return p/100*(100-known) + max(p%100, known) - known
}
