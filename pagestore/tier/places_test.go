package tier

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/blob/objectstore"
	"thaw/pagestore/blob/objectstore/objectstoretest"
	wire "thaw/pagestore/blob/peer"
	"thaw/pagestore/fetch"
	"thaw/pagestore/internal/frame"
)

// openBucket opens a new bucket of a server that speaks S3.
func openBucket(t *testing.T, s *objectstoretest.Server, name string) blob.Bucket {
	t.Helper()
	b, err := objectstore.Open(t.Context(), s.Bucket(t, name, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fleet gives nodes certificates.
type fleet struct {
	t         *testing.T
	authority *wire.Authority
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	a, err := wire.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t, a}
}

func (f *fleet) keys(name string) *wire.Keys {
	f.t.Helper()
	cert, err := f.authority.Issue(name, time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	files, err := cert.Write(f.t.TempDir())
	if err != nil {
		f.t.Fatal(err)
	}
	keys, err := wire.OpenKeys(files, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return keys
}

// serve has a node's blobs be read over TLS by nodes that are called reader, in the namespace "ns", and returns the place that such a node sees.
func (f *fleet) serve(name string, blobs blob.Reader) Place {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	server := wire.NewServer(blobs, f.keys(name), wire.ServerOptions{
		Allow: func(node, namespace string) bool { return node == "reader" && namespace == "ns" },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("serve: %v", err)
		}
	})
	client := wire.NewClient(name, l.Addr().String(), f.keys("reader"), wire.ClientOptions{})
	f.t.Cleanup(client.Close)
	return Place{Reader: client, Raw: true}
}

// modes are how a snapshot may be pulled.
var modes = map[string]PullMode{"on demand": OnDemand, "working set": WorkingSetToo, "whole": Whole}

func TestASnapshotGoesThroughAnS3ServerAndBack(t *testing.T) {
	memory := seeds(1, 400)
	b := openBucket(t, objectstoretest.Start(t), "bucket")
	maker := newNode(t)
	maker.freeze("one", memory)
	maker.freeze("two", append(memory[:200*pagestore.PageSize:200*pagestore.PageSize], seeds(5000, 50)...))
	first := maker.mustPush("one", b, nil)
	maker.mustPush("two", b, nil)
	if again := maker.mustPush("one", b, nil); again.Sent != 0 || first.Sent == 0 {
		t.Errorf("%d blobs were sent, and again %d", first.Sent, again.Sent)
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.sees(bucketPlace(b))
			n.mustPull("one", &PullOptions{Mode: mode, Origin: n.origin})
			if local, stored := n.local("one"); mode == Whole && local != stored || mode == WorkingSetToo && local == 0 {
				t.Errorf("%d of %d pages are here", local, stored)
			}
			n.mustCheck("one", memory)
		})
	}
	t.Run("collection", func(t *testing.T) {
		if err := Remove(t.Context(), b, nameOf("one")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if r, err := Collect(ctx, b, "ns", nil); err != nil || r.Leases != 1 || r.Deleted != 0 {
			t.Errorf("right after the removal: %+v, %v", r, err)
		}
		leases, err := blobtest.Keys(ctx, b, "v1/ns/leases/")
		if err != nil || len(leases) != 1 {
			t.Fatalf("leases %q, %v", leases, err)
		}
		if err := b.Delete(ctx, leases[0]); err != nil { // as if its time were over
			t.Fatal(err)
		}
		for { // until the second is over in which the name was removed: the server's clock counts no less
			r, err := Collect(ctx, b, "ns", &CollectOptions{Grace: time.Nanosecond})
			if err != nil {
				t.Fatal(err)
			}
			if r.Deleted > 0 {
				break
			}
		}
		n := newNode(t)
		n.sees(bucketPlace(b))
		if _, err := n.pull("one", nil); !errors.Is(err, pagestore.ErrNotFound) {
			t.Errorf("pull of what was removed: %v", err)
		}
		n.mustPull("two", &PullOptions{Mode: Whole, Origin: n.origin})
		n.mustCheck("two", append(memory[:200*pagestore.PageSize:200*pagestore.PageSize], seeds(5000, 50)...))
	})
}

// faults are places that misbehave in what they deliver.
func faults() map[string]func(r blob.Reader) blob.Reader {
	return map[string]func(r blob.Reader) blob.Reader{
		"it is short":        func(r blob.Reader) blob.Reader { return blobtest.Short(r, 70_000) },
		"it breaks off":      func(r blob.Reader) blob.Reader { return blobtest.Broken(r, 70_000, errors.New("connection reset")) },
		"it fails, then not": func(r blob.Reader) blob.Reader { return blobtest.Failing(r, 3, blob.ErrBusy) },
		"it lies": func(r blob.Reader) blob.Reader {
			return blobtest.Lying(r, func(key string, off int64) bool { return isContent(key) && off%5000 == 4321 })
		},
		"it lies about all": func(r blob.Reader) blob.Reader {
			return blobtest.Lying(r, func(_ string, off int64) bool { return off%100 == 50 })
		},
		"it is gone": func(r blob.Reader) blob.Reader { return blobtest.Failing(r, 1<<40, errors.New("no route to host")) },
	}
}

// TestPeersOverTLSThatMisbehaveBesideAnS3Server has the pages come right whatever the peer does: between its store and the wire, or between the wire and who asks.
func TestPeersOverTLSThatMisbehaveBesideAnS3Server(t *testing.T) {
	memory := seeds(1, 400)
	b := openBucket(t, objectstoretest.Start(t), "bucket")
	maker := newNode(t)
	maker.freeze("one", memory)
	maker.mustPush("one", b, nil)
	for name, spoil := range faults() {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			behind := f.serve("maker", spoil(maker.shelf))
			before := f.serve("maker", maker.shelf)
			before.Reader = spoil(before.Reader)
			for where, place := range map[string]Place{"behind the wire": behind, "before the wire": before} {
				t.Run(where, func(t *testing.T) {
					n := newNode(t)
					n.sees(place, bucketPlace(b))
					n.mustPull("one", &PullOptions{Mode: WorkingSetToo, Origin: n.origin})
					n.mustCheck("one", memory)
				})
			}
		})
	}
}

