package placement

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// GossipOptions say how a node takes part.
type GossipOptions struct {
	// Name is this node's, as in its certificate.
	Name string

	// Address is where this node serves its blobs, "host:port"; the others are told.
	Address string

	// Bind is where gossip comes in, by UDP and TCP, "IP:port". Port 0 stands for any that is free.
	Bind string

	// Advertise is where the others reach that, "IP:port"; "": Bind.
	Advertise string

	// Seeds are gossip addresses of some members, "host:port". Nodes with none wait for others to come.
	Seeds []string

	// KeyFile has the keys with which gossip is encrypted, base64, one on a line; the first is used, all are understood. Run follows it when it changes.
	KeyFile string

	// Hints learn what others have; nil: they do not.
	Hints *Hints

	// Log is told who comes and goes; nil: nobody is.
	Log *slog.Logger

	tune     func(*memberlist.Config) // for tests, whose clocks run faster
	onChange func()                   // members or hints may be others than before
}

// Gossip is a membership that the members keep among themselves: each asks some others now and then whether they live, and tells what it heard. All who have the key
// are believed in that; what they have to show when they are asked for pages is another matter. Safe for concurrent use.
type Gossip struct {
	opts GossipOptions
	ring *memberlist.Keyring
	list *memberlist.Memberlist
	keys []byte // content of the key file; Run's own once that runs

	queue memberlist.TransmitLimitedQueue
	close sync.Once

	mu      sync.Mutex
	members map[string]Member
	now     atomic.Pointer[[]Member] // members, by name
}

var _ Membership = (*Gossip)(nil)

// Bounds for what is told. A packet of gossip has 1400 bytes and carries several messages.
const (
	maxMessage = 512      // of new hints
	maxState   = 64 << 10 // of all hints, to a member that comes and now and then to any
	maxQueue   = 1024     // messages that are still being told; the oldest are dropped
	toldTimes  = 4        // how often each is told, times the logarithm of the members
)

// OpenGossip begins to listen, and is a member among none. Close ends that.
func OpenGossip(opts GossipOptions) (*Gossip, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.onChange == nil {
		opts.onChange = func() {}
	}
	if err := checkMember(opts.Name, opts.Address); err != nil {
		return nil, fmt.Errorf("this node as others are to see it: %w", err)
	}
	g := &Gossip{opts: opts, members: make(map[string]Member)}
	g.now.Store(new([]Member))
	config, err := g.config()
	if err != nil {
		return nil, err
	}
	g.queue.RetransmitMult = toldTimes
	g.queue.NumNodes = func() int { return max(1, len(g.Members())) }
	if g.list, err = memberlist.Create(config); err != nil {
		return nil, fmt.Errorf("listen for gossip at %s: %w", opts.Bind, err)
	}
	return g, nil
}

func (g *Gossip) config() (*memberlist.Config, error) {
	content, err := os.ReadFile(g.opts.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the keys of gossip: %w", err)
	}
	keys, err := parseKeys(content)
	if err != nil {
		return nil, fmt.Errorf("read the keys of gossip: %s: %w", g.opts.KeyFile, err)
	}
	if g.ring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
		return nil, err
	}
	g.keys = content
	c := memberlist.DefaultLANConfig()
	c.Name = g.opts.Name
	c.Label = "thaw"
	c.Keyring = g.ring
	if c.BindAddr, c.BindPort, err = splitAddress(g.opts.Bind); err != nil {
		return nil, fmt.Errorf("where to listen for gossip: %w", err)
	}
	c.AdvertisePort = c.BindPort
	if g.opts.Advertise != "" {
		if c.AdvertiseAddr, c.AdvertisePort, err = splitAddress(g.opts.Advertise); err != nil {
			return nil, fmt.Errorf("where others reach gossip: %w", err)
		}
	}
	c.Logger = slog.NewLogLogger(g.opts.Log.Handler(), slog.LevelDebug)
	c.Delegate = (*delegate)(g)
	c.Events = (*events)(g)
	if g.opts.tune != nil {
		g.opts.tune(c)
	}
	return c, nil
}

func splitAddress(address string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q has no port number", address)
	}
	return host, int(n), nil
}

// Addr returns where this node is reached by gossip, "IP:port".
func (g *Gossip) Addr() string { return g.list.LocalNode().Address() }

// Members returns the members that are not known to be gone, by name.
func (g *Gossip) Members() []Member { return *g.now.Load() }

// Intervals at which Run looks after things.
const (
	lookEvery = 5 * time.Second // at the key file; and for others, when there are none
	seedEvery = 12              // looks between two at the seeds, which join parts that were apart
)

// Run joins the others through the seeds, and stays joined: it tries again while nobody is there, now and then in any case, and follows the key file. It
// returns when ctx ends, after it has told the others; Close is still to be called.
func (g *Gossip) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		if len(g.opts.Seeds) > 0 && (n%seedEvery == 0 || g.list.NumMembers() <= 1) {
			if _, err := g.list.Join(g.opts.Seeds); err != nil {
				g.opts.Log.Warn("members cannot be reached", "seeds", g.opts.Seeds, "err", err)
			}
		}
		g.followKeys()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return g.list.Leave(leaveTime)
		}
	}
}

