package lab

import (
	"fmt"
	"strconv"
)

// Workload is a program that is slow to start, and the request that it is asked.
type Workload struct {
	// Name is what the workload is called on the command line, Title what it is called in reports.
	Name, Title string
	// Script is its Python file below the folder of the examples, Args are its arguments.
	Script string
	Args   []string
	// Sentences is the request.
	Sentences []string
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
		},
		{
			Name:      "large",
			Title:     "Transformer of 335 M parameters",
			Script:    "transformer/transformer.py",
			Sentences: []string{"Thaw me."},
		},
		{
			Name:      "small",
			Title:     "Index in Python's own objects",
			Script:    "lexicon/lexicon.py",
			Sentences: []string{"freeze the page", "thaw the page"},
		},
		{
			Name:      "medium",
			Title:     "Table of 256 MiB in numpy",
			Script:    "table/table.py",
			Args:      []string{"--mib", "256"},
			Sentences: []string{"Thaw me."},
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

// Table returns a workload like medium, with a table of so many MiB and a smaller one of its own: whatever own is, nearly all
// pages of its snapshots are the same.
func Table(mib, own int) Workload {
	return Workload{
		Name:      "table",
		Title:     fmt.Sprintf("Table of %d MiB in numpy", mib),
		Script:    "table/table.py",
		Args:      []string{"--mib", strconv.Itoa(mib), "--own", strconv.Itoa(own)},
		Sentences: []string{"Thaw me."},
	}
}
