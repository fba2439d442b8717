// Package host describes the machine and the software that benchmarks run on.
package host
