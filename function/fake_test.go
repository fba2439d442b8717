package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"thaw/cpu"
	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/function/rootfs"
	"thaw/function/runner"
	"thaw/function/version"
	"thaw/internal/testenv"
	"thaw/pagestore"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// An op is what a test can hold, or have fail.
type op string

const (
	opStart   op = "start"
	opRestore op = "restore"
	opImport  op = "import"
	opLoad    op = "load"
	opPrepare op = "prepare"
	opFreeze  op = "freeze"
	opBoot    op = "boot"
	opCall    op = "call"
	opStop    op = "stop"
)

// fakeHost has instances without processes. Whatever one is asked for happens at once, unless the test has put a hook there.
type fakeHost struct {
	t *testing.T

	mu        sync.Mutex
	hooks     map[op]hook
	all       []*fakeInstance
	snapshots map[string]bool // in the store
	removed   []string
	prepared  *runner.Prepared
	onRestore func(name string)
	closeErr  error          // of Close
	lost      error          // of Lost
	prints    string         // by each at its start
	most      int            // instances of one kind that boot or serve
	serving   map[string]int // by kind
}

// A hook is called for each operation of its kind, and may wait.
type hook func(ctx context.Context, i *fakeInstance) error

func (h *fakeHost) on(o op, f hook) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hooks[o] = f
}

func (h *fakeHost) fail(o op, err error) {
	h.on(o, func(context.Context, *fakeInstance) error { return err })
}

// A gate holds operations until the test lets them pass, one after the other.
type gate struct{ c chan error }

func (h *fakeHost) hold(o op) *gate {
	g := &gate{make(chan error)}
	h.on(o, func(ctx context.Context, i *fakeInstance) error {
		select {
		case err := <-g.c:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-i.ended:
			return &runner.EndedError{}
		}
	})
	return g
}

// settle waits until nothing happens any more. Two that update one version's file look for its lock from time to time, by the bubble's clock.
func settle() {
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
}

// pass lets one pass, with an error or without, and waits for what follows from it.
func (g *gate) pass(err error) {
	select {
	case g.c <- err:
	case <-time.After(time.Hour):
		panic("nothing is held")
	}
	settle()
}

// open lets all pass.
func (g *gate) open() {
	close(g.c)
	settle()
}

func (h *fakeHost) do(ctx context.Context, o op, i *fakeInstance) error {
	h.mu.Lock()
	i.did = append(i.did, o)
	f := h.hooks[o]
	h.mu.Unlock()
	if f != nil {
		return f(ctx, i)
	}
	return nil
}

func (h *fakeHost) Start(ctx context.Context, spec instance.Spec) (Instance, error) {
	return h.make(ctx, opStart, spec, "")
}

func (h *fakeHost) Restore(ctx context.Context, spec instance.Spec, name pagestore.Name) (Instance, error) {
	h.mu.Lock()
	there, seen := h.snapshots[name.String()], h.onRestore
	h.mu.Unlock()
	if !there {
		return nil, fmt.Errorf("%s is not in the store", name)
	}
	if seen != nil {
		seen(name.String())
	}
	return h.make(ctx, opRestore, spec, name.String())
}

func (h *fakeHost) make(ctx context.Context, o op, spec instance.Spec, from string) (Instance, error) {
	h.mu.Lock()
	i := &fakeInstance{h: h, spec: spec, from: from, ended: make(chan struct{}), idle: make(chan struct{}), id: fmt.Sprintf("%s-%d", spec.Name, len(h.all))}
	i.state = instance.StateStarted
	if from != "" {
		i.state = instance.StatePrepared
	}
	h.all = append(h.all, i)
	h.mu.Unlock()
	if spec.Log != nil {
		fmt.Fprint(spec.Log, h.prints)
	}
	if err := h.do(ctx, o, i); err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		i.closed++ // nothing of it is left
		return nil, err
	}
	return i, nil
}

func (h *fakeHost) RemoveSnapshot(_ context.Context, name pagestore.Name) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range h.all {
		if i.from == name.String() && i.closed == 0 {
			h.t.Errorf("snapshot %s is removed while instance %s stands on it", name, i.id)
		}
	}
	delete(h.snapshots, name.String())
	h.removed = append(h.removed, name.String())
	return nil
}

