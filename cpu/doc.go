// Package cpu says which features of the CPU a process may use.
//
// A frozen process has looked at its CPU long ago: it holds pointers to code for AVX-512 and jumps there after the restore, whatever
// the CPU is then. So a snapshot names the features that its process may use, and a host that lacks one of them must not get it.
//
//	feature   an instruction set by the name that /proc/cpuinfo has for it: "avx2", "sha_ni". What only the kernel sees
//	          ("smep", "constant_tsc") is none.
//	level     a named set of x86: "x86-64-v2", "x86-64-v3", "x86-64-v4", as the psABI has them.
//	mask      environment variables that keep the libraries of a process to a set smaller than its CPU's: see [Set.Mask].
//
// A mask is as good as the libraries that obey it. Code that asks the CPU itself (CPUID cannot be hidden from a process on most
// machines) does not, and may use what its set does not name.
package cpu
