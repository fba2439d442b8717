package node

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/tier"
)

// opened opens a node that pushes, with a clock of its own, until the test ends.
func opened(t *testing.T, dir string, b blob.Bucket) *Node {
	t.Helper()
	n, err := Open(t.Context(), Config{Store: dir, bucket: b, Push: true, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func names(t *testing.T, b blob.Bucket) []string {
	t.Helper()
	keys, err := blobtest.Keys(t.Context(), b, "v1/ns/names/")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestNewSnapshotsArePushedAndTheRestAfterARestart(t *testing.T) {
	dir, bucket := newStoreDir(t), new(blobtest.Memory)
	place := blobtest.NewSwitch(bucket)
	n := opened(t, dir, place)
	freeze(t, n.Store(), "one", memoryOf(1, 300))
	if !n.pushes.look(t.Context()) || !slices.Equal(names(t, bucket), []string{"v1/ns/names/one"}) {
		t.Fatalf("after the first look: %v", names(t, bucket))
	}
	freeze(t, n.Store(), "two", memoryOf(2, 300))
	place.Set(blobtest.Full(bucket, 100_000)) // in the middle of its pack
	if n.pushes.look(t.Context()) {
		t.Error("a push to a full place goes well")
	}
	if r := n.pushes.report(); r.Pushed != 1 || r.Failed != 1 || r.Waiting != 1 || r.LastError == "" {
		t.Errorf("report: %+v", r)
	}
	if got := names(t, bucket); len(got) != 1 {
		t.Errorf("a half-pushed snapshot is visible: %v", got)
	}
	n.Close()

	again := opened(t, dir, bucket)
	if !again.pushes.look(t.Context()) || len(names(t, bucket)) != 2 {
		t.Fatalf("after the restart: %v", names(t, bucket))
	}
	if r := again.pushes.report(); r.Waiting != 0 || r.SentBytes == 0 {
		t.Errorf("report: %+v", r)
	}
	sent := again.pushes.report().SentBytes
	if !again.pushes.look(t.Context()) || again.pushes.report().SentBytes != sent || again.pushes.report().Pushed != 2 {
		t.Errorf("a look without anything new: %+v", again.pushes.report())
	}
	reader := run(t, Config{bucket: bucket})
	if _, err := reader.Pull(t.Context(), nameOf("two"), "whole"); err != nil {
		t.Error(err)
	}
	if err := check(reader.Store(), "two", memoryOf(2, 300)); err != nil {
		t.Error(err)
	}
}

func TestWhatIsLearnedIsPushedToo(t *testing.T) {
	bucket := new(blobtest.Memory)
	n := opened(t, newStoreDir(t), bucket)
	freeze(t, n.Store(), "one", memoryOf(1, 300))
	n.pushes.look(t.Context())
	found := func() pagestore.Digest {
		t.Helper()
		f, err := tier.Resolve(t.Context(), []tier.Place{{Reader: bucket}}, nameOf("one"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return f.Digest
	}
	before := found()
	learn(t, n.Store(), "one", 7)
	if !n.pushes.look(t.Context()) || found() == before {
		t.Error("the new working set is not there")
	}
}

func TestAnotherSnapshotOfThatNameStays(t *testing.T) {
	bucket := pushed(t, memoryOf(1, 100))
	n := opened(t, newStoreDir(t), bucket)
	freeze(t, n.Store(), "one", memoryOf(2, 100))
	if !n.pushes.look(t.Context()) { // there is nothing to try again
		t.Error("it would be tried again and again")
	}
	if r := n.pushes.report(); r.Failed != 1 || r.Pushed != 0 {
		t.Errorf("report: %+v", r)
	}
	reader := run(t, Config{bucket: bucket})
	if _, err := reader.Pull(t.Context(), nameOf("one"), "whole"); err != nil {
		t.Fatal(err)
	}
	if err := check(reader.Store(), "one", memoryOf(1, 100)); err != nil {
		t.Errorf("the name stands for another: %v", err)
	}
}

func TestStubsAreNotPushed(t *testing.T) {
	bucket := pushed(t, memoryOf(1, 100))
	n := opened(t, newStoreDir(t), bucket)
	if _, err := n.Pull(t.Context(), nameOf("one"), "on-demand"); err != nil {
		t.Fatal(err)
	}
	if err := tier.Remove(t.Context(), bucket, nameOf("one")); err != nil {
		t.Fatal(err)
	}
	if !n.pushes.look(t.Context()) || len(names(t, bucket)) != 0 {
		t.Errorf("what was deleted is back: %v", names(t, bucket))
	}
}

func TestPushingEndsWithItsContext(t *testing.T) {
	n := opened(t, newStoreDir(t), blobtest.Hanging(new(blobtest.Memory), -1))
	freeze(t, n.Store(), "one", memoryOf(1, 100))
	var pauses []time.Duration
	ctx, cancel := context.WithCancel(t.Context())
	n.pushes.wait = func(_ context.Context, d time.Duration) { pauses = append(pauses, d); cancel() }
	stopped := time.AfterFunc(time.Millisecond, cancel)
	defer stopped.Stop()
	if err := n.pushes.run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestConfigurationsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, c := range map[string]Config{
		"no store":                  {},
		"push without object store": {Store: "s", Push: true},
		"peers without keys":        {Store: "s", Peers: &PeersConfig{Static: "a=b:1"}},
		"peers without members":     {Store: "s", Peers: &PeersConfig{Keys: "k"}},
		"two sorts of members":      {Store: "s", Peers: &PeersConfig{Keys: "k", Static: "a=b:1", Listen: ":1", Gossip: &GossipConfig{Bind: "b", KeyFile: "k"}}},
		"gossip without key":        {Store: "s", Peers: &PeersConfig{Keys: "k", Listen: ":1", Gossip: &GossipConfig{Bind: "b"}}},
	} {
		if n, err := Open(t.Context(), c); !errors.Is(err, ErrConfig) || n != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
