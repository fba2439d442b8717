package frame

import (
	"crypto/sha256"
	"fmt"

	"thaw/internal/pagehash"
	"thaw/pagestore/internal/pack"
)

// Root returns the root of an object with these nodes, [NodeSize] bytes each.
func Root(nodes []byte) pack.Digest { return sha256.Sum256(nodes) }

// Node returns the node of a frame, of whose pages digests are the SHA-256s, one after the other.
func Node(digests []byte) pack.Digest { return sha256.Sum256(digests) }

// Nodes returns the nodes of an object of a kind, of whose pages digests are the SHA-256s: of a pack, its table of digests.
func Nodes(kind Kind, digests []byte) []byte {
	per := kind.FramePages() * sha256.Size
	nodes := make([]byte, 0, (len(digests)/per+1)*NodeSize)
	for len(digests) > 0 {
		n := min(per, len(digests))
		node := Node(digests[:n])
		nodes = append(nodes, node[:]...)
		digests = digests[n:]
	}
	return nodes
}

// Digests appends the SHA-256s of pages to b.
func Digests(b, pages []byte) []byte { return pagehash.Append(b, pages) }

// Verify returns an error that wraps [ErrCorrupt] unless content is that of the frame.
func (x *Index) Verify(frame int, content []byte) error {
	if len(content) != x.RawSize(frame) {
		return fmt.Errorf("%w: frame %d has %d bytes of pages, want %d", ErrCorrupt, frame, len(content), x.RawSize(frame))
	}
	var room [HotPages * sha256.Size]byte
	if got, want := Node(Digests(room[:0], content)), x.Node(frame); got != want {
		return fmt.Errorf("%w: frame %d has node %s, want %s", ErrCorrupt, frame, got, want)
	}
	return nil
}
