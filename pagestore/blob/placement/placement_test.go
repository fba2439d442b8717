package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func nodes(n int) []Member {
	all := make([]Member, n)
	for i := range all {
		all[i] = Member{fmt.Sprintf("node-%d", i), fmt.Sprintf("10.0.0.%d:7000", i)}
	}
	return all
}

func names(members []Member) string {
	var s []string
	for _, m := range members {
		s = append(s, m.Name)
	}
	return strings.Join(s, " ")
}

// These are part of the protocol: nodes of different versions agree.
func TestOwnersAreWhatTheyWere(t *testing.T) {
	for object, want := range map[string]string{
		"packs/a": "node-3 node-0 node-4",
		"packs/b": "node-0 node-2 node-4",
	} {
		if got := names(Rank(KeyOf("team", object), nodes(5), 3)); got != want {
			t.Errorf("%s belongs to %s, and did to %s", object, got, want)
		}
	}
	if got := fmt.Sprintf("%x", KeyOf("team", "packs/a")); got != "7b49d9f77da05f32c11e97a2ec12b8f8" {
		t.Errorf("the key is %s", got)
	}
	if KeyOf("ab", "c") == KeyOf("a", "bc") {
		t.Error("namespace and object run into each other")
	}
}

func TestAMemberThatComesOrGoesChangesItsOwnShareOnly(t *testing.T) {
	const members, objects, copies = 20, 4000, 3
	all := nodes(members)
	share := map[string]int{}
	for i := range objects {
		key := KeyOf("team", fmt.Sprint(i))
		before := Rank(key, all, copies)
		shuffled := slices.Clone(all)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := Rank(key, shuffled, copies); !slices.Equal(got, before) {
			t.Fatalf("the order of members matters: %s, %s", names(before), names(got))
		}
		for _, m := range before {
			share[m.Name]++
		}
		gone := all[i%members].Name
		without := slices.DeleteFunc(slices.Clone(all), func(m Member) bool { return m.Name == gone })
		after := Rank(key, without, copies)
		kept := slices.DeleteFunc(slices.Clone(before), func(m Member) bool { return m.Name == gone })
		if !slices.Equal(after[:len(kept)], kept) {
			t.Fatalf("%s goes, and %s become %s", gone, names(before), names(after))
		}
	}
	want := objects * copies / members
	for _, m := range all {
		if n := share[m.Name]; n < want*8/10 || n > want*12/10 {
			t.Errorf("%s owns %d objects, its share is %d", m.Name, n, want)
		}
	}
}

func TestRankOfFewer(t *testing.T) {
	for _, tt := range []struct{ members, n, want int }{{0, 3, 0}, {2, 3, 2}, {3, 0, 0}, {3, -1, 0}} {
		if got := Rank(Key{}, nodes(tt.members), tt.n); len(got) != tt.want {
			t.Errorf("%d of %d are %d", tt.n, tt.members, len(got))
		}
	}
}

func TestSourcesAreHoldersThenOwnersAndNeverThisNode(t *testing.T) {
	hints := NewHints(HintOptions{})
	allow := func(node, _ string) bool { return node != "node-7" }
	p := New("node-2", Static(nodes(10)), hints, allow)
	key := KeyOf("team", "packs/a")
	ranked := Rank(key, slices.DeleteFunc(nodes(10), func(m Member) bool { return m.Name == "node-7" || m.Name == "node-2" }), 10)
	if got := p.Sources("team", "packs/a", 10); !slices.Equal(got, ranked) {
		t.Errorf("without hints %s, want %s", names(got), names(ranked))
	}
	holders := []string{ranked[5].Name, ranked[6].Name, ranked[7].Name}
	for i, node := range append(holders, "node-2", "node-7", "node-that-died") {
		hints.Note(Hint{Key: key, Node: node, Serial: uint64(i)})
	}
	got := p.Sources("team", "packs/a", 5)
	if len(got) != 5 || !slices.Equal(got[3:], ranked[:2]) {
		t.Errorf("%s, want three holders and %s", names(got), names(ranked[:2]))
	}
	for _, m := range got[:3] {
		if !slices.Contains(holders, m.Name) {
			t.Errorf("%s is first, and said nothing", m.Name)
		}
	}
	if got := p.Sources("team", "packs/a", 2); len(got) != 2 || !slices.Contains(holders, got[1].Name) {
		t.Errorf("two are %s", names(got))
	}
	if got := p.Sources("other", "packs/a", 10); slices.ContainsFunc(got, func(m Member) bool { return m.Name == "node-2" }) || len(got) != 8 {
		t.Errorf("of another namespace %s", names(got))
	}
	first := map[string]bool{}
	for i := range 10 {
		first[New(fmt.Sprint("other-", i), Static(nodes(10)), hints, nil).Sources("team", "packs/a", 1)[0].Name] = true
	}
	if len(first) < 2 {
		t.Error("all nodes ask the same holder")
	}
	if got := names(p.Owners("team", "packs/a", 3)); got != names(Rank(key, p.allowed("team"), 3)) {
		t.Errorf("owners are %s", got)
	}
}

func TestHintsAreBoundedAndGetOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHints(HintOptions{Objects: 3, Nodes: 2, Age: time.Hour})
		key := func(i int) Key { return KeyOf("team", fmt.Sprint(i)) }
		check := func(i int, want string) {
			t.Helper()
			if got := strings.Join(h.Holders(key(i)), " "); got != want {
				t.Errorf("object %d: %q, want %q", i, got, want)
			}
		}
		note := func(i int, node string, serial uint64, age time.Duration, want bool) {
			t.Helper()
			if got := h.Note(Hint{key(i), node, serial, age}); got != want {
				t.Errorf("note of %s that it has %d is %t", node, i, got)
			}
			time.Sleep(time.Second) // of the bubble's clock
		}
		note(0, "a", 1, 0, true)
		note(0, "a", 1, 0, false)
		note(0, "b", 1, 0, true)
		note(0, "c", 1, 30*time.Minute, false) // two heard of later are there
		check(0, "b a")
		note(0, "c", 2, 0, true)
		check(0, "c b")
		note(0, "b", 5, 0, true)
		check(0, "b c")
		note(1, "a", 1, 0, true)
		note(2, "a", 1, 0, true)
		note(3, "x", 1, 50*time.Minute, false) // older than all
		check(0, "b c")
		note(0, "d", 1, 0, true)
		note(3, "a", 1, 0, true)
		check(1, "") // the one longest not heard of
		check(0, "d b")
		note(4, "a", 1, 2*time.Hour, false)
		h.Wrong(key(0), "d")
		check(0, "b")
		h.Forget("a")
		check(2, "")
		check(3, "")
		if len(h.objects) != 1 || h.order.Len() != 1 {
			t.Errorf("%d objects, %d in order", len(h.objects), h.order.Len())
		}
		time.Sleep(time.Hour)
		check(0, "")
		if len(h.objects) != 0 || h.order.Len() != 0 {
			t.Errorf("%d objects, %d in order", len(h.objects), h.order.Len())
		}
	})
}

func TestHintsAgainstAModel(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := NewHints(HintOptions{Objects: 1 + rng.IntN(8), Nodes: 1 + rng.IntN(4)})
		for range 2000 {
			key := KeyOf("n", fmt.Sprint(rng.IntN(12)))
			node := fmt.Sprint("node-", rng.IntN(6))
			switch rng.IntN(10) {
			case 0:
				h.Forget(node)
			case 1:
				h.Wrong(key, node)
			default:
				h.Note(Hint{key, node, rng.Uint64N(100), time.Duration(rng.IntN(3)) * time.Minute})
			}
			if len(h.objects) != h.order.Len() || len(h.objects) > h.opts.Objects {
				t.Fatalf("seed %d: %d objects, %d in order", seed, len(h.objects), h.order.Len())
			}
			for key, e := range h.objects {
				o := e.Value.(*hinted)
				seen := map[string]bool{}
				for i, s := range o.nodes {
					if seen[s.node] || i > 0 && s.when.After(o.nodes[i-1].when) {
						t.Fatalf("seed %d: %v", seed, o.nodes)
					}
					seen[s.node] = true
				}
				if o.key != key || len(o.nodes) == 0 || len(o.nodes) > h.opts.Nodes {
					t.Fatalf("seed %d: %v", seed, o)
				}
			}
		}
	}
}

func TestStaticMembers(t *testing.T) {
	got, err := ParseStatic("a=10.0.0.1:7000, b=[::1]:7000")
	if err != nil || !slices.Equal(got, Static{{"a", "10.0.0.1:7000"}, {"b", "[::1]:7000"}}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "a", "a=", "=1:1", "a=b", "a=:1", "a=b:1,a=c:1", "a=b:1,", "a=b:", strings.Repeat("x", 129) + "=b:1"} {
		if got, err := ParseStatic(bad); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

func FuzzHints(f *testing.F) {
	b, _ := appendHint(nil, Hint{KeyOf("a", "b"), "node", 7, time.Minute}, 512)
	f.Add(b)
	b, _ = appendHint(b, Hint{KeyOf("a", "c"), "other", 8, 0}, 512)
	f.Add(b)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		err := parseHints(b, func(h Hint) {
			if h.Node == "" || len(h.Node) > maxName || h.Age < 0 {
				t.Errorf("%+v", h)
			}
			var ok bool
			if again, ok = appendHint(again, h, len(b)); !ok {
				t.Error("a message that was read cannot be written")
			}
		})
		if err == nil && len(b) > 1 && string(again) != string(b) {
			t.Errorf("%x is %x after it was written again", b, again)
		}
	})
}

func TestAMessageHasNoMoreThanItsBound(t *testing.T) {
	var b []byte
	n := 0
	for ok := true; ok; n++ {
		if b, ok = appendHint(b, Hint{Node: "node"}, 512); len(b) > 512 {
			t.Fatal(len(b))
		}
	}
	got := 0
	if err := parseHints(b, func(Hint) { got++ }); err != nil || got != n-1 || got != (512-1)/(hintSize+4) {
		t.Errorf("%d hints, %v", got, err)
	}
}
