package placement

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// party is members on the loopback interface, whose clocks run faster.
type party struct {
	t       *testing.T
	keyFile string
	changed chan struct{}
}

func key(b byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(b), 32)))
}

func newParty(t *testing.T) *party {
	p := &party{t, t.TempDir() + "/gossip.key", make(chan struct{}, 1)}
	p.write("# ours\n" + key('a') + "\n")
	return p
}

func (p *party) write(keys string) {
	p.t.Helper()
	if err := os.WriteFile(p.keyFile, []byte(keys), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// open starts a member, which joins the others.
func (p *party) open(name string, hints *Hints, seeds ...*Gossip) (g *Gossip, err error) {
	p.t.Helper()
	g, err = OpenGossip(GossipOptions{
		Name: name, Address: name + ".example:7000", Bind: "127.0.0.1:0", KeyFile: p.keyFile, Hints: hints,
		tune: func(c *memberlist.Config) {
			c.ProbeInterval, c.ProbeTimeout = 50*time.Millisecond, 20*time.Millisecond
			c.GossipInterval, c.PushPullInterval = 5*time.Millisecond, 500*time.Millisecond
			c.SuspicionMult, c.SuspicionMaxTimeoutMult, c.TCPTimeout = 1, 1, time.Second
		},
		onChange: func() {
			select {
			case p.changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { g.Close() })
	for _, s := range seeds {
		if _, joinErr := g.list.Join([]string{s.Addr()}); joinErr != nil {
			err = joinErr
		}
	}
	return g, err
}

// until waits for what members have been told to make a condition true.
func (p *party) until(what string, ok func() bool) {
	p.t.Helper()
	end := time.After(time.Minute)
	for !ok() {
		select {
		case <-p.changed:
		case <-end:
			p.t.Fatalf("a minute passed: %s", what)
		}
	}
}

func TestMembersFindEachOtherAndNoticeWhoDies(t *testing.T) {
	p := newParty(t)
	hints := NewHints(HintOptions{})
	a, _ := p.open("a", hints)
	b, _ := p.open("b", NewHints(HintOptions{}), a)
	c, _ := p.open("c", nil, b)
	all := Static{{"a", "a.example:7000"}, {"b", "b.example:7000"}, {"c", "c.example:7000"}}
	for _, g := range []*Gossip{a, b, c} {
		p.until(g.opts.Name+" knows all", func() bool { return slices.Equal(g.Members(), all) })
	}
	b.Announce("team", "packs/x")
	c.Announce("team", "packs/x") // who remembers nothing can tell, too
	placement := New("a", a, hints, nil)
	p.until("hints arrive", func() bool { return len(hints.Holders(KeyOf("team", "packs/x"))) == 2 })
	// Without a word.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	p.until("b is gone", func() bool { return slices.Equal(a.Members(), Static{all[0], all[2]}) })
	p.until("what b said is gone", func() bool { return slices.Equal(hints.Holders(KeyOf("team", "packs/x")), []string{"c"}) })
	if got := placement.Sources("team", "packs/x", 10); names(got) != "c" {
		t.Errorf("sources are %s", names(got))
	}
	// With a word.
	if err := c.list.Leave(time.Minute); err != nil {
		t.Fatal(err)
	}
	p.until("c is gone", func() bool { return slices.Equal(a.Members(), all[:1]) })
}

func TestHintsReachAllAlsoThoseWhoComeLater(t *testing.T) {
	p := newParty(t)
	var members []*Gossip
	for i := range 8 {
		var seeds []*Gossip
		if i > 0 {
			seeds = members[i-1:]
		}
		g, _ := p.open(fmt.Sprintf("n%02d", i), NewHints(HintOptions{}), seeds...)
		members = append(members, g)
	}
	for _, g := range members {
		p.until(g.opts.Name+" knows all", func() bool { return len(g.Members()) == len(members) })
	}
	var objects []string
	for i := range 100 {
		objects = append(objects, fmt.Sprint("packs/", i))
	}
	members[5].Announce("team", objects...)
	has := func(g *Gossip) bool {
		return !slices.ContainsFunc(objects, func(o string) bool {
			return !slices.Equal(g.opts.Hints.Holders(KeyOf("team", o)), []string{"n05"})
		})
	}
	for _, g := range members {
		p.until(g.opts.Name+" was told", func() bool { return has(g) })
	}
	late, _ := p.open("late", NewHints(HintOptions{}), members[0])
	p.until("who comes later is told", func() bool { return has(late) })
}

func TestWhoHasNotTheKeyIsNoMember(t *testing.T) {
	p := newParty(t)
	a, _ := p.open("a", nil)
	p.write(key('b'))
	if _, err := p.open("b", nil, a); err == nil {
		t.Error("a member of another key joined")
	}
	if got := names(a.Members()); got != "a" {
		t.Errorf("members are %s", got)
	}
}

func TestKeysRotateWithoutARestart(t *testing.T) {
	p := newParty(t)
	a, _ := p.open("a", nil)
	b, _ := p.open("b", nil, a)
	steps := []string{key('a') + "\n" + key('b'), key('b') + "\n" + key('a'), key('b')}
	for i, keys := range steps {
		p.write(keys)
		for _, g := range []*Gossip{a, b} {
			g.followKeys()
			if got := len(g.ring.GetKeys()); got != strings.Count(keys, "\n")+1 {
				t.Errorf("step %d: %d keys", i, got)
			}
		}
		name := fmt.Sprint("c", i)
		c, err := p.open(name, nil, a)
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		p.until(name+" is known", func() bool { return len(b.Members()) == 3 })
		if err := c.list.Leave(time.Minute); err != nil {
			t.Fatal(err)
		}
		c.Close()
		p.until(name+" is gone", func() bool { return len(b.Members()) == 2 })
	}
	p.write("junk")
	a.followKeys()
	if got := a.ring.GetPrimaryKey(); string(got) != strings.Repeat("b", 32) {
		t.Errorf("after a file of no use the key is %q", got)
	}
	p.write(key('a'))
	if _, err := p.open("old", nil, a); err == nil {
		t.Error("a member of the old key joined")
	}
}

func TestRunJoinsAndLeaves(t *testing.T) {
	p := newParty(t)
	a, _ := p.open("a", nil)
	b, _ := p.open("b", nil)
	b.opts.Seeds = []string{a.Addr()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	p.until("b has joined", func() bool { return len(a.Members()) == 2 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	p.until("b has left", func() bool { return len(a.Members()) == 1 })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestJunkFromAMemberHarmsNobody(t *testing.T) {
	p := newParty(t)
	hints := NewHints(HintOptions{})
	a, _ := p.open("a", hints)
	good, _ := appendHint(nil, Hint{Key: KeyOf("team", "x"), Node: "b", Serial: 1}, 512)
	own, _ := appendHint(nil, Hint{Key: KeyOf("team", "y"), Node: "a", Serial: 1}, 512)
	for _, b := range [][]byte{nil, {}, {9}, []byte(strings.Repeat("junk", 1000)), append(slices.Clone(good), "junk"...), own} {
		(*delegate)(a).NotifyMsg(b)
		(*delegate)(a).MergeRemoteState(b, true)
	}
	if got := hints.Holders(KeyOf("team", "x")); !slices.Equal(got, []string{"b"}) {
		t.Errorf("holders are %v", got)
	}
	if got := hints.Holders(KeyOf("team", "y")); len(got) > 0 {
		t.Errorf("others say what this node has: %v", got)
	}
	(*events)(a).NotifyJoin(&memberlist.Node{Name: "odd", Meta: []byte("no address")})
	if got := names(a.Members()); got != "a" {
		t.Errorf("members are %s", got)
	}
}

func TestKeyFiles(t *testing.T) {
	for content, want := range map[string]int{
		key('a'):                              1,
		"#\n\n " + key('a') + "\n" + key('b'): 2,
		"":                                    0, "# only": 0, "junk": 0, key('a')[:12]: 0, key('a') + "\njunk": 0,
	} {
		keys, err := parseKeys([]byte(content))
		if len(keys) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d keys, %v", content, len(keys), err)
		}
		if err != nil && strings.Contains(err.Error(), "junk") {
			t.Errorf("the error shows what may be a key: %v", err)
		}
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	p := newParty(t)
	good := GossipOptions{Name: "a", Address: "h:1", Bind: "127.0.0.1:0", KeyFile: p.keyFile}
	for name, change := range map[string]func(o *GossipOptions){
		"no name":              func(o *GossipOptions) { o.Name = "" },
		"no address":           func(o *GossipOptions) { o.Address = "" },
		"no key file":          func(o *GossipOptions) { o.KeyFile += "x" },
		"no port":              func(o *GossipOptions) { o.Bind = "127.0.0.1" },
		"a port that is none":  func(o *GossipOptions) { o.Advertise = "127.0.0.1:70000" },
		"an address of others": func(o *GossipOptions) { o.Bind = "192.0.2.1:0" },
	} {
		o := good
		change(&o)
		if g, err := OpenGossip(o); err == nil {
			g.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
