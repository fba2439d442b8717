package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/internal/durable"
	"thaw/pagestore/blob/peer"
)

// gossipFile is the key with which nodes find each other, beside those of the authority or of a node.
const gossipFile = "gossip.key"

// gossipBytes is the longest key that there is.
const gossipBytes = 32

func newPeer(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peer",
		Short: "Make the keys with which machines know each other",
		Long: `Makes the keys with which machines that serve pages to each other know who they speak with. An authority, made once and kept in a safe
place, issues each machine (node) a certificate and a key; thawd serve --peer-keys names the folder. Any other authority will do that puts the
URI thaw://node/NAME into certificates.`,
		Example: `  thaw peer init /root/thaw-authority
  thaw peer issue node-1 --authority /root/thaw-authority --out ./node-1
  thawd serve --peer-keys /etc/thaw/keys --peer-access /etc/thaw/access.json --peer-listen 10.0.0.1:7448 --peers node-2=10.0.0.2:7448`,
	}
	cmd.AddCommand(newPeerInit(a), newPeerIssue(a))
	return cmd
}

func newPeerInit(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "init DIR",
		Short: "Make an authority for the nodes of a fleet",
		Long: `Makes an authority in a folder: its certificate (authority.crt, which holds for ten years), its key (authority.key), and a key for the
gossip with which nodes find each other (gossip.key). Whoever has authority.key can issue a certificate for any node: keep it away
from the nodes. An authority that is there is not replaced.`,
		Example: `  thaw peer init /root/thaw-authority`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return a.peerInit(args[0]) },
	}
}

func (a *app) peerInit(arg string) error {
	dir, err := absolute(arg)
	if err != nil {
		return err
	}
	authority, err := peer.NewAuthority()
	if err != nil {
		return err
	}
	taken := func(err error) error {
		return &cli.Error{Code: cli.Busy, Err: err, Hint: "name another folder: an authority that is there is not replaced, for its nodes' certificates would not hold any more"}
	}
	if err := authority.Write(dir); errors.Is(err, fs.ErrExist) {
		return taken(fmt.Errorf("make an authority in %s: %w", dir, err))
	} else if err != nil {
		return err
	}
	key := make([]byte, gossipBytes)
	rand.Read(key) // which cannot fail
	text := base64.StdEncoding.EncodeToString(key) + "\n"
	if err := durable.Write(durable.Disk, filepath.Join(dir, gossipFile), []byte(text)); err != nil {
		return err
	}
	return a.print(map[string]any{"authority": dir}, func(w io.Writer) {
		fmt.Fprintf(w, "%s: an authority; keep authority.key there secret, and issue keys: thaw peer issue NODE --authority %s --out DIR\n", dir, dir)
	})
}

// issueFlags are the flags of peer issue.
type issueFlags struct {
	authority, out string
	days           int
}

func newPeerIssue(a *app) *cobra.Command {
	i := &issueFlags{}
	cmd := &cobra.Command{
		Use:   "issue NODE --authority DIR --out DIR",
		Short: "Issue a node its certificate and key",
		Long: `Issues a node a certificate and a new key, and writes to a folder what goes to that node: node.crt, node.key, authorities.crt and the gossip
key. Files that are there are replaced: a thawd that runs uses the new ones from its next connection on, so keys are
changed without a restart.`,
		Example: `  thaw peer issue node-1 --authority /root/thaw-authority --out ./node-1
  thaw peer issue node-1 --authority /root/thaw-authority --out /etc/thaw/keys --days 30`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.peerIssue(args[0], i) },
	}
	f := cmd.Flags()
	f.StringVar(&i.authority, "authority", "", "folder of the authority, as thaw peer init made it")
	f.StringVar(&i.out, "out", "", "folder for the node's files")
	f.IntVar(&i.days, "days", 90, "how long the certificate holds")
	mustMark(cmd.MarkFlagRequired("authority"))
	mustMark(cmd.MarkFlagRequired("out"))
	mustMark(cmd.MarkFlagDirname("authority"))
	mustMark(cmd.MarkFlagDirname("out"))
	return cmd
}

// issued is what peer issue prints.
type issued struct {
	Node    string    `json:"node"`
	Dir     string    `json:"dir"`
	Expires time.Time `json:"expires"`
	Gossip  bool      `json:"gossip_key"`
}

func (a *app) peerIssue(node string, f *issueFlags) error {
	if err := peer.CheckNode(node); err != nil {
		return cli.Usagef("%w", err)
	}
	if f.days < 1 {
		return cli.Usagef("--days is %d: a certificate holds for one at least", f.days)
	}
	authority, err := peer.OpenAuthority(f.authority)
	if errors.Is(err, fs.ErrNotExist) {
		return &cli.Error{Code: cli.NotFound, Err: fmt.Errorf("open the authority: %w", err), Hint: "thaw peer init DIR makes one"}
	} else if err != nil {
		return fmt.Errorf("open the authority: %w", err)
	}
	life := time.Duration(f.days) * 24 * time.Hour
	out := issued{Node: node, Expires: time.Now().Add(life).UTC().Truncate(time.Second)}
	if out.Dir, err = absolute(f.out); err != nil {
		return err
	}
	cert, err := authority.Issue(node, life)
	if err != nil {
		return err
	}
	if _, err := cert.Write(out.Dir); err != nil {
		return err
	}
	if out.Gossip, err = copyGossipKey(f.authority, out.Dir); err != nil {
		return err
	}
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s: keys of node %s, until %s: thawd serve --peer-keys %s\n", out.Dir, node, when(out.Expires), out.Dir)
	})
}

// copyGossipKey gives a node the gossip key, if its authority has one.
func copyGossipKey(from, to string) (bool, error) {
	key, err := os.ReadFile(filepath.Join(from, gossipFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return true, durable.Replace(durable.Disk, filepath.Join(to, gossipFile), key)
}
