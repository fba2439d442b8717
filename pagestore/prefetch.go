package pagestore

import (
	"sync"
	"sync/atomic"

	"thaw/pagestore/internal/aside"
)

// prefetchQueue bounds the requests that wait, 32 bytes each. A request for a whole image is one for each run of pages that
// lie together; a fragmented image of gigabytes has some thousands. A request that finds the queue full is dropped: it
// was a hint, and a disk that is this far behind has enough to do.
const prefetchQueue = 8192

// prefetchRequest asks for pages of a pack, to which it holds a reference, or for the hot file of an image, which may be closed
// meanwhile.
type prefetchRequest struct {
	hot   *Image // nil: the pack
	image *Image // whose pack it is, if pages of it may have to come from the origin
	pack  *openPack
	page  uint32
	pages int
	// behind says that they are to come with the hot pages of image: asked for is what is missing behind these.
	behind bool
}

const (
	// remoteWorkers is how many requests to the origin are under way for what nobody waits for yet, and remotePages how many pages these ask for,
	// all together: 32 MiB. Both hide its delay, many requests where runs are short, as a set's first ones are: with four of them, whatever their size, such
	// runs came one or two frames at a time. More would bring what is needed first together with what is needed later.
	remoteWorkers = 32
	remotePages   = 4 * aheadStep
)

// prefetcher reads ahead: one request after the other, because the kernel makes the best of a file that is read in order.
// Its goroutines are started by the first request and ended by stop, which Store.Close calls and which waits for it.
type prefetcher struct {
	eager   bool // does not give way: somebody is about to wait for what it reads; immutable
	workers int  // how many goroutines read; immutable

	stopping atomic.Bool

	mu    sync.Mutex
	queue chan prefetchRequest // nil until the first request; closed by stop; protected by mu
	done  sync.WaitGroup
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
		for range p.workers {
			p.done.Go(func() { p.run(s) })
		}
	}
	select {
	case p.queue <- r:
		return true
	default:
		return false
	}
}

func (p *prefetcher) run(s *Store) {
	if !p.eager {
		aside.GiveWay() // nobody has asked for what it reads, and a process is being restored beside it
	}
	for r := range p.queue {
		if r.hot != nil {
			r.hot.readHot(p.stopping.Load)
			continue
		}
		if r.image != nil {
			r.image.fetchAhead(r, p.stopping.Load)
			s.releasePack(r.pack)
			continue
		}
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
		p.done.Wait()
	}
}
