// Package uffdtest makes real page faults, in a child process that does to its memory what a test tells it.
//
// [Start] runs the child, a small C program that is compiled on first use: it has no garbage collector that
// touches memory behind the test's back, and it can fork. The methods of [Target] are its commands. Each
// returns at once with a [Call]; a command that faults, or whose event nobody reads, is answered only once the
// test's server has done its part: the example shows one.
//
// Up to 32 commands of one process execute at the same time; further ones wait.
//
// The child is killed and reaped when the test ends, with all its descendants.
package uffdtest
