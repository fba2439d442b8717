// Package manifest reads and writes manifests: which memory a snapshot has and where each page of it is stored.
//
// A manifest is a header and five tables of fixed width, read in place from a mapping: opening one costs one pass of
// checks and no memory that grows with the snapshot. The format is described in docs/format/manifest.md.
//
//	header    magic, version, size, image pages, entries of each table, checksums
//	packs     id, pages                               the packs that extents name, by position
//	spaces    id, flags, its regions, its runs        one address space each, ascending by id
//	regions   start, end, flags                       of each space ascending, apart
//	runs      address, pages, image page              of each space ascending, apart, inside one region
//	extents   image page, pages, pack, pack page      ascending, apart; image pages in no extent are zero
package manifest
