package function

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	running  context.Context // ends when Close begins: boots and freezes end with it
	abort    context.CancelFunc
	patience context.Context // ends when Close gives up waiting: instances are killed then
	kill     context.CancelFunc
	group    sync.WaitGroup // calls, and goroutines of pools

	closed   chan struct{} // closed when Close has done its work
	closeErr error         // what Close returns; not read before closed is closed

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
	s := &Server{opts: *o, pools: make(map[poolKey]*pool), closed: make(chan struct{})}
	if err := s.opts.setDefaults(); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(s)
	s.boots = semaphore.NewWeighted(int64(s.opts.Boots))
	s.roots.open = s.opts.OpenRoot
	s.running, s.abort = context.WithCancel(context.Background())
	s.patience, s.kill = context.WithCancel(context.Background())
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
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.group.Done()
	p, w, waitedFor, err := s.acquire(ctx, t, method, kind)
	if err != nil {
		if p != nil {
			s.metrics.failed(p)
		}
		return nil, err
	}
	o := &Outcome{Instance: w.ID(), Boot: waitedFor, Waited: time.Since(begin)}
	done := make(chan error, 1)
	s.group.Go(func() {
		err := do(context.WithoutCancel(ctx), w)
		first := p.release(w, finished(err))
		done <- err
		if first && w.from != "" {
			p.proven(w.from) // nobody waits for the disk
		}
	})
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	o.Took = time.Since(begin)
	s.metrics.called(p, waitedFor, o, err)
	return o, err
}

// finished reports whether an instance has come to the end of a call, whatever the author's code made of it.
func finished(err error) bool {
	var failed *runner.CallError
	return err == nil || errors.As(err, &failed)
}

// enter has Close wait for the caller, who says group.Done at the end.
func (s *Server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ErrClosing
	}
	s.group.Add(1)
	return nil
}

// acquire returns an instance that has the method, and its pool, which the caller releases it to. The pool comes with errors, too, if
// there is such a method.
func (s *Server) acquire(ctx context.Context, t *Target, method, kind string) (*pool, *worker, BootKind, error) {
	for {
		p, err := s.pool(t)
		if err != nil {
			return nil, nil, "", err
		}
		if !slices.ContainsFunc(p.object.Methods, func(m version.Method) bool { return m.Name == method && m.Kind == kind }) {
			return nil, nil, "", noMethod(p.object, t, method, kind)
		}
		w, waitedFor, err := p.acquire(ctx)
		if !errors.Is(err, errOver) {
			return p, w, waitedFor, err
		}
	}
}

// pool returns the pool for a target, of the version that is current.
func (s *Server) pool(t *Target) (*pool, error) {
	parameters, err := canonical(t.Parameters)
	if err != nil {
		return nil, err
	}
	for {
		key, err := s.current(t.App)
		if err != nil {
			return nil, err
		}
		k := poolKey{t.App, t.Object, key, parameters}
		if p := s.serving(k); p != nil {
			return p, nil
		}
		if p, err := s.serve(k); p != nil || err != nil {
			return p, err
		}
	}
}

// current returns the current version of an app. If there is none any more its pools end.
func (s *Server) current(app string) (version.Key, error) {
	if err := version.CheckName(app); err != nil {
		return version.Key{}, fmt.Errorf("app %w: %w", err, ErrNotDeployed)
	}
	key, err := s.opts.Registry.Current(app)
	if errors.Is(err, registry.ErrNotFound) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.retireLocked(app, version.Key{})
		return version.Key{}, fmt.Errorf("app %s: %w", app, ErrNotDeployed)
	}
	return key, err
}

// serving returns the pool if it is there, and of the version that was current last.
func (s *Server) serving(k poolKey) *pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pools[k]; p != nil && p.serves() {
		return p
	}
	return nil
}

// serve makes a pool, or takes one back that was about to end, and has those of other versions end. It returns nil if k's version is not
// current any more.
func (s *Server) serve(k poolKey) (*pool, error) {
	fresh, err := newPool(s, k) // which reads the disk: calls of others need not wait for that
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.serveLocked(k, fresh)
	if p != fresh {
		err = errors.Join(err, fresh.lease.Close())
	}
	return p, err
}

func (s *Server) serveLocked(k poolKey, fresh *pool) (*pool, error) {
	if s.closing {
		return nil, ErrClosing
	}
	// Pools begin and end under the lock, by what is current then: so a call that comes from behind brings no old version back.
	if now, err := s.opts.Registry.Current(k.app); err != nil && !errors.Is(err, registry.ErrNotFound) {
		return nil, err
	} else if now != k.version {
		return nil, nil
	}
	p := s.pools[k]
	if p == nil || !p.revive() {
		p = fresh
		s.pools[k] = p
	}
	s.retireLocked(k.app, k.version)
	return p, nil
}

// retireLocked has the pools of an app end that are of other versions. The caller is in the group.
func (s *Server) retireLocked(app string, current version.Key) {
	for k, p := range s.pools {
		if k.app == app && k.version != current {
			p.retire()
		}
	}
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
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%w: want one JSON object, and there is more", ErrParameters)
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

// Close takes no more calls, waits for those that instances have, has exit hooks run, and returns when no instance is left. Calls that wait
// for an instance get ErrClosing; boots and freezes are given up. When ctx ends before, or an instance takes longer than its patience, it is
// killed. Closing again waits for the same end, and returns the same: what of instances is left.
func (s *Server) Close(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.kill)
	defer stop()
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	s.mu.Unlock()
	if first {
		s.closeErr = s.close()
		close(s.closed)
	}
	<-s.closed
	return s.closeErr
}

func (s *Server) close() error {
	s.abort()
	var g sync.WaitGroup
	pools := s.allPools()
	errs := make([]error, len(pools))
	for i, p := range pools {
		g.Go(func() { errs[i] = p.close() })
	}
	g.Wait()
	s.group.Wait()
	s.kill()
	return errors.Join(errs...)
}
