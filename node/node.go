package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/objectstore"
	"thaw/pagestore/blob/peer"
	"thaw/pagestore/fetch"
	"thaw/pagestore/tier"
)

// A Node is a store and the places beyond it. It is safe for concurrent use.
type Node struct {
	cfg    Config
	bucket blob.Bucket // nil: none
	peers  *peers      // nil: none
	origin *tier.Origin
	store  *pagestore.Store
	shelf  *tier.Shelf // nil: nobody is served
	counts counts
	pushes *pushing // nil: nothing is pushed by itself
	remote remoteBytes

	prepares *preparing // nil: nothing is prepared for peers
	restores restoring
	came     arrivals

	closeOnce sync.Once
	closeErr  error

	mu     sync.Mutex
	pulls  map[pagestore.Name]*pull                         // that run; protected by mu
	stubs  map[string]pagestore.Name                        // by key of their hot objects; protected by mu
	warm   map[string]bool                                  // hot objects that came whole, by key; protected by mu
	served struct{ requests, refused, bytes atomic.Uint64 } // to peers
}

// Open opens a node. Nothing is asked of other places, which may be down. It listens for peers and gossip at once; they are answered while
// [Node.Run] runs. Errors wrap [ErrConfig] or are those of the store, of files and of listening.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, pulls: make(map[pagestore.Name]*pull), stubs: make(map[string]pagestore.Name), warm: make(map[string]bool),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.bucket = cfg.bucket; cfg.ObjectStore != "" {
		if n.bucket, err = objectstore.Open(ctx, cfg.ObjectStore); err != nil {
			return nil, err
		}
	}
	if n.bucket != nil {
		n.counts.store = n.bucket.String()
	}
	if cfg.Peers != nil {
		if n.peers, err = openPeers(cfg.Peers, cfg.Logger); err != nil {
			return nil, fmt.Errorf("peers: %w", err)
		}
	}
	if err := n.open(); err != nil {
		return nil, err
	}
	return n, nil
}

// open opens what lies on top of the places.
func (n *Node) open() (err error) {
	n.origin = tier.NewOrigin(tier.OriginOptions{
		Places: n.places, Stagger: hotStagger, Fetch: fetch.Options{Observe: n.counts.observe, Log: n.cfg.Logger},
	})
	opts := n.cfg.StoreOptions
	opts.Origin = &origin{node: n, inner: n.origin, deadline: n.cfg.PageDeadline}
	if n.store, err = pagestore.Open(n.cfg.Store, &opts); err != nil {
		return err
	}
	n.remote.store = n.store
	if n.peers != nil && n.peers.listener != nil {
		n.shelf = tier.NewShelf(n.store, &tier.ShelfOptions{
			MadeBytes: max(n.cfg.Peers.MadeBytes, 0), TempDir: n.cfg.TempDir, Bring: n.brings, Logger: n.cfg.Logger,
		})
		if n.cfg.Peers.MadeBytes >= 0 {
			n.prepares = newPreparing(n)
		}
	}
	if n.cfg.Push {
		n.pushes = newPushing(n)
	}
	return nil
}

// Store returns the node's store, which it closes.
func (n *Node) Store() *pagestore.Store { return n.store }

// Bucket returns the object store, nil if there is none. The node closes it.
func (n *Node) Bucket() blob.Bucket { return n.bucket }

// Run serves peers and prepares for that, gossips, and pushes, as far as that is configured, until ctx ends: then it returns nil. It must be called
// at most once.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if n.shelf != nil {
		server := peer.NewServer(&front{n}, n.peers.keys, peer.ServerOptions{
			Allow: n.peers.allow, Send: peer.NewLimiter(n.cfg.Peers.Send), Log: n.cfg.Logger, Served: n.noteServed,
		})
		n.cfg.Logger.Info("peers are served", "node", n.peers.keys.Node(), "address", n.peers.listener.Addr().String())
		g.Go(func() error { return server.Serve(ctx, n.peers.listener) })
	}
	if n.peers != nil && n.peers.gossip != nil {
		g.Go(func() error { return n.peers.gossip.Run(ctx) })
	}
	if n.pushes != nil {
		g.Go(func() error { return n.pushes.run(ctx) })
	}
	if n.prepares != nil {
		g.Go(func() error { return n.prepares.run(ctx) })
	}
	g.Go(func() error { <-ctx.Done(); return nil })
	return g.Wait()
}

func (n *Node) noteServed(s peer.Served) {
	n.served.requests.Add(1)
	n.served.bytes.Add(uint64(s.Bytes))
	if s.Status >= 400 {
		n.served.refused.Add(1)
	}
}

// PeerAddress returns where peers reach this node, "" if they do not.
func (n *Node) PeerAddress() string {
	if n.peers == nil {
		return ""
	}
	return n.peers.address
}

// Close closes all that the node is made of, the store too. Run must have returned. It is idempotent.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		var errs []error
		if n.shelf != nil {
			n.shelf.Close()
		}
		if n.store != nil {
			errs = append(errs, n.store.Close())
		}
		if n.origin != nil {
			n.origin.Close()
		}
		if n.peers != nil {
			errs = append(errs, n.peers.close())
		}
		if c, ok := n.bucket.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
		n.closeErr = errors.Join(errs...)
	})
	return n.closeErr
}

// noteCame notes that more of a stub has come, which peers may ask for.
func (n *Node) noteCame(name pagestore.Name) {
	if n.prepares != nil {
		n.came.note(name)
		n.prepares.soon()
	}
}

// Warm brings the pages that a restore of a snapshot wants first, the snapshot too if it is not here. See [Node.Pull].
func (n *Node) Warm(ctx context.Context, name pagestore.Name) error {
	_, err := n.Pull(ctx, name, control.PullWorkingSet)
	return err
}

// Mirror brings all of a snapshot. See [Node.Pull].
func (n *Node) Mirror(ctx context.Context, name pagestore.Name) error {
	_, err := n.Pull(ctx, name, control.PullWhole)
	return err
}
