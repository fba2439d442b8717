// Package mapping reads files through read-only memory mappings without dying of them.
//
// When a mapped file is shorter than it was, or its disk fails, the kernel answers a read of the mapping with SIGBUS,
// which ends a Go program. Code that reads a mapping therefore runs under [Guard], which makes an error of it. System
// calls that are given mapped memory need no guard: they return EFAULT.
package mapping