// instances returns those that have done all of the operations.
func (h *fakeHost) instances(did ...op) (out []*fakeInstance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range h.all {
		if i.has(did...) {
			out = append(out, i)
		}
	}
	return out
}

// live returns the instances that are not closed.
func (h *fakeHost) live() (out []*fakeInstance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range h.all {
		if i.closed == 0 {
			out = append(out, i)
		}
	}
	return out
}

// check complains of instances that were not closed exactly once.
func (h *fakeHost) check() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range h.all {
		if i.closed != 1 {
			h.t.Errorf("instance %s, which did %v, was closed %d times", i.id, i.did, i.closed)
		}
	}
}

type fakeInstance struct {
	h     *fakeHost
	id    string
	spec  instance.Spec
	from  string
	ended chan struct{}

	// protected by h.mu
	state  instance.State
	did    []op
	loaded instance.LoadOptions
	booted instance.BootOptions
	frozen instance.FreezeOptions
	over   bool // ended is closed
	calls  int
	idle   chan struct{} // closed, and made anew, when calls is 0 again
	counts bool          // as one that boots or serves
	closed int
}

func (i *fakeInstance) has(did ...op) bool {
	for _, want := range did {
		found := false
		for _, o := range i.did {
			found = found || o == want
		}
		if !found {
			return false
		}
	}
	return true
}

func (i *fakeInstance) ID() string             { return i.id }
func (i *fakeInstance) PID() int               { return 1 }
func (i *fakeInstance) Session() string        { return "" }
func (i *fakeInstance) Ended() <-chan struct{} { return i.ended }

func (i *fakeInstance) Lost(context.Context) error {
	i.h.mu.Lock()
	defer i.h.mu.Unlock()
	return i.h.lost
}

// begin complains of what an instance must not be asked for.
func (i *fakeInstance) begin(o op, states ...instance.State) {
	i.h.mu.Lock()
	defer i.h.mu.Unlock()
	for _, s := range states {
		if s == i.state {
			return
		}
	}
	i.h.t.Errorf("%s of instance %s, which is %s", o, i.id, i.state)
}

func (i *fakeInstance) step(ctx context.Context, o op, to instance.State, from ...instance.State) error {
	i.begin(o, from...)
	if err := i.h.do(ctx, o, i); err != nil {
		return err
	}
	i.h.mu.Lock()
	defer i.h.mu.Unlock()
	if i.over {
		return &runner.EndedError{}
	}
	i.state = to
	return nil
}

func (i *fakeInstance) Import(ctx context.Context, _ []string) (time.Duration, error) {
	return 0, i.step(ctx, opImport, instance.StateStarted, instance.StateStarted)
}

func (i *fakeInstance) Load(ctx context.Context, o instance.LoadOptions) (*runner.Loaded, error) {
	i.h.mu.Lock()
	i.loaded = o
	i.h.mu.Unlock()
	return &runner.Loaded{}, i.step(ctx, opLoad, instance.StateLoaded, instance.StateStarted, instance.StatePrepared)
}

func (i *fakeInstance) Prepare(ctx context.Context) (*runner.Prepared, error) {
	if err := i.step(ctx, opPrepare, instance.StatePrepared, instance.StateStarted, instance.StateLoaded); err != nil {
		return nil, err
	}
	i.h.mu.Lock()
	defer i.h.mu.Unlock()
	if i.h.prepared != nil {
		return i.h.prepared, nil
	}
	return &runner.Prepared{}, nil
}

func (i *fakeInstance) Freeze(ctx context.Context, o instance.FreezeOptions) (*instance.FreezeReport, error) {
	name := pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: o.Name}
	if err := name.Validate(); err != nil {
		return nil, err
	}
	if err := i.step(ctx, opFreeze, instance.StateFrozen, instance.StatePrepared); err != nil {
		return nil, err
	}
	i.h.mu.Lock()
	defer i.h.mu.Unlock()
	i.frozen = o
	i.h.snapshots[name.String()] = true
	return &instance.FreezeReport{Name: name, Import: &pagestore.Report{Pages: 100, NewPages: 10}}, nil
}

// kind is what instances of one pool have in common.
func (i *fakeInstance) kind() string {
	return i.spec.Code + " " + i.spec.Name + " " + string(i.loaded.Parameters)
}

