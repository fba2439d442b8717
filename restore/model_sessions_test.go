//go:build linux

package restore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// A process has so many pages of ballast beside the model's, so that there is something to stream for more than a moment: 32 chunks. Its
// content is what the image has from page ballastImage on, more than a model has.
const (
	ballast      = 8192
	ballastImage = slots * slotPages
)

// ballastPages returns n pages of it.
func ballastPages(from, n uint64) uffd.Range { return at(slots*slotStride+from, n) }

// ballastSource is the image of all sessions: models differ in what of it they use.
var ballastSource = sync.OnceValue(func() *testSource { return newTestSource(ballastImage + ballast) })

// A member is a session among several on one server, with its process and the children of that.
type member struct {
	*fixture
	name       string
	worlds     []*world
	want       func(addr uint64) []byte // of the ballast, which no process changes
	registered bool
	rnd        *rand.Rand // the model's
}

// join begins a session, of any kind.
func join(t *testing.T, server *Server, name string, rnd *rand.Rand) *member {
	t.Helper()
	l, model := modelLayout(rnd)
	src := &testSource{cold: model.cold, zero: model.zero, bytes: ballastSource().bytes, loaded: make([]bool, ballastImage+ballast)}
	more := ballastPages(0, ballast)
	all := &Layout{Regions: append(slices.Clone(l.Regions), Region{Start: more.Start, End: more.End})}
	all.Extents = append(slices.Clone(l.Extents), Extent{Addr: more.Start, Pages: ballast, Image: ballastImage})
	o := Options{Server: server, Stream: StreamPolicy(rnd.IntN(2)), Workers: 1 + rnd.IntN(2)}
	if rnd.IntN(3) == 0 {
		o.Rate = 256 << 20
	}
	f := begin(t, all, src, o)
	return &member{fixture: f, name: name, worlds: []*world{newWorld(f, l)}, want: original(all, src), rnd: rnd}
}

// step has a process of the member do something, and says what.
func (m *member) step(t *testing.T) string {
	t.Helper()
	i := m.rnd.IntN(len(m.worlds))
	w := m.worlds[i]
	switch n := m.rnd.IntN(40); {
	case !m.registered && n < 10:
		m.register()
		return "registered"
	case !m.registered: // the restorer touches memory, and changes no more of it
		s := m.rnd.IntN(slots)
		if w.mem.slot[s] != nil {
			w.check(t, s, 0, len(w.mem.slot[s].pages))
		}
		return fmt.Sprintf("read slot %d", s)
	case n == 0 && len(m.worlds) < 3:
		m.worlds = append(m.worlds, &world{target: w.target.Fork().Must(), mem: w.mem.clone()})
		return fmt.Sprintf("process %d forks", i)
	}
	return fmt.Sprintf("process %d: %s", i, w.step(t, m.rnd))
}

func (m *member) register() {
	m.Registered()
	m.registered = true
}

// streamsAlone reports whether the session ends without being asked to: children are not streamed.
func (m *member) streamsAlone() bool { return m.opts.Stream == StreamAll && len(m.worlds) == 1 }

// leave ends the session in one of all ways while the others fault, and says in which.
func (m *member) leave(t *testing.T, others []*member) string {
	t.Helper()
	ends := []string{"all processes exit", "drained", "stopped"}
	if !m.registered {
		ends = []string{"aborted", "stopped"}
		if m.rnd.IntN(3) > 0 {
			m.register()
			ends = []string{"drained"}
		}
	}
	if m.registered && m.streamsAlone() {
		ends = append(ends, "streamed", "streamed", "streamed")
	}
	how := ends[m.rnd.IntN(len(ends))]
	touchAtOnce(t, []*member{m}, m.rnd)() // now the reader streams for it
	defer touchAtOnce(t, others, m.rnd)()
	switch how {
	case "all processes exit":
		for _, w := range m.worlds {
			w.target.Exit(0).Must()
		}
	case "drained":
		m.Drain()
	case "stopped":
		m.cancel()
	case "aborted":
		m.Abort(errors.New("the restore came to nothing"))
	}
	err := m.wait()
	switch {
	case how == "aborted" && errors.Is(err, ErrAborted), how == "stopped" && (err == nil || errors.Is(err, ErrKilled)):
		return how
	case err != nil:
		t.Fatalf("%s, %s: Run() = %v", m.name, how, err)
	case how == "drained" || how == "streamed": // all of its memory is there, without anybody who would bring it
		for _, w := range m.worlds {
			w.checkAll(t)
			expect(t, w.target, ballastPages(0, ballast), m.want)
		}
	}
	return how
}

// touchAtOnce has the processes of all members that run fault at the same time, in pages of their ballast. The function that it returns waits
// for them, and checks what they found.
func touchAtOnce(t *testing.T, crowd []*member, rnd *rand.Rand) (wait func()) {
	type touch struct {
		page uint64
		sums *uffdtest.Call[[]uint64]
		of   *member
	}
	var all []touch
	for range 4 {
		for _, m := range crowd {
			if !m.registered {
				continue
			}
			w, p := m.worlds[rnd.IntN(len(m.worlds))], rnd.Uint64N(ballast)
			all = append(all, touch{p, w.target.Sums(ballastPages(p, 1)), m})
		}
	}
	return func() {
		t.Helper()
		for _, c := range all {
			if got, want := c.sums.Must()[0], uffdtest.Sum(c.of.want(ballastPages(c.page, 1).Start)); got != want {
				t.Fatalf("%s: page %d of the ballast reads %#x, want %#x", c.of.name, c.page, got, want)
			}
		}
	}
}

// TestRandomSessionsOnOneServerMatchPlainMemory has sessions come, go and fault on one server, and their processes do all that they may do.
// No session may wait for another: each ends when it is asked to, or all of its memory is there, whatever the others do.
func TestRandomSessionsOnOneServerMatchPlainMemory(t *testing.T) {
	for seed := range *modelSeeds {
		if *modelSeed != 0 {
			seed = *modelSeed
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			o := ServerOptions{Readers: 1 + rnd.IntN(2), Copies: 1 + rnd.IntN(2), Wait: WaitPolicy(rnd.IntN(len(waitPolicies)))}
			server := startServer(t, o)
			say := func(format string, args ...any) {
				if testing.Verbose() {
					t.Logf(format, args...)
				}
			}
			say("%d readers that %v, %d copies", o.Readers, o.Wait, o.Copies)
			var crowd []*member
			joined := 0
			for step := range 100 {
				i := rnd.IntN(len(crowd) + 1)
				switch n := rnd.IntN(25); {
				case len(crowd) < 2 || n == 0 && len(crowd) < 5:
					joined++
					crowd = append(crowd, join(t, server, fmt.Sprintf("session %d", joined), rnd))
					say("step %d: session %d joins", step, joined)
				case i == len(crowd) || n < 6:
					say("step %d: all fault", step)
					touchAtOnce(t, crowd, rnd)()
				case n < 8:
					m := crowd[i]
					crowd = slices.Delete(crowd, i, i+1)
					say("step %d: %s leaves while the others fault", step, m.name)
					say("%s was %s", m.name, m.leave(t, crowd))
				default:
					say("step %d: %s: %s", step, crowd[i].name, crowd[i].step(t))
				}
			}
			for i, m := range crowd {
				say("at the end %s leaves", m.name)
				say("%s was %s", m.name, m.leave(t, crowd[i+1:]))
			}
			for i, r := range server.readers {
				if n := r.load.Load(); n != 0 {
					t.Errorf("reader %d still has %d sessions", i, n)
				}
			}
		})
		if *modelSeed != 0 {
			return
		}
	}
}
