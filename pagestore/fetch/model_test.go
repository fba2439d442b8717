package fetch_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore/fetch"
)

var (
	modelSeed = flag.Uint64("model.seed", 0, "seed of the one run of TestModel; 0: some runs with seeds of their own")
	modelRuns = flag.Int("model.runs", 60, "runs of TestModel, each with a seed of its own")
)

// TestModel has random calls over random sources, that are slow, fail, stall, lie, break in the middle of a range, die and come back, and
// Close at some time; and looks at what must hold whatever happens:
//
//   - A call that returns nil has all its frames, with the right bytes; another has an error that says why.
//   - No frame is taken twice. No function runs after its call has returned.
//   - Sources are never asked for more at the same time than they have connections, and only once for a frame but for retries, hedges and overtaking.
//   - What Stats says agrees with what the sources saw. Nothing is left in the end.
func TestModel(t *testing.T) {
	if *modelSeed != 0 {
		runModel(t, *modelSeed)
		return
	}
	for range *modelRuns {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed) })
	}
}

// dice is a source of random numbers for several goroutines.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

func (d *dice) ms(n int) time.Duration { return time.Duration(d.n(n)) * time.Millisecond }

const modelFrames = 200

type model struct {
	*testing.T
	*dice
	f       *fetch.Fetcher
	seed    uint64
	places  []*modelPlace
	objects []fetch.Object
	shelves map[fetch.Object]*modelShelf
	calls   sync.WaitGroup
	asked   atomic.Uint64
	good    atomic.Uint64
	wanted  atomic.Uint64 // frames, each as often as it was
	events  struct {
		sync.Mutex
		requests, taken uint64
		first           uint64 // frames that were asked for the first time
	}
}

// modelShelf has how often frames of an object were taken, and when last.
type modelShelf struct {
	mu    sync.Mutex
	taken map[int]uint64
	last  map[int]time.Time
}

// modelPlace is a source with moods.
type modelPlace struct {
	m     *model
	name  string
	tier  int
	most  int
	moods [8]int // of 1000 frames: refuses, stalls, lies, is busy, has it not, is slow; of all: dead

	mu          sync.Mutex
	dead        bool
	running     int
	requests    uint64
	handed      uint64 // frames
	overCrowded bool
}

func (p *modelPlace) String() string         { return p.name }
func (p *modelPlace) Profile() fetch.Profile { return fetch.Profile{Tier: p.tier, Connections: p.most} }

func (p *modelPlace) Frames(ctx context.Context, o fetch.Object, first, n int, deliver func(int, []byte) error) error {
	p.mu.Lock()
	p.requests++
	p.running++
	if p.running > p.most {
		p.overCrowded = true
	}
	dead := p.dead
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running--
	}()
	if dead {
		if p.m.n(2) == 0 {
			return errRefused
		}
		return hangs(ctx, 0)
	}
	for f := first; f < first+n; f++ {
		b, err := p.frame(ctx, o, f)
		if err != nil || b == nil {
			return err
		}
		p.mu.Lock()
		p.handed++
		p.mu.Unlock()
		if err := deliver(f, b); err != nil {
			return err
		}
	}
	return nil
}

// frame returns what the place delivers for a frame; nil: it is through.
func (p *modelPlace) frame(ctx context.Context, o fetch.Object, f int) ([]byte, error) {
	b := content(o, f)
	p.mu.Lock()
	moods := p.moods
	p.mu.Unlock()
	mood, roll := 0, p.m.n(1000)
	for mood < len(moods) && roll >= moods[mood] {
		roll -= moods[mood]
		mood++
	}
	switch mood {
	case 0:
		return nil, errRefused
	case 1:
		return nil, hangs(ctx, f)
	case 2:
		b = wrong(f, b)
	case 3:
		return nil, fetch.ErrBusy
	case 4:
		return nil, fetch.ErrNotHere
	case 5:
		if err := pause(ctx, p.m.ms(3000)); err != nil {
			return nil, err
		}
	case 6:
		return nil, nil
	}
	return b, pause(ctx, p.m.ms(5))
}

