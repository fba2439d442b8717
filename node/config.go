package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// Config says what a node is made of.
type Config struct {
	// Store is the folder of the page store, which must be one. Required.
	Store string
	// StoreOptions are those of the store, but for Origin, which Open sets. RemoteBytes is the bound of what came from afar.
	StoreOptions pagestore.Options

	// ObjectStore is the URL of an object store or a folder, as package objectstore takes it. Empty: none.
	ObjectStore string
	// Push has each snapshot that appears in the store brought to the object store by itself, also those that are there at the start.
	// It needs ObjectStore.
	Push bool

	// Peers are how other nodes are reached, and reach this one. nil: not at all.
	Peers *PeersConfig

	// PageDeadline is how long a page may take before whoever waits for it gets an error. Default: 30 s.
	PageDeadline time.Duration
	// TempDir is for what is compressed or made for others: some hundred megabytes while a node pushes, and PeersConfig.MadeBytes. Default:
	// [os.TempDir].
	TempDir string
	// Logger gets what is worth knowing of places and peers. Default: none.
	Logger *slog.Logger

	bucket blob.Bucket // in place of ObjectStore, in tests
}

// PeersConfig says how nodes find and believe each other.
type PeersConfig struct {
	// Listen is where this node serves what it has, "host:port". Empty: it only asks.
	Listen string
	// Advertise is where others reach that, "host:port". Default: what Listen has become.
	Advertise string
	// Keys is a folder with node.crt, node.key and authorities.crt, as [peer.Certificate.Write] makes it. Required.
	Keys string
	// Access is the file that says which node may read which namespace ([peer.Access]). Without it nobody may read anything here, and all
	// members are asked for everything.
	Access string
	// Static are the members, "name=host:port" with commas between them; this node may be among them. Not with Gossip.
	Static string
	// Gossip has the members find each other. Exactly one of it and Static is set.
	Gossip *GossipConfig
	// MadeBytes is how much of the disk what is made for peers may take: what they ask for first of each snapshot, but for its packs. It is made
	// ahead of time. Default: 1 GiB. Negative: it is made when they ask, and 1 GiB of it is kept.
	MadeBytes int64
	// Send and Receive bound the bytes a second to and from all peers together. 0: no bound.
	Send, Receive int64

	listener net.Listener // in place of Listen, in tests
}

// GossipConfig is how members find each other.
type GossipConfig struct {
	// Bind is where gossip comes in, by UDP and TCP, "IP:port". Required.
	Bind string
	// Advertise is where others reach that. Default: Bind.
	Advertise string
	// Join are gossip addresses of some members, "host:port". Nodes with none wait for others to come.
	Join []string
	// KeyFile has the keys with which gossip is encrypted, base64, one on a line. Required.
	KeyFile string
}

// ErrConfig: a node cannot be made of that.
var ErrConfig = errors.New("bad configuration of a node")

func (c *Config) setDefaults() error {
	switch {
	case c.Store == "":
		return fmt.Errorf("%w: no store", ErrConfig)
	case c.Push && c.ObjectStore == "" && c.bucket == nil:
		return fmt.Errorf("%w: there is no object store to push snapshots to", ErrConfig)
	case c.StoreOptions.Origin != nil:
		return fmt.Errorf("%w: the store has another origin", ErrConfig)
	}
	if c.PageDeadline <= 0 {
		c.PageDeadline = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.StoreOptions.Logger == nil {
		c.StoreOptions.Logger = c.Logger
	}
	p := c.Peers
	if p == nil {
		return nil
	}
	switch {
	case p.Keys == "":
		return fmt.Errorf("%w: peers without keys", ErrConfig)
	case (p.Static == "") == (p.Gossip == nil):
		return fmt.Errorf("%w: members come from a list or from gossip, one of them", ErrConfig)
	case p.Gossip != nil && (p.Gossip.Bind == "" || p.Gossip.KeyFile == ""):
		return fmt.Errorf("%w: gossip needs an address and a file of keys", ErrConfig)
	case p.Gossip != nil && p.Listen == "" && p.listener == nil:
		return fmt.Errorf("%w: who gossips is asked for pages, and must listen for peers", ErrConfig)
	}
	return nil
}
