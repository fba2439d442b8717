package fleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"thaw/checkpoint"
	"thaw/pagestore/blob/peer"
)

// Where things are in the subnet: the hub and its proxies, the object store, the nodes.
const (
	hubAt       = 1
	objectsAt   = 2
	firstNodeAt = 10
	maxNodes    = 200
)

// certificateLife is longer than any run.
const certificateLife = 24 * time.Hour

// Config says what a fleet is made of.
type Config struct {
	// Thawd and S3 are paths of programs: ours, and versitygw.
	Thawd, S3 string
	// Dir is an empty folder for the fleet's files, absolute.
	Dir string
	// Run is a folder for what runtimes write while they restore. Empty: one in /run, which is in memory.
	Run string
	// Nodes is how many there are.
	Nodes int
	// Stores are the folders of the stores of the first nodes, which are somebody else's. The other nodes have stores in Dir.
	Stores []string
}

// Fleet is some nodes and an object store. Its methods are not safe for concurrent use.
type Fleet struct {
	config    Config
	hub       *space
	objects   *ObjectStore
	authority *peer.Authority
	nodes     []*Node
}

// New makes a fleet, whose nodes do not run yet. The caller closes it.
func New(ctx context.Context, config Config) (_ *Fleet, err error) {
	if config.Run == "" {
		sum := sha256.Sum256([]byte(config.Dir))
		config.Run = fmt.Sprintf("/run/thaw-fleet-%x", sum[:6])
	}
	f := &Fleet{config: config}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if config.Nodes > maxNodes {
		return nil, fmt.Errorf("%d nodes: the subnet has room for %d", config.Nodes, maxNodes)
	}
	if f.authority, err = peer.NewAuthority(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.access(), []byte(`{"namespaces": {"default": ["*"]}}`), 0o600); err != nil {
		return nil, err
	}
	if f.hub, err = newSpace(); err != nil {
		return nil, err
	}
	if err := makeHub(f.hub, address(hubAt)); err != nil {
		return nil, err
	}
	if f.objects, err = startObjectStore(ctx, f.hub, config.S3, config.Dir); err != nil {
		return nil, err
	}
	for i := range config.Nodes {
		var store string
		if i < len(config.Stores) {
			store = config.Stores[i]
		}
		if _, err := f.newNode(i, store); err != nil {
			return nil, fmt.Errorf("node %d: %w", i, err)
		}
	}
	return f, nil
}

func (f *Fleet) access() string { return filepath.Join(f.config.Dir, "access.json") }

// Nodes returns the nodes. The slice is the caller's.
func (f *Fleet) Nodes() []*Node { return append([]*Node(nil), f.nodes...) }

// Objects returns the object store.
func (f *Fleet) Objects() *ObjectStore { return f.objects }

// Links are how nodes are joined.
type Links struct {
	// Bits is how many bits a second pass in each direction of each node's link. 0: no bound.
	Bits int64
	// Delay is how long it takes from one node to another. It is added between nodes, not on the way to the object store.
	Delay time.Duration
}

// SetLinks changes the links. Delays concern what nodes that are started after it ask of others.
func (f *Fleet) SetLinks(l Links) error {
	for _, n := range f.nodes {
		if err := n.link.shape(l.Bits); err != nil {
			return err
		}
		if n.via != nil {
			if err := n.via.close(); err != nil {
				return err
			}
			n.via = nil
		}
		if l.Delay == 0 {
			continue
		}
		listener, err := f.hub.listen(net.JoinHostPort(address(hubAt).String(), "0"))
		if err != nil {
			return err
		}
		n.via = newDelay(listener, 2*l.Delay, func(ctx context.Context) (net.Conn, error) { return f.hub.dial(ctx, n.listens()) })
	}
	return f.objects.link.shape(l.Bits)
}

// Restart stops all nodes given, forgets what those have that own their stores, and starts them again, each knowing the others.
func (f *Fleet) Restart(ctx context.Context, nodes []*Node, from Sources, flags ...string) error {
	return each(nodes, func(n *Node) error {
		n.Stop()
		if n.own {
			if err := n.Wipe(); err != nil {
				return err
			}
		}
		return n.Start(ctx, from, flags...)
	})
}

// Close ends everything, and removes the fleet's folders. What was restored on its nodes must have ended.
func (f *Fleet) Close() error {
	err := each(f.nodes, (*Node).close)
	if f.objects != nil {
		err = errors.Join(err, f.objects.close())
	}
	if f.hub != nil {
		err = errors.Join(err, f.hub.close())
	}
	return errors.Join(err, checkpoint.RemoveAll(f.config.Run), checkpoint.RemoveAll(f.config.Dir))
}
