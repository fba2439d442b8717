package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
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

// parts does to the pages what whoever stores them has to do, and nothing else: it reads them, hashes them as a store does, computes the sums of the new
// ones and writes those, each to a place that is known from the start. As in an import so many workers hash at a time, and two others may
// read and write beside them if there are cores for that. Nobody looks for a page, nobody waits for another's, and no disk is asked for
// anything.
func (c *importCase) parts(context.Context) (_ []result.Observation, err error) {
	f, err := os.CreateTemp(c.dir, "parts-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	cpu, start := ownCPU(), time.Now()
	for at, end := int64(0), int64(c.newBefore(c.pages())*page); at < end; at += partsReserve {
		if err := unix.Fallocate(int(f.Fd()), 0, at, min(partsReserve, end-at)); err != nil {
			return nil, fmt.Errorf("reserve %d bytes: %w", partsReserve, err)
		}
	}
	var g errgroup.Group
	var next atomic.Uint64
	hashing := make(chan struct{}, c.workers)
	for range max(c.workers, min(c.workers+2, runtime.NumCPU())) {
		g.Go(func() error {
			buf := make([]byte, partsPages*page)
			for {
				first := next.Add(partsPages) - partsPages
				if first >= c.pages() {
					return nil
				}
				if err := c.part(f, first, min(first+partsPages, c.pages()), buf, hashing); err != nil {
					return err
				}
			}
		})
	}
	err = g.Wait()
	cost := baseline.Cost{Time: time.Since(start), CPU: ownCPU() - cpu, Bytes: uint64(len(c.data))}
	return []result.Observation{one(importRate, rate(cost.Bytes, cost.Time)), one(cpuCost, perGB(cost.CPU, cost.Bytes))}, err
}

// part does that to pages [first, end). buf has room for them, hashing for those who may hash at a time.
func (c *importCase) part(f *os.File, first, end uint64, buf []byte, hashing chan struct{}) error {
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
	_, err := f.WriteAt(buf[:fresh*page], int64(c.newBefore(first)*page))
	return err
}

// newBefore returns how many of the pages before page p the store does not know.
func (c *importCase) newBefore(p uint64) uint64 {
	known := uint64(c.known)
	return p/100*(100-known) + max(p%100, known) - known
}
