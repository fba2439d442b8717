package fetch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"thaw/internal/testenv"
	"thaw/pagestore/fetch"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var obj = fetch.Object{Namespace: "ns", Key: "pack"}

// frameSize is small: nothing here depends on it.
const frameSize = 64

// content is what a frame has to be.
func content(o fetch.Object, frame int) []byte {
	b := make([]byte, 0, frameSize)
	for len(b) < frameSize {
		b = fmt.Appendf(b, "%s/%d,", o, frame)
	}
	return b[:frameSize]
}

// asked is one request that a place got.
type asked struct {
	first, n int
	at       time.Duration // since the place was made
}

// place is a source that does what a test says.
type place struct {
	name    string
	profile fetch.Profile
	born    time.Time

	mu sync.Mutex
	// frame is called before each frame is delivered; nil: the place takes a millisecond for each.
	frame func(ctx context.Context, frame int) error
	// change changes what is delivered.
	change    func(frame int, b []byte) []byte
	requests  []asked
	delivered map[int]int // how often each frame was
	running   int
	most      int // that ran at the same time
}

func newPlace(name string, frame func(ctx context.Context, frame int) error) *place {
	return &place{name: name, frame: frame, born: time.Now(), delivered: make(map[int]int)}
}

func (p *place) String() string         { return p.name }
func (p *place) Profile() fetch.Profile { return p.profile }

func (p *place) Frames(ctx context.Context, o fetch.Object, first, n int, deliver func(int, []byte) error) error {
	p.mu.Lock()
	p.requests = append(p.requests, asked{first, n, time.Since(p.born)})
	p.running++
	p.most = max(p.most, p.running)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running--
	}()
	for f := first; f < first+n; f++ {
		p.mu.Lock()
		wait, change := p.frame, p.change
		p.mu.Unlock()
		if wait == nil {
			wait = takes(time.Millisecond)
		}
		if err := wait(ctx, f); err != nil {
			return err
		}
		b := content(o, f)
		if change != nil {
			b = change(f, b)
		}
		p.mu.Lock()
		p.delivered[f]++
		p.mu.Unlock()
		if err := deliver(f, b); err != nil {
			return err
		}
	}
	return nil
}

// bySecond returns the first frames of the ranges that were asked for in each second in which there were any.
func (p *place) bySecond() (all [][]int) {
	last := time.Duration(-1)
	for _, r := range p.log() {
		if s := r.at / time.Second; s != last {
			all, last = append(all, nil), s
		}
		all[len(all)-1] = append(all[len(all)-1], r.first)
	}
	for _, second := range all {
		slices.Sort(second)
	}
	return all
}

// becomes has the place do something else from now on.
func (p *place) becomes(frame func(ctx context.Context, frame int) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frame = frame
}

// ranges returns what was asked for, as "first+n".
func (p *place) ranges() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, r := range p.requests {
		all = append(all, fmt.Sprintf("%d+%d", r.first, r.n))
	}
	return all
}

// log returns the requests that came.
func (p *place) log() []asked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// repents has the place deliver the truth.
func (p *place) repents() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change = nil
}

func (p *place) asks() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.requests)
}

// times returns how often a frame was delivered.
func (p *place) times(frame int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delivered[frame]
}

// peak returns how many requests ran at the same time, at most.
func (p *place) peak() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

// frames returns how many frames were delivered.
func (p *place) frames() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.delivered {
		n += k
	}
	return n
}

// takes has a frame take some time.
func takes(d time.Duration) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error { return pause(ctx, d) }
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hangs never delivers.
func hangs(ctx context.Context, _ int) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// says fails with an error.
func says(err error) func(context.Context, int) error {
	return func(context.Context, int) error { return err }
}

var errRefused = errors.New("connection refused")

// wrong is content that is not the frame's.
func wrong(_ int, b []byte) []byte { return bytes.Repeat([]byte{'x'}, len(b)) }

// shelf takes frames, and checks them.
type shelf struct {
	t testing.TB
	o fetch.Object

	mu    sync.Mutex
	taken map[int]int
}

func newShelf(t testing.TB, o fetch.Object) *shelf {
	return &shelf{t: t, o: o, taken: make(map[int]int)}
}

func (s *shelf) take(frame int, b []byte) error {
	if !bytes.Equal(b, content(s.o, frame)) {
		return fmt.Errorf("frame %d: %w", frame, fetch.ErrWrong)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[frame]++; s.taken[frame] > 1 {
		s.t.Errorf("frame %d is taken %d times", frame, s.taken[frame])
	}
	return nil
}

func (s *shelf) frames() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.taken))
}

// world is a Fetcher over some places, in a bubble of its own time.
type world struct {
	*testing.T
	*fetch.Fetcher
	shelf *shelf
	calls sync.WaitGroup

	mu     sync.Mutex
	places []*place
	events []fetch.Event
}

// inWorld runs a test. Jitter is its upper end.
func inWorld(t *testing.T, opts fetch.Options, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, shelf: newShelf(t, obj)}
		if opts.Random == nil {
			opts.Random = func() float64 { return 1 }
		}
		if opts.Observe == nil {
			opts.Observe = func(e fetch.Event) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.events = append(w.events, e)
			}
		}
		w.Fetcher = fetch.New(opts, w.sources)
		defer func() {
			w.Close()
			w.calls.Wait()
		}()
		f(w)
	})
}

func (w *world) sources(fetch.Object) []fetch.Source {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []fetch.Source
	for _, p := range w.places {
		all = append(all, p)
	}
	return all
}

func (w *world) add(p ...*place) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.places = append(w.places, p...)
}

// fetch fetches with a deadline that tests do not meet by accident.
func (w *world) fetch(first, n int, class fetch.Class) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	return w.Fetch(ctx, obj, first, n, class, w.shelf.take)
}

// must fails the test unless the frames come.
func (w *world) must(first, n int, class fetch.Class) {
	w.Helper()
	if err := w.fetch(first, n, class); err != nil {
		w.Fatal(err)
	}
}

// started is a Fetch that runs beside the test.
type started struct {
	w      *world
	cancel context.CancelCauseFunc
	result chan error
}

func (w *world) start(ctx context.Context, first, n int, class fetch.Class, take fetch.Deliver) *started {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &started{w, cancel, make(chan error, 1)}
	w.calls.Go(func() { s.result <- w.Fetch(ctx, obj, first, n, class, take) })
	synctest.Wait()
	return s
}

func (w *world) begin(first, n int, class fetch.Class) *started {
	return w.start(context.Background(), first, n, class, w.shelf.take)
}

func (s *started) end() error { return <-s.result }

func (s *started) must() {
	s.w.Helper()
	if err := s.end(); err != nil {
		s.w.Fatal(err)
	}
}

// running reports whether Fetch has not returned, after all that happens at this moment.
func (s *started) running() bool {
	synctest.Wait()
	return len(s.result) == 0
}

// of returns what the Fetcher knows of a source.
func (w *world) of(name string) fetch.SourceStats {
	w.Helper()
	for _, s := range w.Stats().Sources {
		if s.Source == name {
			return s
		}
	}
	w.Fatalf("nothing is known of %s", name)
	return fetch.SourceStats{}
}

func (w *world) equal(what string, got, want any) {
	w.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("%s: %v, want %v", what, got, want)
	}
}

// key makes objects that differ.
func key(n uint64) fetch.Object {
	return fetch.Object{Namespace: "ns", Key: fmt.Sprintf("%x", binary.BigEndian.AppendUint64(nil, n))}
}
