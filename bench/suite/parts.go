package suite

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"thaw/bench/baseline"
	"thaw/bench/result"
)

// partsPages is how many pages a thread takes at a time, as an import does: 1 MiB stays in the caches of a core.
const partsPages = 256

// parts does to the pages what whoever stores them has to do, and nothing else: it reads them, hashes them, computes the sums of the new
// ones and writes those, each to a place that is known from the start, by as many threads as hash in an import. Nobody looks for a page,
// and nobody waits for another's.
func (c *importCase) parts(context.Context) (_ []result.Observation, err error) {
	f, err := os.CreateTemp(c.dir, "parts-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	cpu, start := ownCPU(), time.Now()
	if n := c.newBefore(c.pages()); n > 0 {
		// As a whole: blocks that are reserved one by one cost more (pagestore's reserveBytes).
		if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(n*page)); err != nil {
			return nil, fmt.Errorf("reserve %d pages: %w", n, err)
		}
	}
	var g errgroup.Group
	var next atomic.Uint64
	for range c.workers {
		g.Go(func() error {
			buf := make([]byte, partsPages*page)
			for {
				first := next.Add(partsPages) - partsPages
				if first >= c.pages() {
					return nil
				}
				if err := c.part(f, first, min(first+partsPages, c.pages()), buf); err != nil {
					return err
				}
			}
		})
	}
	err = g.Wait()
	cost := baseline.Cost{Time: time.Since(start), CPU: ownCPU() - cpu, Bytes: uint64(len(c.data))}
	return []result.Observation{one(importRate, rate(cost.Bytes, cost.Time)), one(cpuCost, perGB(cost.CPU, cost.Bytes))}, err
}

// part does that to pages [first, end). buf has room for them.
func (c *importCase) part(f *os.File, first, end uint64, buf []byte) error {
	buf = buf[:copy(buf, c.data[first*page:end*page])]
	fresh := uint64(0)
	for p := first; p < end; p++ {
		data := buf[(p-first)*page:][:page]
		sha256.Sum256(data)
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
