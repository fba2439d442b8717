package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/blob/peer"
	"thaw/pagestore/tier"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const base = 0x7f00_0000_0000

func nameOf(snapshot string) pagestore.Name {
	return pagestore.Name{Namespace: "ns", Snapshot: snapshot}
}

// memoryOf returns n pages of which no two are the same, half of them easy to compress.
func memoryOf(seed uint64, n int) []byte {
	b := make([]byte, n*pagestore.PageSize)
	for page := range n {
		rng := rand.New(rand.NewPCG(seed, uint64(page)))
		words := pagestore.PageSize / 8
		if page%2 == 1 {
			words /= 8
		}
		for i := range words {
			binary.LittleEndian.PutUint64(b[page*pagestore.PageSize+8*i:], rng.Uint64())
		}
	}
	return b
}

// freeze makes a snapshot of memory, with a working set of every third page.
func freeze(t testing.TB, store *pagestore.Store, snapshot string, memory []byte) {
	t.Helper()
	pages := len(memory) / pagestore.PageSize
	_, err := store.Import(t.Context(), nameOf(snapshot), pagestore.Input{
		Spaces: []pagestore.Space{{
			ID: 1, Regions: []pagestore.Region{{Start: base, End: base + uint64(len(memory))}}, Runs: []pagestore.Run{{Addr: base, Pages: uint64(pages)}},
		}},
		Files:    []io.ReaderAt{bytes.NewReader(memory)},
		Skeleton: func(dir string) error { return os.WriteFile(filepath.Join(dir, "core-1.img"), []byte(snapshot), 0o600) },
		Host:     json.RawMessage(`{}`),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	learn(t, store, snapshot, 3)
}

// learn gives a snapshot a working set of every so many pages.
func learn(t testing.TB, store *pagestore.Store, snapshot string, every uint64) {
	t.Helper()
	snap, err := store.Snapshot(nameOf(snapshot))
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	im, err := snap.Image()
	if err != nil {
		t.Fatal(err)
	}
	w := pagestore.WorkingSet{Hint: []byte(fmt.Sprint("every ", every))}
	for page := uint64(0); page < im.Pages(); page += every {
		w.Order = append(w.Order, pagestore.PageRun{Image: page, Pages: 1})
	}
	if err := snap.SetWorkingSet(t.Context(), w); err != nil {
		t.Fatal(err)
	}
}

// check compares all memory of a snapshot with what it should be.
func check(store *pagestore.Store, snapshot string, memory []byte) error {
	snap, err := store.Snapshot(nameOf(snapshot))
	if err != nil {
		return err
	}
	defer snap.Close()
	im, err := snap.Image()
	if err != nil {
		return err
	}
	for page := uint64(0); page < im.Pages(); {
		data, n, err := im.Load(page, 50)
		if err != nil {
			return err
		}
		if !bytes.Equal(data, memory[page*pagestore.PageSize:][:n*pagestore.PageSize]) {
			return fmt.Errorf("pages [%d, +%d) are others", page, n)
		}
		page += uint64(n)
	}
	return nil
}

func local(t testing.TB, store *pagestore.Store, snapshot string) (here, all uint64) {
	t.Helper()
	snap, err := store.Snapshot(nameOf(snapshot))
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	l, err := snap.Local()
	if err != nil {
		t.Fatal(err)
	}
	return l.LocalPages, l.StoredPages
}

// running is a node that runs.
type running struct {
	*Node
	stop func() // ends and closes it; idempotent
}

// run opens a node and runs it until the test ends. The store is made if cfg names none.
func run(t testing.TB, cfg Config) *running {
	t.Helper()
	if cfg.Store == "" {
		cfg.Store = newStoreDir(t)
	}
	if cfg.TempDir == "" {
		cfg.TempDir = t.TempDir()
	}
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	end := make(chan error, 1)
	go func() { end <- n.Run(ctx) }()
	stopped := false
	r := &running{n, func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-end; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}}
	t.Cleanup(r.stop)
	return r
}

func newStoreDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	store, err := pagestore.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pushed returns a bucket with a snapshot "one" of memory.
func pushed(t testing.TB, memory []byte) *blobtest.Memory {
	t.Helper()
	store, err := pagestore.Open(newStoreDir(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	freeze(t, store, "one", memory)
	b := new(blobtest.Memory)
	if _, err := tier.Push(t.Context(), store, nameOf("one"), b, nil); err != nil {
		t.Fatal(err)
	}
	return b
}

// fleet makes configurations of nodes that are each other's peers, on the loopback interface, and members of the namespace "ns".
func fleet(t testing.TB, names ...string) []*PeersConfig {
	t.Helper()
	authority, err := peer.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	access := filepath.Join(t.TempDir(), "access.json")
	if err := os.WriteFile(access, []byte(`{"namespaces": {"ns": ["*"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var all []*PeersConfig
	var list []string
	for _, name := range names {
		cert, err := authority.Issue(name, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if _, err := cert.Write(dir); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		all = append(all, &PeersConfig{Keys: dir, Access: access, listener: l})
		list = append(list, name+"="+l.Addr().String())
	}
	for _, c := range all {
		c.Static = strings.Join(list, ",")
	}
	return all
}