// countLocked counts the instance among those that boot or serve, or does not any more.
func (i *fakeInstance) countLocked(yes bool) {
	if i.counts == yes || i.h.most == 0 {
		return
	}
	i.counts = yes
	if !yes {
		i.h.serving[i.kind()]--
		return
	}
	if i.h.serving[i.kind()]++; i.h.serving[i.kind()] > i.h.most {
		i.h.t.Errorf("%d instances of %s, want at most %d", i.h.serving[i.kind()], i.kind(), i.h.most)
	}
}

func (i *fakeInstance) Boot(ctx context.Context, o instance.BootOptions) (*runner.Ready, error) {
	i.h.mu.Lock()
	i.booted = o
	i.countLocked(true)
	i.h.mu.Unlock()
	return &runner.Ready{}, i.step(ctx, opBoot, instance.StateServing, instance.StateLoaded, instance.StatePrepared)
}

func (i *fakeInstance) Call(ctx context.Context, c *runner.Call) (*runner.Result, error) {
	if err := i.serve(ctx); err != nil {
		return nil, err
	}
	value, err := json.Marshal(i.id)
	return &runner.Result{Value: value}, err
}

func (i *fakeInstance) HTTP(ctx context.Context, endpoint string, _ *runner.Request) (*runner.Response, error) {
	if err := i.serve(ctx); err != nil {
		return nil, err
	}
	return &runner.Response{Status: 200, Body: []byte(endpoint)}, nil
}

func (i *fakeInstance) serve(ctx context.Context) error {
	i.h.mu.Lock()
	if i.over || i.state != instance.StateServing {
		i.h.mu.Unlock()
		return &runner.EndedError{}
	}
	i.calls++
	if room := concurrencyOf(i.spec.Name); i.calls > room {
		i.h.t.Errorf("%d calls of instance %s at the same time, want at most %d", i.calls, i.id, room)
	}
	i.h.mu.Unlock()
	defer func() {
		i.h.mu.Lock()
		defer i.h.mu.Unlock()
		if i.calls--; i.calls == 0 {
			close(i.idle)
			i.idle = make(chan struct{})
		}
	}()
	return i.h.do(ctx, opCall, i)
}

func (i *fakeInstance) Stop(ctx context.Context) error {
	i.begin(opStop, instance.StateServing)
	i.h.mu.Lock()
	i.state = instance.StateStopped
	i.countLocked(false)
	idle, busy := i.idle, i.calls > 0
	i.h.mu.Unlock()
	var err error
	if busy {
		select {
		case <-idle:
		case <-i.ended:
		case <-ctx.Done():
			err = fmt.Errorf("it was killed: %w", context.Cause(ctx))
		}
	}
	if err == nil {
		err = i.h.do(ctx, opStop, i)
	}
	i.die()
	return err
}

func (i *fakeInstance) Close() error {
	i.die()
	i.h.mu.Lock()
	defer i.h.mu.Unlock()
	i.closed++
	i.state = instance.StateClosed
	return i.h.closeErr
}

// die ends the process.
func (i *fakeInstance) die() {
	i.h.mu.Lock()
	defer i.h.mu.Unlock()
	i.countLocked(false)
	if !i.over {
		i.over = true
		close(i.ended)
	}
}

// world is a server with an app.
type world struct {
	*testing.T
	host    *fakeHost
	reg     *registry.Registry
	options Options
	server  *Server
}

const app = "shop"

var errTest = errors.New("as the test wants it")

// concurrencyOf returns how many calls an object of that name takes, by the name.
func concurrencyOf(name string) int {
	if strings.HasSuffix(name, "Many") {
		return 3
	}
	return 1
}

// object returns a class with a method and an endpoint. One whose name ends in Many takes three calls at a time.
func object(name string, change ...func(*version.Object)) version.Object {
	o := version.Object{Name: name, Kind: "class", Snapshot: true, Concurrency: concurrencyOf(name), Methods: []version.Method{
		{Name: "run", Kind: "method"}, {Name: "page", Kind: "web"},
	}}
	for _, f := range change {
		f(&o)
	}
	return o
}

// inWorld runs a test in a bubble with a server, which is closed at the end: then no instance may be left, and none closed twice.
func inWorld(t *testing.T, change func(*Options), test func(w *world), objects ...version.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, host: newFakeHost(t), reg: newRegistry(t)}
		w.options = Options{
			Registry: w.reg, Host: w.host, CPU: &cpu.Host{Features: cpu.New("avx", "avx2", "sse2")},
			OpenRoot: func(version.Root) (*rootfs.Root, error) { return new(rootfs.Root), nil },
			Secret:   func(string) (string, bool) { return "", false },
		}
		if change != nil {
			change(&w.options)
		}
		w.deploy("1", objects...)
		w.start()
		defer func() {
			w.stop()
			w.host.check()
		}()
		test(w)
	})
}

