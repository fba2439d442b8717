// Package baseline is what the engine is measured against: small C programs of ours that do the least that can be
// done, and CRIU's own server of lazy pages.
//
// The programs are compiled on first use. They get their descriptors when they start and answer on standard output; the
// head of each says how.
package baseline
