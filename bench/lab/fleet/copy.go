package fleet

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"thaw/internal/pagehash"
	"thaw/pagestore/blob/peer"
)

// Client returns a client that asks n as another node, over the network of that. The caller closes it.
func (n *Node) Client(as *Node) (*peer.Client, error) {
	dir := as.keys()
	keys, err := peer.OpenKeys(peer.Files{
		Certificate: filepath.Join(dir, "node.crt"), Key: filepath.Join(dir, "node.key"), Authorities: filepath.Join(dir, "authorities.crt"),
	}, nil)
	if err != nil {
		return nil, err
	}
	return peer.NewClient(n.name, n.reach(), keys, peer.ClientOptions{
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) { return as.space.dial(ctx, address) },
	}), nil
}

// LargestPack returns the file of the node's largest pack, and the key under which peers have it.
func (n *Node) LargestPack() (path, key string, err error) {
	dir := filepath.Join(n.store, "namespaces", "default", "packs")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", "", err
	}
	var largest int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Size() > largest {
			largest, path = info.Size(), filepath.Join(dir, e.Name())
		}
	}
	if path == "" {
		return "", "", fmt.Errorf("%s has no packs", n.name)
	}
	return path, "v1/default/packs/" + strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), nil
}

// CopyTLS copies a file from n to another node over one plain TLS 1.3 connection, the least that encryption costs, and returns its size. What arrives is
// dropped.
func (n *Node) CopyTLS(ctx context.Context, path string, to *Node) (size int64, err error) {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(n.keys(), "node.crt"), filepath.Join(n.keys(), "node.key"))
	if err != nil {
		return 0, err
	}
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(n.fleet.authority.PEM())
	l, err := n.listen(0)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	var server errgroup.Group
	server.Go(func() error {
		plain, err := l.Accept()
		if err != nil {
			return err
		}
		c := tls.Server(plain, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13})
		defer c.Close()
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{f}, make([]byte, pieceBytes))
		return err
	})
	plain, err := to.space.dial(ctx, l.Addr().String())
	if err != nil {
		return 0, errors.Join(err, l.Close(), server.Wait())
	}
	c := tls.Client(plain, &tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}) //nolint:gosec // the name of a node is no name of a host, and speed is all that is asked
	defer c.Close()
	size, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, pieceBytes))
	return size, errors.Join(err, server.Wait())
}

// pieceBytes is that of a frame of a pack.
const pieceBytes = 128 << 10

// What precedes the frames of a pack as it travels (docs/format/frame.md).
const (
	frameHeader = 96
	framePages  = 20 // where the header says how many pages there are
	frameEntry  = 4 + sha256.Size
	page        = 4096
)

// Frames reads a pack as a peer serves it, as a store does: in ranges of up to 32 frames, four at a time, each frame written to its place in a
// sparse file. It returns the bytes of all frames. Whether each is compared with its hash is the only difference that verify makes.
func Frames(ctx context.Context, c *peer.Client, key, into string, verify bool) (int64, error) {
	size, err := c.Size(ctx, key)
	if err != nil {
		return 0, err
	}
	head := make([]byte, frameHeader)
	if err := read(ctx, c, key, 0, head); err != nil {
		return 0, err
	}
	frames := (int(binary.LittleEndian.Uint32(head[framePages:])) + pieceBytes/page - 1) / (pieceBytes / page)
	index := make([]byte, frames*frameEntry)
	if err := read(ctx, c, key, frameHeader, index); err != nil {
		return 0, err
	}
	file, err := os.Create(into)
	if err != nil {
		return 0, err
	}
	defer func() { _ = errors.Join(file.Close(), os.Remove(into)) }()
	begin := int64(frameHeader + len(index))
	var next atomic.Int64
	const perRange, ranges = 32, 4
	g, ctx := errgroup.WithContext(ctx)
	for range ranges {
		g.Go(func() error {
			buf := make([]byte, pieceBytes)
			for {
				first := int(next.Add(perRange)) - perRange
				if first >= frames {
					return nil
				}
				off := begin + int64(first)*pieceBytes
				end := min(off+perRange*pieceBytes, size)
				body, err := c.Open(ctx, key, off, end-off)
				if err != nil {
					return err
				}
				for i := first; i < min(first+perRange, frames) && err == nil; i++ {
					entry := index[i*frameEntry:][:frameEntry]
					content := buf[:binary.LittleEndian.Uint32(entry)]
					if _, err = io.ReadFull(body, content); err == nil && verify {
						err = compare(content, entry[4:])
					}
					if err == nil {
						_, err = file.WriteAt(content, int64(i)*pieceBytes)
					}
				}
				if err = errors.Join(err, body.Close()); err != nil {
					return err
				}
			}
		})
	}
	return size - begin, g.Wait()
}

// Stream reads a blob from a peer as one stream, drops it and returns its size.
func Stream(ctx context.Context, c *peer.Client, key string) (int64, error) {
	size, err := c.Size(ctx, key)
	if err != nil {
		return 0, err
	}
	body, err := c.Open(ctx, key, 0, size)
	if err != nil {
		return 0, err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body}, make([]byte, pieceBytes))
	return n, errors.Join(err, body.Close())
}

// compare returns an error unless the frame's node is the one wanted: the hash of the hashes of its pages.
func compare(content, node []byte) error {
	var digests [pieceBytes / page * sha256.Size]byte
	if got := sha256.Sum256(pagehash.Append(digests[:0], content)); string(got[:]) != string(node) {
		return fmt.Errorf("a frame's node is %x, want %x", got, node)
	}
	return nil
}

// read reads a part of a blob.
func read(ctx context.Context, c *peer.Client, key string, off int64, into []byte) error {
	body, err := c.Open(ctx, key, off, int64(len(into)))
	if err != nil {
		return err
	}
	_, err = io.ReadFull(body, into)
	return errors.Join(err, body.Close())
}
