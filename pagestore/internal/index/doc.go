// Package index finds pages by their SHA-256, so that an importer stores each once.
//
// An index is derived from the packs of a namespace and may be deleted at any time: Open drops what is damaged and says which
// packs are to be added, from their footers. It is a hint. Callers compare the digest in the pack's own table before they rely
// on an answer, so an entry needs no more of it than its first 8 bytes, and a wrong one costs space and never content. Readers
// of snapshots have no use for an index.
//
// It consists of segments: immutable hash tables in files that are mapped. Each Add writes one, and puts into it what smaller
// ones have, so that there are few: one for each doubling of the number of pages, up to a size, and one for each of that size
// from there on. Nothing is synced. A file that a crash has cut off has not the checksum that it should have, and goes.
//
// # Why not a database
//
// This was bbolt, the faster of two that were measured. In an import of 88,000 new pages on two cores of an AMD EPYC, Go 1.26,
// insertion took a sixth of all CPU time, and the commit waited 0.1 s for it, with all in memory; now 6 ms. With 400,000 keys (bbolt's
// figures are of a slower machine and with a sync at the end):
//
//	                        bbolt 1.5.0      segments
//	insert                  1.2 to 1.7 s     0.02 s
//	look-ups that miss      0.7 to 0.9 s     0.02 s
//	look-ups that hit       0.7 to 0.9 s     0.03 s
//	disk after 1.6 M keys   261 MB           27 MB
//
// The keys are random already and nobody wants them in order, a batch comes at once, and losing the file is no disaster: a
// database does much that is not needed here.
package index