// leaveTime is how long a member that goes waits for the word to spread.
const leaveTime = 2 * time.Second

// followKeys makes the ring that of the key file, if the file has changed and holds keys.
func (g *Gossip) followKeys() {
	content, err := os.ReadFile(g.opts.KeyFile)
	if err == nil && bytes.Equal(content, g.keys) {
		return
	}
	var keys [][]byte
	if err == nil {
		keys, err = parseKeys(content)
	}
	if err == nil {
		err = follow(g.ring, keys)
	}
	if err != nil {
		g.opts.Log.Error("the changed keys of gossip are of no use, those of before hold", "file", g.opts.KeyFile, "err", err)
		return
	}
	g.keys = content
	g.opts.Log.Info("gossip has other keys", "file", g.opts.KeyFile, "keys", len(keys))
}

// Close leaves without a word, unless Run has said it, and stops listening.
func (g *Gossip) Close() error {
	var err error
	g.close.Do(func() { err = g.list.Shutdown() })
	return err
}

// Announce tells the others, and this node's own hints, that this node has objects of a namespace.
func (g *Gossip) Announce(namespace string, objects ...string) {
	hints := make([]Hint, len(objects))
	for i, object := range objects {
		hints[i] = Hint{Key: KeyOf(namespace, object), Node: g.opts.Name, Serial: uint64(time.Now().UnixMilli())}
		if g.opts.Hints != nil {
			g.opts.Hints.Note(hints[i])
		}
	}
	g.tell(hints)
}

// tell has hints told to some members, in as few messages as may be.
func (g *Gossip) tell(hints []Hint) {
	var message []byte
	for _, h := range hints {
		next, ok := appendHint(message, h, maxMessage)
		if !ok {
			g.queue.QueueBroadcast(broadcast(message))
			next, _ = appendHint(nil, h, maxMessage)
		}
		message = next
	}
	if len(message) > 0 {
		g.queue.QueueBroadcast(broadcast(message))
		g.queue.Prune(maxQueue)
	}
}

// broadcast is a message that no other makes superfluous.
type broadcast []byte

func (broadcast) Invalidates(memberlist.Broadcast) bool { return false }
func (b broadcast) Message() []byte                     { return b }
func (broadcast) Finished()                             {}
func (broadcast) UniqueBroadcast()                      {}

// delegate is the Gossip as memberlist asks it what to tell, and tells it what it heard.
type delegate Gossip

// NodeMeta is what others are told with this node's name.
func (d *delegate) NodeMeta(limit int) []byte {
	b := []byte(d.opts.Address)
	return b[:min(len(b), limit)]
}

// NotifyMsg learns what a member told, and tells on what was new: so it reaches all, and ends.
func (d *delegate) NotifyMsg(b []byte) { (*Gossip)(d).tell(d.learn(b)) }

func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	if len(b) > 0 {
		d.learn(b)
	}
}

// learn returns what was new.
func (d *delegate) learn(b []byte) (news []Hint) {
	if d.opts.Hints == nil {
		return nil
	}
	err := parseHints(b, func(h Hint) {
		// What this node has, it knows better.
		if h.Node != d.opts.Name && d.opts.Hints.Note(h) {
			news = append(news, h)
		}
	})
	if err != nil {
		d.opts.Log.Debug("gossip brought junk", "bytes", len(b), "err", err)
	}
	d.opts.onChange()
	return news
}

func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.queue.GetBroadcasts(overhead, limit)
}

func (d *delegate) LocalState(bool) []byte {
	var b []byte
	if d.opts.Hints != nil {
		d.opts.Hints.each(func(h Hint) (ok bool) {
			b, ok = appendHint(b, h, maxState)
			return ok
		})
	}
	return b
}

// events is the Gossip as memberlist tells it who comes and goes.
type events Gossip

func (e *events) NotifyJoin(n *memberlist.Node)   { e.change(n.Name, string(n.Meta)) }
func (e *events) NotifyUpdate(n *memberlist.Node) { e.change(n.Name, string(n.Meta)) }

func (e *events) NotifyLeave(n *memberlist.Node) {
	if e.opts.Hints != nil {
		e.opts.Hints.Forget(n.Name) // others may bring them back; who is no member is not asked all the same
	}
	e.change(n.Name, "")
}

// change makes a node a member with that address, or none if it has no address that one can ask.
func (e *events) change(name, address string) {
	defer e.opts.onChange()
	err := checkMember(name, address)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.opts.Log.Info("a node is a member", "node", name, "address", address)
		e.members[name] = Member{name, address}
	} else {
		e.opts.Log.Info("a node is no member any more", "node", name)
		delete(e.members, name)
	}
	now := slices.SortedFunc(maps.Values(e.members), func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	e.now.Store(&now)
}
