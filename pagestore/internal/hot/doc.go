// Package hot reads and writes hot files: a second copy of some pages of a snapshot's image, in the order in which a restore
// wants them, so that few large reads in a row bring them.
//
// A hot file is laid out to be mapped, as packs are. The format is described in docs/format/hot.md.
//
//	┌─ 0 ──────────┐ header, 72 bytes: magic, version, page size, counts, digest of the snapshot's manifest, checksums
//	├─ 72 ─────────┤ runs, 16 bytes each: which pages of the image the pages of the file are, in its order
//	├─ head ───────┤ page 0, at the next page border
//	│   …          │ page n-1
//	└──────────────┘
//
// The file has no sums of its pages: whoever uses one compares it with the sum in the pack that the page is a copy of. So a
// hot file can be wrong, old or forged, and no process sees a byte of it that is not the pack's.
//
// [Encode] and [Parse] are the codec of the head, [Mapped] serves.
package hot
