package pagestore

import (
	"sync"
	"sync/atomic"
)

// prefetchQueue bounds the requests that wait, 24 bytes each. A request for a whole image is one for each run of pages that
// lie together; a fragmented image of gigabytes has some thousands. A request that finds the queue full is dropped: it
// was a hint, and a disk that is this far behind has enough to do.
const prefetchQueue = 8192

// prefetchRequest asks for pages of a pack. It holds a reference to the pack.
type prefetchRequest struct {
	pack  *openPack
	page  uint32
	pages int
}

// prefetcher reads ahead: one request after the other, because the kernel makes the best of a file that is read in order.
// Its goroutine is started by the first request and ended by stop, which Store.Close calls and which waits for it.
type prefetcher struct {
	stopping atomic.Bool

	mu    sync.Mutex
	queue chan prefetchRequest // nil until the first request; closed by stop; protected by mu
	done  chan struct{}
}

// ask queues a request, of which it takes the reference, and does not wait. It reports whether it did.
func (p *prefetcher) ask(s *Store, r prefetchRequest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping.Load() {
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
		r.pack.mapped.Prefetch(r.page, r.pages, p.stopping.Load)
		s.releasePack(r.pack)
	}
}

// stop gives up the requests that wait, and most of the one that is at work.
func (p *prefetcher) stop() {
	p.mu.Lock()
	started := p.queue != nil
	if !p.stopping.Swap(true) && started {
		close(p.queue)
	}
	p.mu.Unlock()
	if started {
		<-p.done
	}
}