func TestASnapshotComesFromAPeerOverTLS(t *testing.T) {
	memory := seeds(1, 400)
	maker := newNode(t)
	maker.freeze("one", memory)
	place := newFleet(t).serve("maker", maker.shelf)
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.sees(place)
			n.mustPull("one", &PullOptions{Mode: mode, Origin: n.origin})
			n.mustCheck("one", memory)
		})
	}
}

// TestHoldersOfPartsServeEachOtherOverTLS has two nodes that each hold a half, and a third that sees only them: it gets all.
func TestHoldersOfPartsServeEachOtherOverTLS(t *testing.T) {
	memory := seeds(1, 32*40)
	maker := newNode(t)
	maker.freeze("one", memory)
	f := newFleet(t)
	from := f.serve("maker", maker.shelf)
	var halves []Place
	for i, name := range []string{"left", "right"} {
		n := newNode(t)
		n.sees(from)
		n.mustPull("one", nil)
		im := n.mustOpen("one")
		if err := im.Bring(t.Context(), uint64(i*32*20), 32*20, pagestore.Mirror); err != nil {
			t.Fatal(err)
		}
		halves = append(halves, f.serve(name, n.shelf))
	}
	n := newNode(t)
	n.sees(halves...)
	n.mustPull("one", nil)
	n.mustCheck("one", memory)
	for _, s := range n.origin.Stats().Sources {
		if s.Lies > 0 || !s.SetAside.IsZero() {
			t.Errorf("%s is set aside", s.Source)
		}
	}
}

// TestADescriptorWithAWrongRootHasNobodySetAside has a place name a pack by a root that it does not have, with an index that agrees. Whoever has the pack
// delivers other pages than that says.
func TestADescriptorWithAWrongRootHasNobodySetAside(t *testing.T) {
	memory := seeds(1, 200)
	maker := newNode(t)
	maker.freeze("one", memory)
	found := found(t, maker.shelf, "one")
	d, p := *found.Descriptor, found.Descriptor.Packs[0]
	x, err := readIndex(t.Context(), maker.shelf, PackKey("ns", p.ID), p.Pages, p.Root)
	if err != nil {
		t.Fatal(err)
	}
	nodes := bytes.Clone(x.Nodes())
	nodes[frame.NodeSize+3]++ // that of frame 1
	if x, err = frame.Raw(frame.Pack, p.ID, p.Pages, nodes); err != nil {
		t.Fatal(err)
	}
	d.Snapshot, d.WorkingSet = "evil", nil
	d.Packs = slices.Clone(d.Packs)
	d.Packs[0].Root = x.Root()
	text, _, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	pointer, err := encodePointer(text)
	if err != nil {
		t.Fatal(err)
	}
	evil := new(blobtest.Memory)
	for key, data := range map[string][]byte{
		NameKey(nameOf("evil")).String(): pointer, DescriptorKey("ns", sha256.Sum256(text)).String(): text, PackKey("ns", p.ID).String(): x.Head(),
	} {
		if err := evil.Create(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t)
	n.sees(Place{Reader: evil}, peer(maker))
	n.mustPull("evil", nil)
	im := n.mustOpen("evil")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // nobody has it, so it is waited for in vain
	defer cancel()
	if err := im.Bring(ctx, 32, 1, pagestore.Demand); !errors.Is(err, fetch.ErrDiffers) {
		t.Errorf("a page that nobody has: %v", err)
	}
	n.mustPull("one", nil) // beside the other
	n.mustCheck("one", memory)
	for _, s := range n.origin.Stats().Sources {
		if s.Source == maker.shelf.String() && (s.Lies > 0 || !s.SetAside.IsZero()) {
			t.Errorf("who has told the truth is set aside: %+v", s)
		}
	}
}
