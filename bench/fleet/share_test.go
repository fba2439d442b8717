package fleet

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// sojourn returns the mean time that jobs of mean size 1 take on a link, which arrive at random.
func sojourn(l *link, rate, limit float64, jobs int) float64 {
	r := rand.New(rand.NewPCG(7, uint64(rate*1000)))
	var c clock
	total, begun := 0.0, 0
	var next func()
	next = func() {
		if begun++; begun == jobs {
			return
		}
		c.after(r.ExpFloat64()/rate, next)
		at := c.now
		share(&c, r.ExpFloat64(), limit, 1, l, nil, func() { total += c.now - at })
	}
	c.after(0, next)
	for c.step() {
	}
	return total / float64(jobs-1)
}

func TestSharedLinkTakesAsLongAsTheorySays(t *testing.T) {
	const jobs = 200_000
	for _, load := range []float64{0.3, 0.5, 0.8} {
		t.Run(fmt.Sprintf("M/M/1 with processor sharing at load %g", load), func(t *testing.T) {
			got, want := sojourn(&link{capacity: 1, exact: true}, load, 1, jobs), 1/(1-load)
			if math.Abs(got/want-1) > 0.05 {
				t.Errorf("a job takes %.3f on average, want %.3f", got, want)
			}
		})
		t.Run(fmt.Sprintf("four cores, a job on one of them, at load %g", load), func(t *testing.T) {
			// With a limit of one core for each job the number of jobs is that of M/M/4, whose mean is Erlang's.
			const cores = 4
			a := load * cores
			term, sum := 1.0, 0.0
			for k := range cores {
				sum += term
				term *= a / float64(k+1)
			}
			waits := term / (1 - load) / (sum + term/(1-load))
			got, want := sojourn(&link{capacity: cores, exact: true}, a, 1, jobs), 1+waits/(cores-a)
			if math.Abs(got/want-1) > 0.05 {
				t.Errorf("a job takes %.3f on average, want %.3f", got, want)
			}
		})
	}
}

func TestJobIsAsFastAsItsSlowestLink(t *testing.T) {
	var c clock
	fast, slow := &link{capacity: 100}, &link{capacity: 10}
	ends := make(map[string]float64)
	end := func(name string) func() { return func() { ends[name] = c.now } }
	share(&c, 100, 1e9, 1, fast, slow, end("both"))
	share(&c, 100, 1e9, 1, fast, nil, end("fast")) // half of the fast link: what the other cannot use is not given to it
	share(&c, 6, 1, 1, fast, nil, end("limited"))
	for c.step() {
	}
	// 100/3 until 100/50 with two: three share until "fast" has its 100: it ends at 3; the limited one at 6, both at 10.
	for name, want := range map[string]float64{"both": 10, "fast": 3, "limited": 6} {
		if math.Abs(ends[name]-want) > 1e-9 {
			t.Errorf("%s ends at %g, want %g", name, ends[name], want)
		}
	}
}

// Jobs of random sizes and weights on random pairs of links, some of which are stopped: what is done and what is left is what there was, and no
// link ever carries more than it can.
func TestLinksCarryWhatTheyAreGivenAndNoMoreThanTheyCan(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var c clock
	links := make([]*link, 6)
	for i := range links {
		links[i] = &link{capacity: float64(10 * (i + 1))}
	}
	running := make(map[*job]float64)
	var order []*job
	for range 4000 {
		c.after(r.Float64()*100, func() {
			a := r.IntN(len(links))
			b := (a + 1 + r.IntN(len(links)-1)) % len(links)
			size := r.Float64() * 20
			weight := []float64{1, 0.25}[r.IntN(2)]
			var j *job
			j = share(&c, size, 50, weight, links[a], links[b], func() {
				j.settle()
				if j.left > 1e-6 {
					t.Errorf("a job ends with %g of %g left", j.left, size)
				}
				delete(running, j)
			})
			running[j] = size
			order = append(order, j)
			if victim := order[r.IntN(len(order))]; r.IntN(10) == 0 && running[victim] > 0 {
				if left := victim.stop(); left < 0 || left > running[victim] {
					t.Errorf("%g of %g are left", left, running[victim])
				}
				delete(running, victim)
			}
			for i, l := range links {
				sum := 0.0
				for _, j := range l.jobs {
					sum += j.rate
				}
				if sum > l.capacity*(1+1e-9) {
					t.Errorf("link %d carries %g, and can %g", i, sum, l.capacity)
				}
				if len(l.jobs) > 0 && l.used > l.weight*(1+2*slack)/(1-2*slack) {
					t.Errorf("link %d reckons with a weight of %g, and has %g", i, l.used, l.weight)
				}
			}
		})
	}
	for c.step() {
	}
	if len(running) != 0 {
		t.Errorf("%d jobs never ended", len(running))
	}
	for i, l := range links {
		if len(l.jobs) != 0 || l.weight != 0 {
			t.Errorf("link %d has %d jobs of weight %g in the end", i, len(l.jobs), l.weight)
		}
	}
}