func runModel(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{T: t, dice: &dice{r: rand.New(rand.NewPCG(seed, 1))}, seed: seed, shelves: make(map[fetch.Object]*modelShelf)}
		for i := range 1 + m.n(3) {
			o := key(uint64(i))
			m.objects = append(m.objects, o)
			m.shelves[o] = &modelShelf{taken: make(map[int]uint64), last: make(map[int]time.Time)}
		}
		bad := []int{0, 5, 30}[m.n(3)]
		for i := range 1 + m.n(4) {
			p := &modelPlace{m: m, name: string(rune('a' + i)), tier: m.n(2), most: 1 + m.n(5)}
			for j := range p.moods[:7] {
				if m.n(2) == 0 {
					p.moods[j] = m.n(bad + 1)
				}
			}
			m.places = append(m.places, p)
		}
		m.f = fetch.New(fetch.Options{
			MaxFrames: 1 + m.n(32), Near: m.n(6) - 1, Stall: 100*time.Millisecond + m.ms(3000), Kept: m.n(3) - 1, Aside: time.Second, MaxAside: 10 * time.Second,
			Hedge: time.Millisecond + m.ms(100), HedgeShare: float64(m.n(5)-1) / 4, Observe: m.observe,
		}, m.sources)
		for range 50 {
			m.step()
		}
		if m.n(3) > 0 {
			m.quiesce()
		}
		m.f.Close()
		m.calls.Wait()
		m.check()
		if t.Failed() {
			t.Logf("again with -model.seed=%d", seed)
		}
	})
}

func (m *model) observe(e fetch.Event) {
	m.events.Lock()
	defer m.events.Unlock()
	m.events.requests++
	m.events.taken += uint64(e.Taken)
	if e.Cause == fetch.First {
		m.events.first += uint64(e.Frames)
	}
}

// sources are all of them, in random order, or all but one.
func (m *model) sources(fetch.Object) []fetch.Source {
	var all []fetch.Source
	for _, p := range m.places {
		all = append(all, p)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if m.r.IntN(10) == 0 {
		return all[1:]
	}
	return all
}

func (m *model) step() {
	switch n := m.n(100); {
	case n < 80:
		m.call(time.Duration(1+m.n(60_000)) * time.Millisecond)
	case n < 85:
		p := m.places[m.n(len(m.places))]
		p.mu.Lock()
		p.dead = !p.dead
		p.mu.Unlock()
	case n < 97:
		time.Sleep(m.ms(50))
	default:
		time.Sleep(m.ms(10_000))
	}
}

// quiesce has all sources be good, and all calls end.
func (m *model) quiesce() {
	for _, p := range m.places {
		p.mu.Lock()
		p.dead, p.moods = false, [8]int{}
		p.mu.Unlock()
	}
	before := m.good.Load()
	m.call(time.Hour)
	m.calls.Wait()
	if m.good.Load() == before {
		m.Errorf("all sources are good, and nothing comes")
	}
	if s := m.f.Stats(); s.Flights != 0 {
		m.Errorf("%d flights are left", s.Flights)
	}
}

func (m *model) call(patience time.Duration) {
	o := m.objects[m.n(len(m.objects))]
	first := m.n(modelFrames)
	n, class := 1+m.n(3), fetch.Class(m.n(3))
	if class != fetch.Demand {
		n = 1 + m.n(100)
	}
	m.asked.Add(1)
	m.wanted.Add(uint64(n))
	m.calls.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var returned atomic.Bool
		shelf := m.shelves[o]
		start := time.Now()
		err := m.f.Fetch(ctx, o, first, n, class, func(frame int, b []byte) error {
			if err := pause(context.Background(), m.ms(3)); err != nil {
				return err
			}
			if returned.Load() {
				m.Errorf("a frame is offered to a call that has returned")
			}
			if string(b) != string(content(o, frame)) {
				return fetch.ErrWrong
			}
			shelf.mu.Lock()
			defer shelf.mu.Unlock()
			shelf.taken[frame]++
			shelf.last[frame] = time.Now()
			return nil
		})
		returned.Store(true)
		if err == nil {
			m.good.Add(1)
			for _, f := range shelf.missing(first, n, start) {
				m.Errorf("frame %d of %v is said to be there, and was not taken", f, o)
			}
			return
		}
		var e *fetch.Error
		switch {
		case !errors.As(err, &e):
			m.Errorf("an error without reasons: %v", err)
		case !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, fetch.ErrClosed):
			m.Errorf("it ended before its time: %v", err)
		case e.Missing < 1 || e.Missing > n || e.Frame < first || e.Frame >= first+n:
			m.Errorf("%d of %d+%d are missing, and %d is the first: %v", e.Missing, first, n, e.Frame, err)
		}
	})
}

