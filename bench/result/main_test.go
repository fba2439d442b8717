package result

import (
	"fmt"
	"time"
)

// sample makes a document with a distribution and a rate, of the engine and of a baseline. factor makes the engine slower.
func sample(factor float64) *Document {
	d := &Document{
		Host:      Host{CPU: "A CPU", Cores: 2, Kernel: "6.18.0", Arch: "amd64", Commit: "abc", Date: time.Unix(1e9, 0).UTC()},
		Settings:  Settings{Repetitions: 6, Scenarios: []string{"fault-under-fill"}},
		Scenarios: []Scenario{{Name: "fault-under-fill", Summary: "Waits.", Charts: []Chart{{Kind: Distribution, Title: "Latency", Metric: "latency"}}, Notes: []string{"left out"}}},
	}
	latency, rate := Metric{Name: "latency", Unit: "ns", Many: true}, Metric{Name: "fill", Unit: "B/s", Higher: true}
	for rep := range 6 {
		for subject, base := range map[string]float64{"c-poll": 100, "thaw": 100 * factor} {
			var values []float64
			for i := range 100 {
				values = append(values, base+float64(i+rep))
			}
			d.Add("fault-under-fill", P("threads", fmt.Sprint(1)), subject, []Observation{
				{Metric: latency, Values: values},
				{Metric: rate, Values: []float64{1e9/factor + float64(rep)}, Curve: []Point{{0, 0}, {1, 1e9}}},
			})
		}
	}
	d.Goals = []Goal{{Scenario: "fault-under-fill", Name: "p50 over C", Params: P("threads", "1"), Want: 1.1, Reached: factor, Met: factor <= 1.1, Ours: 150 * factor, Floor: 150, Unit: "ns"}}
	d.Finish()
	return d
}
