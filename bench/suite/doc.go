// Package suite holds the scenarios of the benchmarks that need no container: faults, fills, sessions and imports, against
// the real kernel, with the memory of a process of its own.
//
// The engine runs in this process, as it does in thawd; the processes that fault are children ([uffdtest.Target]) and
// time their accesses themselves; the baselines are programs apart ([baseline]).
package suite
