package report

import (
	"math/rand/v2"
	"time"

	"thaw/bench/lab"
)

// sample is a report with all modes, in figures like those of a real one.
func sample() *Report {
	typical := map[lab.Mode]struct{ running, first, w float64 }{
		lab.Cold:      {0.05, 5.6, 0.03},
		lab.CRIUEager: {0.41, 0.46, 0.03},
		lab.CRIULazy:  {0.26, 0.47, 0.03},
		lab.Thaw:      {0.22, 0.29, 0.03},
		lab.Floor:     {0.20, 0, 0},
	}
	random := rand.New(rand.NewPCG(1, 2))
	var runs []Run
	for round := range 5 {
		for i, cache := range lab.Caches() {
			for _, mode := range lab.Modes() {
				t, slower := typical[mode], 1+float64(2*i)*random.Float64()
				run := Run{Run: lab.Run{Mode: mode, Cache: cache, ToRunning: t.running * slower, BytesRead: uint64(3e8 * float64(i))}, Round: round + 1}
				if mode != lab.Floor {
					first, w := t.first*slower, t.w
					run.ToFirstResponse, run.WarmCall = &first, &w
				}
				if mode == lab.Thaw || mode == lab.CRIULazy {
					faults := uint64(1000 + round)
					run.FaultsServed = &faults
				}
				runs = append(runs, run)
			}
		}
	}
	goals := Goals{ColdToThaw: map[lab.Cache]float64{lab.Warm: 10, lab.Dropped: 5}, ThawToEager: 0.5, ThawToLazy: 0.6}
	return &Report{
		Runs:    runs,
		Summary: Summarize("MiniLM sentence embedder", lab.Snapshot{}, runs, goals),
		Host: Host{
			CPU: "AMD EPYC", Cores: 2, Kernel: "6.18.44", CRIU: "4.2.1", Runc: "1.1.5", Commit: "0123456789ab",
			Date: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		},
	}
}
