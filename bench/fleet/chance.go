package fleet

import (
	"math"
	"math/rand/v2"
	"sort"
)

// A latency is a distribution of times in seconds: lognormal, by its median and its 99th percentile.
type latency struct {
	median, sigma float64
}

// z95 and z99 are those quantiles of the normal distribution.
const (
	z95 = 1.6449
	z99 = 2.3263
)

func newLatency(p50, p99 float64) latency {
	return latency{p50, math.Log(p99/p50) / z99}
}

func (l latency) draw(r *rand.Rand) float64 { return l.median * math.Exp(l.sigma*r.NormFloat64()) }

// p95 returns the time that 95 of 100 are below.
func (l latency) p95() float64 { return l.median * math.Exp(l.sigma*z95) }

// zipf chooses among n things, of which the k-th is chosen in proportion to 1/k^s. Other than rand.Zipf it takes any s >= 0.
type zipf []float64 // running sums of the weights

func newZipf(n int, s float64) zipf {
	z := make(zipf, n)
	sum := 0.0
	for i := range z {
		sum += math.Pow(float64(i+1), -s)
		z[i] = sum
	}
	return z
}

func (z zipf) draw(r *rand.Rand) int {
	return min(sort.SearchFloat64s(z, r.Float64()*z[len(z)-1]), len(z)-1)
}
