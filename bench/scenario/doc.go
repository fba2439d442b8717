// Package scenario is what a scenario of the benchmarks consists of, and how scenarios are run.
//
// A scenario prepares a plan: a list of trials, each one setting with one subject. The runner goes through the whole list
// again and again, in another order each time, so that what changes on a machine over time meets engine and baselines
// alike.
package scenario
