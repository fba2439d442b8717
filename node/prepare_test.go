package node

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/blob/blobtest"
)

// serving opens a node that may be asked by a peer, and does not run, until the test ends. The store is made if cfg names none.
func serving(t *testing.T, cfg Config) *Node {
	t.Helper()
	if cfg.Store == "" {
		cfg.Store = newStoreDir(t)
	}
	if cfg.TempDir == "" {
		cfg.TempDir = t.TempDir()
	}
	if cfg.Peers == nil {
		cfg.Peers = fleet(t, "a", "b")[0]
	}
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// made looks, and makes sure that so many snapshots are prepared then, and nothing is left to do.
func made(t *testing.T, n *Node, snapshots int) {
	t.Helper()
	if !n.prepares.look(t.Context()) {
		t.Errorf("not all went well: %+v", n.prepares.report())
	}
	if r := n.Tiers().Made; r == nil || r.Prepared != snapshots || r.Waiting != 0 || r.LeftOut != 0 || r.Failed != 0 || (r.Bytes == 0) != (snapshots == 0) {
		t.Errorf("%+v, want %d", r, snapshots)
	}
}

func TestSnapshotsArePreparedAsTheyComeChangeAndGo(t *testing.T) {
	n := serving(t, Config{})
	if r := n.Tiers().Made; r != nil {
		t.Errorf("before the first look: %+v", r)
	}
	made(t, n, 0)
	freeze(t, n.Store(), "one", memoryOf(1, 300))
	freeze(t, n.Store(), "two", memoryOf(2, 300))
	made(t, n, 2)
	bytes := n.Tiers().Made.Bytes
	made(t, n, 2)
	if now := n.Tiers().Made.Bytes; now != bytes {
		t.Errorf("a look without anything new: %d bytes, and then %d", bytes, now)
	}
	learn(t, n.Store(), "two", 30)
	made(t, n, 2)
	if now := n.Tiers().Made.Bytes; now >= bytes {
		t.Errorf("of a smaller working set %d bytes are made, and were %d", now, bytes)
	}
	// Something else of the same size.
	learn(t, n.Store(), "two", 31) // ten pages, too
	settled := n.prepares.settled[nameOf("two")]
	made(t, n, 2)
	if now := n.prepares.settled[nameOf("two")]; now == settled || now.hint != settled.hint || now.hot != settled.hot {
		t.Errorf("it was dealt with as %+v, and is as %+v", settled, now)
	}
	if err := n.Store().Remove(t.Context(), nameOf("one")); err != nil {
		t.Fatal(err)
	}
	made(t, n, 1)
	if err := n.Store().Remove(t.Context(), nameOf("two")); err != nil {
		t.Fatal(err)
	}
	freeze(t, n.Store(), "two", memoryOf(3, 300))
	made(t, n, 1)
}

func TestSnapshotsArePreparedAfterARestart(t *testing.T) {
	dir := newStoreDir(t)
	n := serving(t, Config{Store: dir})
	freeze(t, n.Store(), "one", memoryOf(1, 300))
	made(t, n, 1)
	n.Close()
	made(t, serving(t, Config{Store: dir}), 1)
}

func TestAStubIsPreparedWhenItsHotPagesHaveCome(t *testing.T) {
	bucket, dir := pushed(t, memoryOf(1, 300)), newStoreDir(t)
	n := serving(t, Config{bucket: bucket, Store: dir})
	if _, err := n.Pull(t.Context(), nameOf("one"), control.PullOnDemand); err != nil {
		t.Fatal(err)
	}
	made(t, n, 0)
	if err := n.Warm(t.Context(), nameOf("one")); err != nil {
		t.Fatal(err)
	}
	made(t, n, 1)
	n.Close()
	again := serving(t, Config{bucket: new(blobtest.Memory), Store: dir})
	made(t, again, 1)
}

func TestAStubThatWasBroughtWholeIsPrepared(t *testing.T) {
	n := serving(t, Config{bucket: pushed(t, memoryOf(1, 300))})
	made(t, n, 0)
	if err := n.Mirror(t.Context(), nameOf("one")); err != nil {
		t.Fatal(err)
	}
	made(t, n, 1)
}

func TestWhatComesIsPreparedWithoutWaitingForTheNextLook(t *testing.T) {
	bucket, configs := pushed(t, memoryOf(1, 300)), fleet(t, "a", "b")
	n := serving(t, Config{bucket: bucket, Peers: configs[0]})
	looked := make(chan struct{})
	n.prepares.wait = func(ctx context.Context, _ time.Duration) {
		select {
		case looked <- struct{}{}:
		case <-ctx.Done():
		}
		select {
		case <-n.prepares.nudge:
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.Run(ctx) }()
	<-looked
	if err := n.Warm(t.Context(), nameOf("one")); err != nil {
		t.Fatal(err)
	}
	<-looked
	if r := n.Tiers().Made; r.Prepared != 1 {
		t.Errorf("%+v", r)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestNothingIsPreparedForNobody(t *testing.T) {
	configs := fleet(t, "a", "b")
	alone, closed, foreign, asked := *configs[0], *configs[0], *configs[0], *configs[0]
	alone.Static = "a=" + configs[0].listener.Addr().String()
	closed.Access = ""
	foreign.Access = filepath.Join(t.TempDir(), "access.json")
	if err := os.WriteFile(foreign.Access, []byte(`{"namespaces": {"ns": ["a", "c"], "other": ["*"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	asked.MadeBytes = -1
	for name, p := range map[string]*PeersConfig{"no other member": &alone, "no access file": &closed, "members of another namespace": &foreign, "if it is not to": &asked} {
		t.Run(name, func(t *testing.T) {
			dir := newStoreDir(t)
			n := serving(t, Config{Store: dir, Peers: p})
			freeze(t, n.Store(), "one", memoryOf(1, 100))
			if n.prepares != nil && !n.prepares.look(t.Context()) {
				t.Error("something went wrong")
			}
			if st := n.shelf.Stats(); st.Prepared != 0 || st.Bytes != 0 {
				t.Errorf("%+v", st)
			}
			n.Close()
		})
	}
	if n := run(t, Config{}); n.prepares != nil {
		t.Error("a node without peers prepares")
	}
}

func TestTheSnapshotsThatWereMadeLastArePreparedAsFarAsThereIsRoom(t *testing.T) {
	peers := fleet(t, "a", "b")[0]
	peers.MadeBytes = 550_000 // each is made from 400 KiB, and made of less
	n := serving(t, Config{Peers: peers})
	freeze(t, n.Store(), "one", memoryOf(1, 300))
	freeze(t, n.Store(), "two", memoryOf(2, 300))
	if !n.prepares.look(t.Context()) {
		t.Error("it would be tried less and less often")
	}
	if r := n.Tiers().Made; r.Prepared != 1 || r.LeftOut != 1 || r.Waiting != 0 || r.Limit != 550_000 {
		t.Errorf("%+v", r)
	}
	size := func(name string) error {
		_, err := n.shelf.Size(t.Context(), "v1/ns/names/"+name)
		return err
	}
	freeze(t, n.Store(), "three", memoryOf(3, 300))
	freeze(t, n.Store(), "vast", memoryOf(4, 3000))
	n.prepares.look(t.Context())
	n.prepares.look(t.Context()) // which finds out what the first one has pushed out
	if r := n.Tiers().Made; r.Prepared != 1 || r.LeftOut != 3 {
		t.Errorf("%+v", r)
	}
	if err := n.Store().Remove(t.Context(), nameOf("vast")); err != nil {
		t.Fatal(err)
	}
	if err := n.Store().Remove(t.Context(), nameOf("three")); err != nil {
		t.Fatal(err)
	}
	if err := size("two"); err != nil { // it was pushed out, and is asked for
		t.Fatal(err)
	}
	n.prepares.look(t.Context())
	if r := n.Tiers().Made; r.Prepared != 1 || r.LeftOut != 1 {
		t.Errorf("%+v", r)
	}
}

func TestWhatCannotBePreparedIsTriedAgain(t *testing.T) {
	temp := filepath.Join(t.TempDir(), "missing")
	n := serving(t, Config{TempDir: temp})
	freeze(t, n.Store(), "one", memoryOf(1, 300))
	if n.prepares.look(t.Context()) {
		t.Error("all went well")
	}
	if r := n.Tiers().Made; r.Prepared != 0 || r.Waiting != 1 || r.Failed != 1 || r.LastError == "" {
		t.Errorf("%+v", r)
	}
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	if !n.prepares.look(t.Context()) {
		t.Error("not all went well")
	}
	if r := n.Tiers().Made; r.Prepared != 1 || r.Waiting != 0 {
		t.Errorf("%+v", r)
	}
}

func TestWhatIsCorruptIsNotTriedAgainAndAgain(t *testing.T) {
	n := serving(t, Config{})
	freeze(t, n.Store(), "one", memoryOf(1, 300))
	freeze(t, n.Store(), "two", memoryOf(2, 300))
	manifest := filepath.Join(n.Store().Dir(), "namespaces", "ns", "snapshots", "one", "manifest")
	if err := os.Truncate(manifest, 100); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !n.prepares.look(t.Context()) {
			t.Error("it would be tried again")
		}
		if r := n.Tiers().Made; r.Prepared != 1 || r.Waiting != 0 || r.Failed != 1 {
			t.Errorf("%+v", r)
		}
	}
}

func TestPreparingWaitsForRestores(t *testing.T) {
	n := new(Node)
	for name, over := range map[string]func(done func(), cancel func()){
		"until it is over":   func(done, _ func()) { done(); done() },
		"for a while":        func(func(), func()) {},
		"until it is to end": func(_, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				first, second := n.Restoring(), n.Restoring()
				defer second()
				waited := make(chan struct{})
				go func() { n.restores.none(ctx); close(waited) }()
				first()
				first()
				synctest.Wait()
				select {
				case <-waited:
					t.Error("it did not wait")
				default:
				}
				over(second, cancel)
				<-waited
			})
		})
	}
}

func TestASnapshotThatIsGoneBeforeItIsPreparedHarmsNothing(t *testing.T) {
	n := serving(t, Config{})
	freeze(t, n.Store(), "one", memoryOf(1, 300))
	entries, err := n.Store().List()
	if err != nil {
		t.Fatal(err)
	}
	todo, _ := n.prepares.changes(entries, func(*pagestore.Entry) bool { return true }, n.came.of)
	if err := n.Store().Remove(t.Context(), nameOf("one")); err != nil {
		t.Fatal(err)
	}
	if err := n.prepares.prepare(t.Context(), &todo[0]); err != nil {
		t.Errorf("%v", err)
	}
	made(t, n, 0)
	if _, err := os.Stat(n.cfg.TempDir); err != nil {
		t.Error(err)
	}
	if files, err := fs.Glob(os.DirFS(n.cfg.TempDir), "*"); err != nil || len(files) > 0 {
		t.Errorf("left are %v; %v", files, err)
	}
}
