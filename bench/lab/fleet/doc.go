// Package fleet is several nodes on one machine: each with a network namespace, a store and a thawd of its own, joined by a bridge, with an
// object store beside them.
//
// The bridge lies in a namespace that belongs to this process too, so nothing here touches the machine's own network, and nothing of it is left,
// however the process ends: the kernel removes a namespace, and what is in it, with the last process and the last descriptor that hold
// it.
//
// Rates are the kernel's own (tbf), at both ends of each node's link. Kernels here have nothing that delays packets (netem), so a delay is that of a
// proxy for TCP between the nodes: see [Delay].
package fleet
