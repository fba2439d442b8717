package function

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"thaw/function/registry"
	"thaw/function/runner"
	"thaw/function/version"
)

// A Server runs the functions of a registry. It is safe for concurrent use.
type Server struct {
	opts    Options
	metrics *metrics
	boots   *semaphore.Weighted // of instances at the same time
	labels  atomic.Int64        // of instances in logs

	running context.Context // ends when Close gives up waiting, with whatever still boots or is frozen
	abort   context.CancelFunc
	group   sync.WaitGroup // goroutines of pools

	templates keyed[version.Key] // one builder for each template
	roots     rootCache

	mu      sync.Mutex
	closing bool              // protected by mu
	pools   map[poolKey]*pool // protected by mu
}

// A poolKey is what the instances of a pool have in common.
type poolKey struct {
	app, object string
	version     version.Key
	parameters  string // canonical JSON; empty: none
}

// New returns a server without instances. Close it.
func New(o *Options) (*Server, error) {
	s := &Server{opts: *o, pools: make(map[poolKey]*pool)}
	if err := s.opts.setDefaults(); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(s)
	s.boots = semaphore.NewWeighted(int64(s.opts.Boots))
	s.roots.open = s.opts.OpenRoot
	s.running, s.abort = context.WithCancel(context.Background())
	return s, nil
}

// An Outcome says how a call went, besides what it returned.
type Outcome struct {
	Instance string        // its name
	Boot     BootKind      // what the call waited for
	Waited   time.Duration // until an instance took it
	Took     time.Duration // in all
}

// Call calls a method of the target. Errors wrap ErrNotDeployed, ErrParameters, ErrClosing, a *BootError, or what the instance's Call returns.
func (s *Server) Call(ctx context.Context, t *Target, c *runner.Call) (*runner.Result, *Outcome, error) {
	var r *runner.Result
	o, err := s.use(ctx, t, c.Method, "method", func(ctx context.Context, i Instance) (err error) {
		r, err = i.Call(ctx, c)
		return err
	})
	if err != nil {
		return nil, o, err
	}
	return r, o, nil
}

// HTTP puts a request to an endpoint of the target. Errors are those of Call.
func (s *Server) HTTP(ctx context.Context, t *Target, endpoint string, req *runner.Request) (*runner.Response, *Outcome, error) {
	var r *runner.Response
	o, err := s.use(ctx, t, endpoint, "web", func(ctx context.Context, i Instance) (err error) {
		r, err = i.HTTP(ctx, endpoint, req)
		return err
	})
	if err != nil {
		return nil, o, err
	}
	return r, o, nil
}

// use has do use an instance of the target. If ctx ends before, do goes on, and the instance is busy until it is done.
func (s *Server) use(ctx context.Context, t *Target, method, kind string, do func(context.Context, Instance) error) (*Outcome, error) {
	begin := time.Now()
	p, err := s.pool(t)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.object.Methods, func(m version.Method) bool { return m.Name == method && m.Kind == kind }) {
		return nil, fmt.Errorf("%s %s of %s: %w", map[string]string{"method": "method", "web": "endpoint"}[kind], method, t, ErrNotDeployed)
	}
	w, waitedFor, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	o := &Outcome{Instance: w.ID(), Boot: waitedFor, Waited: time.Since(begin)}
	done := make(chan error, 1)
	go func() {
		err := do(context.WithoutCancel(ctx), w)
		p.release(w)
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	o.Took = time.Since(begin)
	s.metrics.called(t, waitedFor, o, err)
	return o, err
}

// pool returns the pool for a target, of the version that is current.
func (s *Server) pool(t *Target) (*pool, error) {
	key, err := s.opts.Registry.Current(t.App)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, fmt.Errorf("app %s: %w", t.App, ErrNotDeployed)
	}
	if err != nil {
		return nil, err
	}
	parameters, err := canonical(t.Parameters)
	if err != nil {
		return nil, err
	}
	k := poolKey{t.App, t.Object, key, parameters}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch p := s.pools[k]; {
	case s.closing:
		return nil, ErrClosing
	case p != nil:
		return p, nil
	}
	p, err := newPool(s, k)
	if err != nil {
		return nil, err
	}
	for other, old := range s.pools {
		if other.app == k.app && other.version != k.version {
			old.retire()
		}
	}
	s.pools[k] = p
	return p, nil
}

// canonical returns the JSON object in the one form that all that mean the same have.
func canonical(parameters json.RawMessage) (string, error) {
	if len(bytes.TrimSpace(parameters)) == 0 {
		return "", nil
	}
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(parameters))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		return "", fmt.Errorf("%w: want a JSON object: %w", ErrParameters, err)
	}
	if len(m) == 0 {
		return "", nil
	}
	out, err := json.Marshal(m)
	return string(out), err
}

// forget takes a pool out that has ended.
func (s *Server) forget(p *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pools[p.key] == p {
		delete(s.pools, p.key)
	}
}

// InstanceInfo is what is known of an instance.
type InstanceInfo struct {
	App     string      `json:"app"`
	Object  string      `json:"object"`
	Version version.Key `json:"version"`
	ID      string      `json:"id"`
	PID     int         `json:"pid"` // of its runner, in the server's pid namespace
	Boot    BootKind    `json:"boot"`
	Since   time.Time   `json:"since"` // when it was ready
	Calls   uint64      `json:"calls"` // ever
	Busy    int         `json:"busy"`  // calls that it has now
}

// Instances returns all instances that serve.
func (s *Server) Instances() []InstanceInfo {
	var out []InstanceInfo
	for _, p := range s.allPools() {
		out = append(out, p.info()...)
	}
	slices.SortFunc(out, func(a, b InstanceInfo) int { return a.Since.Compare(b.Since) })
	return out
}

func (s *Server) allPools() []*pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*pool, 0, len(s.pools))
	for _, p := range s.pools {
		out = append(out, p)
	}
	return out
}

// Close takes no more calls, waits for those that there are, has exit hooks run, and returns when no instance is left. When ctx ends before,
// or an instance takes longer than its patience, it is killed.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, s.abort)
	defer stop()
	var g sync.WaitGroup
	pools := s.allPools()
	errs := make([]error, len(pools))
	for i, p := range pools {
		g.Go(func() { errs[i] = p.close(ctx) })
	}
	g.Wait()
	s.abort()
	s.group.Wait()
	return errors.Join(errs...)
}
