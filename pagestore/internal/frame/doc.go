// Package frame reads and writes framed objects: the form in which a sequence of pages travels between machines, and in which it lies in
// an object store. The format is described in docs/format/frame.md.
//
//	┌─ 0 ──────────┐ header, 96 bytes: magic, version, counts, kind, id, checksums
//	├─ 96 ─────────┤ index, 36 bytes a frame: its length here, and its node
//	├──────────────┤ frame 0: some pages, raw or as zstd
//	│   …          │ frame n-1
//	└──────────────┘
//
//	node   SHA-256 of the SHA-256s of a frame's pages
//	root   SHA-256 of all nodes, in order; whoever reads an object knows it from elsewhere
//
// The root says which pages the object has; everything else in it is a hint, which shows to be wrong when a frame does not have its
// node. Nodes follow from the table of digests of a pack, so that who has a pack can serve its object in the raw layout
// without making one: see [Raw].
//
// [ParseHeader] and [ParseIndex] are the codec of the head, [Encode] and [Index.Decode] that of frames, [Writer] makes objects.
package frame
