package suite

import (
	"fmt"
	"time"

	"thaw/bench/result"
	"thaw/uffd/uffdtest"
)

// The metrics that several scenarios have.
var (
	latency  = result.Metric{Name: "latency", Unit: "ns", Many: true} // of accesses that faulted
	fillRate = result.Metric{Name: "fill", Unit: "B/s", Higher: true}
	cpuCost  = result.Metric{Name: "cpu", Unit: "s/GB"} // core-seconds of the server for each 1e9 bytes
)

// one observes a single value.
func one(m result.Metric, v float64) result.Observation {
	return result.Observation{Metric: m, Values: []float64{v}}
}

// many observes latencies.
func many(m result.Metric, took []time.Duration) result.Observation {
	values := make([]float64, len(took))
	for i, d := range took {
		values[i] = float64(d.Nanoseconds())
	}
	return result.Observation{Metric: m, Values: values}
}

// faulted returns how long the accesses took that faulted.
func faulted(all []uffdtest.Access) []time.Duration {
	var took []time.Duration
	for _, a := range all {
		if a.Faulted {
			took = append(took, a.Latency)
		}
	}
	return took
}

// latencies returns how long the accesses took, whether they faulted or not.
func latencies(all []uffdtest.Access) []time.Duration {
	took := make([]time.Duration, len(all))
	for i, a := range all {
		took[i] = a.Latency
	}
	return took
}

func sum(all []time.Duration) (total time.Duration) {
	for _, d := range all {
		total += d
	}
	return total
}

// rate returns bytes a second.
func rate(bytes uint64, d time.Duration) float64 { return float64(bytes) / d.Seconds() }

// perGB returns core-seconds for each 1e9 bytes.
func perGB(cpu time.Duration, bytes uint64) float64 { return cpu.Seconds() / (float64(bytes) / 1e9) }

// check returns an error if an access found another word than want says of its page.
func check(all []uffdtest.Access, want func(page uint64) uint64) error {
	for _, a := range all {
		if w := want(a.Page); a.Word != w {
			return fmt.Errorf("page %d begins with %#x, want %#x: the memory is wrong, and so would be the figures", a.Page, a.Word, w)
		}
	}
	return nil
}
