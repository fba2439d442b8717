// Package restores is the part of the benchmarks that needs real programs: in containers, frozen with CRIU and restored by runc, with
// Thaw and with CRIU alone; and by themselves, with their touches recorded.
//
// The scenarios of bench/suite measure the engine by itself; these measure what a user waits for. Both halves join in cmd/uffdbench.
package restores
