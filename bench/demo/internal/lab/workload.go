package lab

import (
	"fmt"

	"thaw/bench/demo/internal/report"
)

// Workload is a program that is slow to start, and the request that it is asked.
type Workload struct {
	// Name is what the workload is called on the command line, Title what it is called in reports.
	Name, Title string
	// Script is its Python file below the folder of the examples.
	Script string
	// Sentences is the request.
	Sentences []string
	// Goals are the figures that the demo is to reach with it.
	Goals report.Goals
}

// Workloads returns the workloads that there are.
func Workloads() []Workload {
	return []Workload{
		{
			Name:   "minilm",
			Title:  "MiniLM sentence embedder",
			Script: "embedder/embedder.py",
			Sentences: []string{
				"A process is frozen once and thawed many times.",
				"The pages that it needs first come first.",
				"Everything else arrives behind its back.",
			},
			Goals: report.Goals{
				ColdToThaw:  map[report.Cache]float64{report.Warm: 10, report.Dropped: 5},
				ThawToEager: 0.5,
				ThawToLazy:  0.6,
			},
		},
		{
			Name:      "large",
			Title:     "Transformer of 335 M parameters",
			Script:    "transformer/transformer.py",
			Sentences: []string{"Thaw me."},
			Goals:     report.Goals{ThawToEager: 0.4, ThawToLazy: 0.5},
		},
	}
}

// FindWorkload returns the workload called name.
func FindWorkload(name string) (Workload, error) {
	for _, w := range Workloads() {
		if w.Name == name {
			return w, nil
		}
	}
	return Workload{}, fmt.Errorf("no workload is called %q", name)
}
