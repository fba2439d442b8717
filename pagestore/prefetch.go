package pagestore

import "sync"

// prefetchQueue bounds the requests that wait. A request that finds the queue full is dropped: it was a hint, and a disk
// that is this far behind has enough to do.
const prefetchQueue = 256

// prefetchRequest asks for pages of a pack. It holds a reference to the pack.
type prefetchRequest struct {
	pack  *openPack
	page  uint32
	pages int
}

// prefetcher asks the kernel to read ahead. Asking may wait for room in the disk's queue, so one goroutine does it: it is
// started by the first request and ended by stop, which Store.Close calls and which waits for it.
type prefetcher struct {
	mu      sync.Mutex
	stopped bool
	queue   chan prefetchRequest // nil until the first request
	done    chan struct{}
}

// ask queues a request, of which it takes the reference, and does not wait. It reports whether it did.
func (p *prefetcher) ask(s *Store, r prefetchRequest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	if p.queue == nil {
		p.queue = make(chan prefetchRequest, prefetchQueue)
		p.done = make(chan struct{})
		go p.run(s)
	}
	select {
	case p.queue <- r:
		return true
	default:
		return false
	}
}

func (p *prefetcher) run(s *Store) {
	defer close(p.done)
	for r := range p.queue {
		r.pack.mapped.Prefetch(r.page, r.pages)
		s.releasePack(r.pack)
	}
}

// stop ends the goroutine after the requests that are queued.
func (p *prefetcher) stop() {
	p.mu.Lock()
	started := p.queue != nil
	if started && !p.stopped {
		close(p.queue)
	}
	p.stopped = true
	p.mu.Unlock()
	if started {
		<-p.done
	}
}
