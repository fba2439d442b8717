// Package index finds pages by their SHA-256, so that an importer stores each once.
//
// An index is derived from the packs of a namespace and may be deleted at any time: Open brings it up to date with the
// packs that are there, from their footers. It is a hint. Callers compare the digest in the pack's own table before they rely on
// an answer, so a damaged index costs space and never content. Readers of snapshots have no use for it.
//
// # Why bbolt
//
// Measured with four rounds of 400,000 random SHA-256 keys each (what a process of 1.6 GB adds), on 2 cores of a
// virtual machine, Go 1.26, kernel 6.18, default options but for a Bloom filter in pebble:
//
//	                                bbolt 1.5.0        pebble 2.1.7
//	insert 400k, sorted, synced     1.2 to 1.7 s       1.0 to 3.2 s
//	400k look-ups that miss         0.7 to 0.9 s       4.4 to 6.0 s
//	400k look-ups that hit          0.7 to 0.9 s       3.9 to 6.7 s
//	disk after 1.6 M keys           261 MB             63 MB
//
// Look-ups are on the path of an import, 180,000 of them a second at the speed to reach; insertion runs while the
// disk syncs. A look-up in bbolt is a walk through mapped memory, needs no cache of its own, and the dependency is one
// package. Its price is disk space; inserts that touch most leaves once there are many more keys than one import
// adds; and pages without checksums, for which state.go makes up by hashing the file, 0.1 s for 1 GB in memory. A
// store of terabytes wants sorted runs instead.
package index
