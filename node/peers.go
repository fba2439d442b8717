package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"thaw/pagestore/blob"
	"thaw/pagestore/blob/peer"
	"thaw/pagestore/blob/placement"
)

// peers are the other nodes: who they are, and how each is asked.
type peers struct {
	keys     *peer.Keys
	access   *peer.Access // nil: there is no file
	listener net.Listener // nil: nobody is served
	address  string       // that others know
	gossip   *placement.Gossip
	hints    *placement.Hints
	static   placement.Static
	receive  *peer.Limiter
	health   health

	mu      sync.Mutex
	clients map[placement.Member]*member // protected by mu
}

func openPeers(cfg *PeersConfig, log *slog.Logger) (_ *peers, err error) {
	p := &peers{clients: make(map[placement.Member]*member), receive: peer.NewLimiter(cfg.Receive), hints: placement.NewHints(placement.HintOptions{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	p.keys, err = peer.OpenKeys(peer.Files{
		Certificate: filepath.Join(cfg.Keys, "node.crt"), Key: filepath.Join(cfg.Keys, "node.key"), Authorities: filepath.Join(cfg.Keys, "authorities.crt"),
	}, log)
	if err != nil {
		return nil, err
	}
	if cfg.Access != "" {
		if p.access, err = peer.OpenAccess(cfg.Access, log); err != nil {
			return nil, err
		}
	}
	if p.listener = cfg.listener; cfg.Listen != "" {
		if p.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, err
		}
	}
	if p.listener != nil {
		p.address = p.listener.Addr().String()
	}
	if cfg.Advertise != "" {
		p.address = cfg.Advertise
	}
	if cfg.Gossip == nil {
		p.static, err = placement.ParseStatic(cfg.Static)
		return p, err
	}
	if host, _, err := net.SplitHostPort(p.address); err != nil || net.ParseIP(host).IsUnspecified() {
		return nil, fmt.Errorf("%w: peers cannot reach %s: say where they can", ErrConfig, p.address)
	}
	p.gossip, err = placement.OpenGossip(placement.GossipOptions{
		Name: p.keys.Node(), Address: p.address, Bind: cfg.Gossip.Bind, Advertise: cfg.Gossip.Advertise, Seeds: cfg.Gossip.Join,
		KeyFile: cfg.Gossip.KeyFile, Hints: p.hints, Log: log,
	})
	return p, err
}

// close stops listening and closes what is idle.
func (p *peers) close() error {
	var errs []error
	if p.gossip != nil {
		errs = append(errs, p.gossip.Close())
	}
	if p.listener != nil {
		if err := p.listener.Close(); !errors.Is(err, net.ErrClosed) { // Run has closed it
			errs = append(errs, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.clients {
		m.client.Close()
	}
	return errors.Join(errs...)
}

// allow reports whether a node may read a namespace here.
func (p *peers) allow(node, namespace string) bool {
	return p.access != nil && p.access.Allows(node, namespace)
}

// readable returns a function that says whether another member may read a namespace here, for one goroutine and a short time; nil if there is none
// that may read anything.
func (p *peers) readable() func(namespace string) bool {
	others := slices.DeleteFunc(slices.Clone(p.all()), func(m placement.Member) bool { return m.Name == p.keys.Node() })
	if len(others) == 0 || p.access == nil {
		return nil
	}
	known := make(map[string]bool)
	return func(namespace string) bool {
		may, ok := known[namespace]
		if !ok {
			may = slices.ContainsFunc(others, func(m placement.Member) bool { return p.allow(m.Name, namespace) })
			known[namespace] = may
		}
		return may
	}
}

// all returns the members as they are known, this node too, by name.
func (p *peers) all() []placement.Member {
	if p.gossip != nil {
		return p.gossip.Members()
	}
	self := p.keys.Node()
	if slices.ContainsFunc(p.static, func(m placement.Member) bool { return m.Name == self }) || p.listener == nil {
		return p.static.Members()
	}
	return append(slices.Clone(p.static.Members()), placement.Member{Name: self, Address: p.address})
}

// Members implements [placement.Membership]: those of all that can be reached.
func (p *peers) Members() []placement.Member {
	return slices.DeleteFunc(slices.Clone(p.all()), func(m placement.Member) bool { return m.Name != p.keys.Node() && p.health.isDown(m.Name) })
}

// placement returns the placement as it is now.
func (p *peers) placement() *placement.Placement {
	var allow func(node, namespace string) bool
	if p.access != nil {
		allow = p.access.Allows
	}
	return placement.New(p.keys.Node(), p, p.hints, allow)
}

// member returns how a member is asked. Those whose address has changed are other members.
func (p *peers) member(m placement.Member) *member {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.clients[m]
	if c == nil {
		for other, old := range p.clients {
			if other.Name == m.Name {
				old.client.Close()
				delete(p.clients, other)
			}
		}
		c = &member{client: peer.NewClient(m.Name, m.Address, p.keys, peer.ClientOptions{Receive: p.receive}), health: &p.health}
		p.clients[m] = c
	}
	return c
}

// member is a peer as a place; what becomes of requests says whether it lives.
type member struct {
	client *peer.Client
	health *health
}

var _ blob.Reader = (*member)(nil)

func (m *member) String() string { return m.client.String() }

func (m *member) Size(ctx context.Context, key string) (int64, error) {
	n, err := m.client.Size(ctx, key)
	m.health.note(ctx, m.client.Node(), err)
	return n, err
}

func (m *member) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := m.client.Open(ctx, key, off, n)
	m.health.note(ctx, m.client.Node(), err)
	return r, err
}

// For how long a node is not asked that could not be reached: it doubles.
const (
	firstDown = time.Second
	maxDown   = time.Minute
)

// health is which nodes could not be reached of late.
type health struct {
	mu   sync.Mutex
	down map[string]*downtime // protected by mu
}

type downtime struct {
	until time.Time
	lasts time.Duration
}

// note notes what became of a request. Of one that was given up nothing is known.
func (h *health) note(ctx context.Context, node string, err error) {
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.down[node]
	if err == nil || answers(err) {
		delete(h.down, node)
		return
	}
	now := time.Now()
	switch {
	case d == nil:
		if h.down == nil {
			h.down = make(map[string]*downtime)
		}
		d = &downtime{lasts: firstDown}
		h.down[node] = d
	case now.Before(d.until): // of several requests that failed together the first has counted
		return
	default:
		d.lasts = min(2*d.lasts, maxDown)
	}
	d.until = now.Add(d.lasts)
}

// answers reports whether an error is an answer of a node that is well, if not the one that was hoped for.
func answers(err error) bool {
	for _, e := range []error{blob.ErrNotFound, blob.ErrRange, blob.ErrBusy} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (h *health) isDown(node string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.down[node]
	return d != nil && time.Now().Before(d.until)
}
