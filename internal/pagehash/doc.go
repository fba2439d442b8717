// Package pagehash computes the SHA-256 of many pages.
//
// SHA-256 of one message is a chain: every instruction waits for the one before, and for so long the processor could do others. Pages are
// messages of their own. So one thread hashes four of them at once, with the instructions that crypto/sha256 hashes one with. Measured on an
// AMD EPYC of family 26, Go 1.26, BenchmarkPages, medians of five:
//
//	                1 goroutine   2, on two cores
//	crypto/sha256     2.03 GB/s         4.10 GB/s
//	this package      3.95              7.78
//
// Two pages at once were 3.6 GB/s there, three 3.7.
//
// The kernel is written from the standard (FIPS 180-4) and the manual of the instructions. crypto/sha256 is what the tests compare it with, and what
// hashes a page that is left over, all pages on other processors, and with the build tag purego.
package pagehash
