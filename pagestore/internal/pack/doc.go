// Package pack reads and writes packs: immutable files of raw, page-aligned pages with a table of their hashes.
//
// A pack is laid out for a server that maps it: pages start at a page border, lie there as the process saw them, and
// are found by number. The format is described in docs/format/pack.md.
//
//	┌─ 0 ──────────┐ header, one page: magic, version, page size, checksum
//	├─ 4096 ───────┤ page 0
//	│   …          │ page n-1
//	├─ 4096·(1+n) ─┤ digests: n × SHA-256, 32 bytes each ┐ the footer; its SHA-256
//	│              │ sums: n × xxh64, 8 bytes each       ┘ is the pack's name
//	├──────────────┤ trailer, 72 bytes: magic, version, n, id, checksums of both tables and of itself
//	└──────────────┘
//
// Digests and sums lie apart because a server needs the sums only: opening a full pack is one read of the last 512 KiB
// instead of 2.6 MB.
//
// A [Partial] is a pack that fills up, with a map of what is there: docs/format/partial.md.
//
// [Writer] makes packs, [Footer] is the checked tables in memory (for the index and the verifier), [Mapped] serves.
package pack
