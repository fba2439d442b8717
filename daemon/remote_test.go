package daemon

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/internal/testenv"
	"thaw/node"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/tier"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// pushedFolder returns a folder that stands for an object store, with the snapshot "web" of n pages.
func pushedFolder(t *testing.T, n uint64) (string, blob.Bucket) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bucket")
	b, err := blob.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	name := pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: "web"}
	if _, err := tier.Push(t.Context(), newStore(t, n), name, b, nil); err != nil {
		t.Fatal(err)
	}
	return dir, b
}

// startNode runs a daemon over an empty store, with a folder as object store.
func startNode(t *testing.T, folder string, deadline time.Duration, opts *Options) *running {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	made, err := pagestore.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	n, err := node.Open(t.Context(), node.Config{Store: dir, ObjectStore: "file://" + folder, PageDeadline: deadline, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if opts == nil {
		opts = &Options{}
	}
	opts.Remote = n
	return start(t, n.Store(), opts)
}

func TestASnapshotThatIsElsewhereIsRestoredByItsName(t *testing.T) {
	const n = 600
	folder, _ := pushedFolder(t, n)
	d := startNode(t, folder, 0, nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	r := connect(t, s, n)
	r.finish()
	if got := r.target.Read(pages(0, n)).Must(); !bytes.Equal(got, want(t, 0, n)) {
		t.Error("the process reads other bytes than were frozen")
	}
	if got := r.target.Read(pages(n, n)).Must(); !bytes.Equal(got, make([]byte, n*uffd.PageSize)) {
		t.Error("memory without content does not read as zero")
	}
	end := d.ended(t, s.ID)
	if end.State != control.StateComplete || end.Tiers == nil {
		t.Fatalf("the session ended as %+v", end)
	}
	if tt := end.Tiers; tt.StoredPages != n || tt.LocalPages != 0 || tt.ObjectStore.Bytes != n*uffd.PageSize || tt.Peer.Frames != 0 || tt.HitRatio != 0 {
		t.Errorf("tiers: %+v", tt)
	}

	// The next restore finds all of it here.
	s = d.create(t, control.SessionRequest{Snapshot: "web"})
	if tt := s.Tiers; tt == nil || tt.LocalPages != n || tt.HitRatio != 1 {
		t.Errorf("tiers of the next session: %+v", tt)
	}
	if err := d.Delete(t.Context(), s.ID); err != nil {
		t.Error(err)
	}
}

func TestASnapshotIsDeletedElsewhereDuringItsRestore(t *testing.T) {
	const n = 600
	folder, bucket := pushedFolder(t, n)
	d := startNode(t, folder, 0, nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web", Stream: control.StreamNone})
	name := pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: "web"}
	if err := tier.Remove(t.Context(), bucket, name); err != nil {
		t.Fatal(err)
	}
	if _, err := tier.Collect(t.Context(), bucket, pagestore.DefaultNamespace, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.opts.Store.Remove(t.Context(), name); err != nil { // here, too
		t.Fatal(err)
	}
	r := connect(t, s, n)
	r.finish()
	if got := r.target.Read(pages(0, n)).Must(); !bytes.Equal(got, want(t, 0, n)) {
		t.Error("the process reads other bytes than were frozen")
	}
	r.target.Kill()
	d.ended(t, s.ID)
}

// TestPagesThatCannotBeHadInTimeReachNoProcessAsZeros: the object store loses the pages after the restore has begun.
func TestPagesThatCannotBeHadInTimeReachNoProcessAsZeros(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeaturePoison)
	const n = 8
	folder, _ := pushedFolder(t, n)
	d := startNode(t, folder, 50*time.Millisecond, &Options{ReadAhead: -1})
	s := d.create(t, control.SessionRequest{Snapshot: "web", Stream: control.StreamNone})
	if err := os.RemoveAll(filepath.Join(folder, "v1", pagestore.DefaultNamespace, "packs")); err != nil {
		t.Fatal(err)
	}
	r := connect(t, s, n)
	r.finish()
	data, err := r.target.Read(pages(2, 1)).Wait(t.Context())
	var got *uffdtest.SignalError
	if !errors.As(err, &got) || got.Signal != unix.SIGBUS {
		t.Errorf("reading a page that is gone: %v and %d bytes, want SIGBUS", err, len(data))
	}
	r.target.Kill()
	end := d.ended(t, s.ID)
	if end.State != control.StateFailed || end.FailedPage == nil || !strings.Contains(end.Error, "did not come in time") {
		t.Errorf("the session ended as %s, failed page %+v: %s", end.State, end.FailedPage, end.Error)
	}
}

func TestSnapshotsThatCannotBeBroughtSayWhy(t *testing.T) {
	folder, _ := pushedFolder(t, 8)
	d := startNode(t, folder, 0, nil)
	_, err := d.Create(t.Context(), &control.SessionRequest{Snapshot: "nosuch"})
	mustCode(t, err, control.CodeSnapshotNotFound)
	_, err = d.Pull(t.Context(), pagestore.DefaultNamespace, "nosuch", &control.PullRequest{Mode: control.PullWhole})
	mustCode(t, err, control.CodeSnapshotNotFound)
	_, err = d.Pull(t.Context(), pagestore.DefaultNamespace, "..", &control.PullRequest{Mode: control.PullWhole})
	mustCode(t, err, control.CodeInvalid)
	if err := os.WriteFile(filepath.Join(folder, "v1", pagestore.DefaultNamespace, "names", "broken"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = d.Create(t.Context(), &control.SessionRequest{Snapshot: "broken"})
	var told *control.Error
	if !errors.As(err, &told) || told.Code != control.CodeElsewhere && told.Code != control.CodeCorrupt {
		t.Errorf("a name that is damaged: %v", err)
	}

	alone := start(t, newStore(t, 8), nil)
	_, err = alone.Pull(t.Context(), pagestore.DefaultNamespace, "web", &control.PullRequest{})
	mustCode(t, err, control.CodeNoTiers)
	_, err = alone.Tiers()
	mustCode(t, err, control.CodeNoTiers)
}

func TestAPullThroughTheDaemon(t *testing.T) {
	const n = 300
	folder, _ := pushedFolder(t, n)
	d := startNode(t, folder, 0, nil)
	r, err := d.Pull(t.Context(), pagestore.DefaultNamespace, "web", &control.PullRequest{Mode: control.PullOnDemand})
	if err != nil || r.Here || r.LocalPages != 0 || r.StoredPages != n || r.Source == "" || r.MetaBytes == 0 {
		t.Errorf("on demand: %+v, %v", r, err)
	}
	r, err = d.Pull(t.Context(), pagestore.DefaultNamespace, "web", &control.PullRequest{Mode: control.PullWhole})
	if err != nil || !r.Here || r.LocalPages != n {
		t.Errorf("whole: %+v, %v", r, err)
	}
	tiers, err := d.Tiers()
	if err != nil || tiers.ObjectStore == "" || len(tiers.Sources) != 1 || tiers.Sources[0].Tier != control.TierObjectStore || tiers.RemoteBytes == 0 {
		t.Errorf("tiers: %+v, %v", tiers, err)
	}
	// A session of a client that is gone ends the pull.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Create(ctx, &control.SessionRequest{Snapshot: "other"}); err == nil {
		t.Error("a session for nobody was made")
	}
}
