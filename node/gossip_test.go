package node

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"thaw/control"
	"thaw/pagestore"
	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/blob/placement"
	"thaw/pagestore/tier"
)

// TestGossipFindsWhoHasASnapshot: by name from the object store, its pages from the node that pulled it.
func TestGossipFindsWhoHasASnapshot(t *testing.T) {
	memory := memoryOf(1, 300)
	store := blobtest.NewRecorder(pushed(t, memory))
	key := filepath.Join(t.TempDir(), "gossip.key")
	if err := os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var nodes []*running
	var join []string
	for _, p := range fleet(t, "a", "b") {
		p.Static, p.Gossip = "", &GossipConfig{Bind: "127.0.0.1:0", KeyFile: key, Join: join}
		nodes = append(nodes, run(t, Config{bucket: store, Peers: p}))
		join = []string{nodes[0].peers.gossip.Addr()}
	}
	eventually(t, func() bool { return len(nodes[0].Tiers().Members) == 2 && len(nodes[1].Tiers().Members) == 2 })
	mustPull(t, nodes[0], control.PullWhole)
	read, _ := readOfPages(t, store, tier.KindPack, tier.KindHot)
	packs := packsOf(t, nodes[0].Store())
	eventually(t, func() bool {
		places := nodes[1].places(packs[0])
		m, ok := places[0].Reader.(*member)
		return ok && m.client.Node() == "a"
	})
	for _, n := range nodes { // who can guess a name must not learn who has it
		if who := n.peers.hints.Holders(placement.KeyOf("ns", tier.NameKey(nameOf("one")).String())); len(who) > 0 {
			t.Errorf("%s has heard that %v have the name", n.peers.keys.Node(), who)
		}
	}
	mustPull(t, nodes[1], control.PullWhole)
	if again, _ := readOfPages(t, store, tier.KindPack, tier.KindHot); again != read {
		t.Errorf("the object store was asked for %d bytes of pages that a peer has", again-read)
	}
	if err := check(nodes[1].Store(), "one", memory); err != nil {
		t.Error(err)
	}
	if sources, err := nodes[1].Sources(nameOf("one")); err != nil || len(sources) != 1 {
		t.Errorf("sources: %v, %v", sources, err)
	}
	checkMetrics(t, nodes[1].Node)
}

func packsOf(t *testing.T, store *pagestore.Store) (keys []tier.Key) {
	t.Helper()
	snap, err := store.Snapshot(nameOf("one"))
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	packs, err := snap.Packs()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		keys = append(keys, tier.PackKey("ns", p.ID))
	}
	return keys
}

// eventually waits for what other goroutines bring about.
func eventually(t *testing.T, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 30_000 {
		if so() {
			return
		}
		<-tick.C
	}
	t.Fatal("it does not come about")
}

// checkMetrics gathers what a node measures.
func checkMetrics(t *testing.T, n *Node) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(n.Collector()); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var bytes float64
	seen := map[string]bool{}
	for _, f := range families {
		seen[f.GetName()] = true
		if f.GetName() == "thaw_tier_bytes_total" {
			for _, m := range f.GetMetric() {
				bytes += m.GetCounter().GetValue()
			}
		}
	}
	if want := float64(300 * pagestore.PageSize); bytes < want {
		t.Errorf("thaw_tier_bytes_total is %v in all, want %v at least", bytes, want)
	}
	for name := range strings.FieldsSeq("thaw_tier_frames_total thaw_tier_requests_total thaw_tier_first_byte_seconds thaw_tier_hedges_total thaw_tier_retries_total " +
		"thaw_store_remote_bytes thaw_peer_sent_bytes_total") {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
}
