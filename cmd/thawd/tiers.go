package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/node"
	"thaw/pagestore"
)

// tierOptions are the flags that name places beyond the store.
type tierOptions struct {
	objectStore  string
	push         bool
	listen       string
	advertise    string
	keys         string
	access       string
	peers        string
	gossip       string
	gossipJoin   string
	gossipKey    string
	send         string
	receive      string
	made         string
	remoteBytes  string
	pageDeadline time.Duration
}

// add gives a command the flags.
func (o *tierOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.objectStore, "object-store", cli.Env(cli.EnvObjectStore, ""),
		"URL of the object store that snapshots come from, or a folder: s3://BUCKET/PREFIX?region=R, file:///FOLDER ($"+cli.EnvObjectStore+")")
	f.BoolVar(&o.push, "push", false, "bring each snapshot that appears in the store to the object store")
	f.StringVar(&o.listen, "peer-listen", "", "TCP address where peers get pages from here")
	f.StringVar(&o.advertise, "peer-advertise", "", "address where peers reach that (default: --peer-listen)")
	f.StringVar(&o.keys, "peer-keys", "", "folder with node.crt, node.key and authorities.crt, as thaw peer issue makes it")
	f.StringVar(&o.access, "peer-access", "", "file that says which node may read which namespace; without it none may read anything")
	f.StringVar(&o.peers, "peers", "", "the peers, if there is no gossip: NAME=HOST:PORT,...")
	f.StringVar(&o.gossip, "gossip", "", "IP:PORT for gossip with the other nodes, UDP and TCP")
	f.StringVar(&o.gossipJoin, "gossip-join", "", "gossip addresses of some nodes: HOST:PORT,...")
	f.StringVar(&o.gossipKey, "gossip-key", "", "file of the keys that encrypt gossip, base64, one on a line")
	f.StringVar(&o.made, "peer-made", "1GiB", "bound of the disk that is taken by what peers ask for first, which is made ahead of time; 0: it is made when they ask")
	f.StringVar(&o.send, "peer-send", "0", "bound of what is sent to peers, in bytes a second, as 100MiB; 0: none")
	f.StringVar(&o.receive, "peer-receive", "0", "bound of what is received from peers, in bytes a second; 0: none")
	f.StringVar(&o.remoteBytes, "remote-bytes", "0", "bound of what pages that came from elsewhere take of the disk, as 200GiB; 0: none")
	f.DurationVar(&o.pageDeadline, "page-deadline", 30*time.Second, "how long a page may take to come from elsewhere, before --bad-pages says what becomes of it")
}

// any reports whether there is a place beyond the store.
func (o *tierOptions) any() bool { return o.objectStore != "" || o.hasPeers() }

func (o *tierOptions) hasPeers() bool { return o.listen != "" || o.peers != "" || o.gossip != "" }

// openStore opens the store, with what is beyond it if the flags name something: then the node has the store, and closes it.
func openStore(ctx context.Context, o *serveOptions, log *slog.Logger) (*pagestore.Store, *node.Node, error) {
	if !o.tiers.any() {
		if o.tiers.push {
			return nil, nil, cli.Usagef("--push needs --object-store")
		}
		store, err := cli.OpenStore(o.store, log)
		return store, nil, err
	}
	cfg, err := o.tiers.config(o.store, log)
	if err != nil {
		return nil, nil, err
	}
	if err := cli.MakeStore(o.store); err != nil {
		return nil, nil, err
	}
	n, err := node.Open(ctx, *cfg)
	if err != nil {
		return nil, nil, err
	}
	return n.Store(), n, nil
}

// config is what the flags say.
func (o *tierOptions) config(store string, log *slog.Logger) (*node.Config, error) {
	cfg := &node.Config{
		Store: store, StoreOptions: cli.StoreOptions(log), ObjectStore: o.objectStore, Push: o.push, PageDeadline: o.pageDeadline, Logger: log,
	}
	var err error
	size := func(flag, text string) int64 {
		n, sizeErr := cli.ParseBytes(text)
		if sizeErr != nil && err == nil {
			err = cli.Usagef("--%s: %v", flag, sizeErr)
		}
		return int64(n)
	}
	cfg.StoreOptions.RemoteBytes = size("remote-bytes", o.remoteBytes)
	if o.hasPeers() {
		cfg.Peers = &node.PeersConfig{
			Listen: o.listen, Advertise: o.advertise, Keys: o.keys, Access: o.access, Static: o.peers,
			MadeBytes: size("peer-made", o.made), Send: size("peer-send", o.send), Receive: size("peer-receive", o.receive),
		}
		if cfg.Peers.MadeBytes == 0 {
			cfg.Peers.MadeBytes = -1 // on the command line 0 means none, and in the configuration the default
		}
		if o.gossip != "" {
			cfg.Peers.Gossip = &node.GossipConfig{Bind: o.gossip, KeyFile: o.gossipKey}
			if o.gossipJoin != "" {
				cfg.Peers.Gossip.Join = strings.Split(o.gossipJoin, ",")
			}
		}
	}
	switch {
	case err != nil:
		return nil, err
	case o.push && o.objectStore == "":
		return nil, cli.Usagef("--push needs --object-store")
	case o.hasPeers() && o.keys == "":
		return nil, cli.Usagef("peers need --peer-keys: thaw peer issue makes them")
	case o.hasPeers() && (o.peers == "") == (o.gossip == ""):
		return nil, cli.Usagef("peers are found by --peers or by --gossip, one of them")
	case o.gossip != "" && (o.gossipKey == "" || o.listen == ""):
		return nil, cli.Usagef("--gossip needs --gossip-key, and --peer-listen")
	case o.pageDeadline <= 0:
		return nil, cli.Usagef("--page-deadline is %v: it must be more than 0", o.pageDeadline)
	}
	return cfg, nil
}