// missing returns the frames that were not taken since start. One that was being taken then counts.
func (s *modelShelf) missing(first, n int, start time.Time) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []int
	for f := first; f < first+n; f++ {
		if at, ok := s.last[f]; !ok || at.Before(start) {
			all = append(all, f)
		}
	}
	return all
}

// check compares what is said with what has happened, after Close.
func (m *model) check() {
	stats := m.f.Stats()
	if stats.Flights != 0 {
		m.Errorf("%d flights are left", stats.Flights)
	}
	var calls uint64
	for _, n := range stats.Calls {
		calls += n
	}
	if calls > m.asked.Load() {
		m.Errorf("%d calls are counted, and %d were made", calls, m.asked.Load())
	}
	of := make(map[string]fetch.SourceStats)
	for _, s := range stats.Sources {
		of[s.Source] = s
	}
	var requests, taken uint64
	for _, p := range m.places {
		if p.running != 0 || of[p.name].Running != 0 {
			m.Errorf("%s: %d requests run, %d are said to", p.name, p.running, of[p.name].Running)
		}
		if p.overCrowded {
			m.Errorf("%s got more than %d requests at the same time", p.name, p.most)
		}
		var mine fetch.ClassStats
		for _, c := range of[p.name].Classes {
			mine.Requests += c.Requests
			mine.Frames += c.Frames
			mine.Bytes += c.Bytes
			mine.WastedFrames += c.WastedFrames
			if c.HedgesWon+c.HedgesWasted != c.Hedges {
				m.Errorf("%s: %d hedges, of which %d have won and %d not", p.name, c.Hedges, c.HedgesWon, c.HedgesWasted)
			}
		}
		if mine.Requests != p.requests || mine.Frames+mine.WastedFrames != p.handed || mine.Bytes != frameSize*mine.Frames {
			m.Errorf("%s: %d requests and %d frames, %d wasted are counted, %d and %d were", p.name, mine.Requests, mine.Frames, mine.WastedFrames, p.requests, p.handed)
		}
		requests, taken = requests+p.requests, taken+mine.Frames
	}
	if m.events.requests != requests || m.events.taken != taken {
		m.Errorf("an observer was told of %d requests and %d frames, and there were %d and %d", m.events.requests, m.events.taken, requests, taken)
	}
	if n := m.total(); n != taken {
		m.Errorf("%d frames were taken, and %d are counted", n, taken)
	}
	if flights := m.wanted.Load() - stats.Joined; m.events.first > flights || taken > flights {
		m.Errorf("%d frames were asked for the first time and %d were taken, of %d flights", m.events.first, taken, flights)
	}
}

// total returns how many frames were taken.
func (m *model) total() (n uint64) {
	for _, s := range m.shelves {
		for _, k := range s.taken {
			n += k
		}
	}
	return n
}
