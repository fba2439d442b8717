package pagestore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"thaw/pagestore/internal/frame"
	"thaw/pagestore/internal/pack"
)

// Class says how urgent pages are.
type Class uint8

// The classes, the most urgent first.
const (
	// Demand: a process waits for them.
	Demand Class = iota
	// Ahead: they will be needed soon.
	Ahead
	// Mirror: nobody waits; all is to be here in the end.
	Mirror
)

// String returns the class in lower case.
func (c Class) String() string {
	switch c {
	case Demand:
		return "demand"
	case Ahead:
		return "ahead"
	case Mirror:
		return "mirror"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// demandPages is the most pages that a Load of a fault asks for: 256 KiB. One that asks for more belongs to a stream.
const demandPages = 64

// An Origin brings pages that the store does not hold. It is safe for concurrent use.
type Origin interface {
	// Fetch brings frames [first, first+n) of a pack, n of them at least one: it makes the pack's nodes known if they are not, and admits
	// the frames, in any order. It returns when all of them are admitted, by itself or by somebody else, or why one cannot be had. It may be
	// called for the same frames by several goroutines at a time. What it was given must not be used after it has returned.
	Fetch(ctx context.Context, p *RemotePack, first, n int, class Class) error

	// FetchHot brings the hot pages of a snapshot, in order, and admits those frames that are missing. What it was given must not be used
	// after it has returned.
	FetchHot(ctx context.Context, h *RemoteHot) error
}

// RemotePack is a pack of which pages may be missing. It is safe for concurrent use. Its frames are those of a framed object
// (docs/format/frame.md): 32 pages each, but for the last.
type RemotePack struct {
	Namespace string
	ID        PackID
	Pages     uint32
	// Root is that of the pack's framed object.
	Root Digest

	store *Store
	ns    namespace
	name  partialID
	part  *pack.Partial
	open  *openPack // of which it is a part

	awaited  []atomic.Int32 // for each frame, how many wait for it
	inMemory atomic.Int64   // bytes that are kept there; of Store.inMemory

	finishing atomic.Bool           // somebody makes an ordinary pack of it, or has done
	complete  atomic.Bool           // it is one
	failed    atomic.Pointer[error] // why nothing of it can be used
}

// Claim stands for all that the pages are checked against. RemotePacks of one pack with different claims are different places: what is admitted
// to one does not show in the other.
func (p *RemotePack) Claim() string { return p.name.voucher.String() }

// Frames returns how many frames the pack has.
func (p *RemotePack) Frames() int { return p.part.Frames() }

// Missing reports whether pages of a frame are missing. It may wait for the disk, after the machine was started.
func (p *RemotePack) Missing(frame int) bool {
	page, n := p.part.Frame(frame)
	end := page + uint32(n)
	return p.part.Missing(page, end) < end
}

// Nodes returns the nodes of the pack's frames, 32 bytes each, which have the Root; nil if they are not known yet. They must not be changed.
func (p *RemotePack) Nodes() []byte { return p.part.Nodes() }

// SetNodes makes the nodes known. They are copied. The error is [ErrWrongBytes] if they do not have the Root.
func (p *RemotePack) SetNodes(nodes []byte) error {
	if err := p.part.SetNodes(nodes); err != nil {
		return fmt.Errorf("nodes of pack %s: %w", p.ID, classify(err))
	}
	return nil
}

// Admit puts a frame in its place: content is its pages, which are copied. They are checked against the frame's node, which must be known; the
// error is [ErrWrongBytes] if they are others. Other errors say that there is no room: not on the disk, and, where an [Image.Load] waits for the
// frame, not in memory.
func (p *RemotePack) Admit(number int, content []byte) error {
	nodes := p.part.Nodes()
	if nodes == nil || number < 0 || number >= p.Frames() {
		return fmt.Errorf("admit frame %d of pack %s: %w", number, p.ID, errNoNode)
	}
	page, n := p.part.Frame(number)
	digests, err := checkFrame(content, n, nodes, number)
	if err == nil {
		err = p.admit(page, content, digests, p.awaited[number].Load() > 0)
	}
	if err != nil {
		return fmt.Errorf("admit frame %d of pack %s: %w", number, p.ID, err)
	}
	return nil
}

var errNoNode = errors.New("its node is not known")

// checkFrame returns the digests of the n pages of a frame, if they have its node.
func checkFrame(content []byte, n int, nodes []byte, number int) (digests []byte, err error) {
	if len(content) != n*PageSize {
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrWrongBytes, len(content), n*PageSize)
	}
	digests = frame.Digests(make([]byte, 0, n*frame.NodeSize), content)
	want := Digest(nodes[number*frame.NodeSize:][:frame.NodeSize])
	if got := frame.Node(digests); got != want {
		return nil, fmt.Errorf("%w: node is %s, want %s", ErrWrongBytes, got, want)
	}
	return digests, nil
}

// err returns why nothing of the pack can be used, or nil.
func (p *RemotePack) err() error {
	if e := p.failed.Load(); e != nil {
		return *e
	}
	return nil
}