func newFakeHost(t *testing.T) *fakeHost {
	return &fakeHost{t: t, hooks: make(map[op]hook), snapshots: make(map[string]bool), serving: make(map[string]int)}
}

func newRegistry(t *testing.T) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(t.TempDir(), &registry.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

func (w *world) start() {
	w.Helper()
	var err error
	if w.server, err = New(&w.options); err != nil {
		w.Fatal(err)
	}
}

func (w *world) stop() {
	w.Helper()
	if err := w.server.Close(context.Background()); err != nil {
		w.Errorf("Close = %v", err)
	}
}

// deploy makes a version current whose code is the text.
func (w *world) deploy(text string, objects ...version.Object) version.Key {
	w.Helper()
	return w.deployApp(version.Description{Objects: objects}, text)
}

func (w *world) deployApp(d version.Description, text string) version.Key {
	w.Helper()
	files := fstest.MapFS{"app.py": {Data: []byte(text), Mode: 0o644}}
	d.SDK, d.Python, d.App, d.Sources = "0.1.0", "3.13.5", app, []string{"app.py"}
	if len(d.Objects) == 0 {
		d.Objects = []version.Object{object("Cart")}
	}
	found, err := version.Collect(files, &d)
	if err != nil {
		w.Fatal(err)
	}
	v, err := version.New(version.Content{
		Description: d, Entry: "app.py", Code: found.Code,
		Root:    version.Root{Kind: "dir", Path: "/srv/root", Digest: "sha256:abc"},
		Runtime: version.Runtime{Python: "3.13.5", SDK: "0.1.0", CRIU: "4.2", Snapshot: 1},
		CPU:     cpu.Confinement{Features: cpu.New("avx", "avx2", "sse2")},
	})
	if err != nil {
		w.Fatal(err)
	}
	if _, err := w.reg.Deploy(context.Background(), v, files); err != nil {
		w.Fatal(err)
	}
	return v.Key
}

// answer is what a call has come to.
type answer struct {
	*Outcome
	err error
}

// later begins a call of an object.
func (w *world) later(ctx context.Context, object string) chan answer {
	c := make(chan answer, 1)
	go func() {
		_, o, err := w.server.Call(ctx, &Target{App: app, Object: object}, &runner.Call{Method: "run"})
		c <- answer{o, err}
	}()
	settle()
	return c
}

// call calls an object, and waits for all that comes of it.
func (w *world) call(object string) answer {
	a := <-w.later(context.Background(), object)
	settle()
	return a
}

// wantBoot complains unless a call waited for that kind of boot.
func (w *world) wantBoot(a answer, want BootKind) {
	w.Helper()
	if a.err != nil {
		w.Fatalf("call fails: %v", a.err)
	}
	if a.Boot != want {
		w.Errorf("call waited for a boot of kind %s, want %s", a.Boot, want)
	}
}

// endAll has all instances die that serve, and the server notice.
func (w *world) endAll() {
	for _, i := range w.host.instances(opBoot) {
		i.die()
	}
	settle()
}

// boots calls an object again and again, without an instance each time, and wants these boots.
func (w *world) boots(object string, want ...BootKind) {
	w.Helper()
	for n, kind := range want {
		a := w.call(object)
		if a.err != nil || a.Boot != kind {
			w.Fatalf("boot %d: %+v, want one of kind %s", n+1, a, kind)
		}
		w.endAll()
	}
}

func (w *world) stats(key version.Key) *registry.Stats {
	w.Helper()
	s, err := w.reg.VersionStats(app, key)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func (w *world) current() version.Key {
	w.Helper()
	key, err := w.reg.Current(app)
	if err != nil {
		w.Fatal(err)
	}
	return key
}

func pending(c chan answer) bool {
	select {
	case a := <-c:
		c <- a
		return false
	default:
		return true
	}
}

// decode reads what a runner says.
func decode[T any](t *testing.T, text string) *T {
	t.Helper()
	v := new(T)
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatal(err)
	}
	return v
}
