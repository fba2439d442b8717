// Package pagestore keeps the memory of frozen processes as content-addressed pages.
//
// # Words
//
//	page       4096 bytes; its identity is its SHA-256. Pages of zeros are stored nowhere.
//	pack       an immutable file of raw, page-aligned pages with a table of their hashes; named by that table's hash.
//	snapshot   a frozen process tree under a [Name]: a manifest, the skeleton images, info.json.
//	image      the memory of a snapshot as one space of pages, counted from 0.
//	extent     a run of image pages that are stored one after the other in one pack.
//	hot file   a second copy of some pages of an image, packed in the order in which restores want them; see [WorkingSet].
//	stub       a snapshot that was adopted from another machine, of whose pages some may not be here; see [Store.Adopt].
//	origin     what brings these; see [Origin].
//	frame      32 pages of a pack, or 64 of the hot pages of a stub, which come from afar and are checked together.
//	skeleton   the checkpoint images without the pages that the store holds; opaque here.
//	namespace  a tenant. Pages are shared by the snapshots of a namespace, never between namespaces: whether a page
//	           is present already would tell one tenant what another has.
//	lease      a shared flock on a snapshot's manifest, held while a [Snapshot] is open. The kernel drops it with the
//	           process, so nobody has to clean up after a crash.
//
// # On the disk
//
// Every file is described in docs/format; internal/pack, internal/manifest and internal/hot are the codecs.
//
//	STORE/format                         which version of this layout; written last when a store is made
//	STORE/lock                           flock: one writer at a time
//	STORE/namespaces/NS/packs/ID.pack
//	STORE/namespaces/NS/partial/         packs of stubs that fill up: a sparse file, and a map of what is there
//	STORE/namespaces/NS/snapshots/NAME/  manifest, info.json, skeleton/; workingset and hot, which may be missing; of a stub
//	                                     remote.json, and hotorder, which may be missing
//	STORE/namespaces/NS/removed/         snapshots that were removed while somebody leased them
//	STORE/namespaces/NS/staging/         a change in flight; whatever the next writer finds there was abandoned
//	STORE/namespaces/NS/index/           which page is where, for the importer; derived from the packs
//
// # Who may do what at the same time
//
// Writers (Import, Adopt, Remove, GC, Evict, SetWorkingSet) hold the store's lock, so there is one at a time, in whichever process. Readers need no lock
// but their lease: a snapshot appears by one rename and disappears by one rename, packs never change, and GC deletes
// a pack only if no snapshot and no leased removed snapshot names it. The working set of a snapshot is replaced, file by file, below
// its readers, who keep what they have opened.
//
// Pages of stubs come in without that lock: all who bring one write the same bytes to the same place, and a flock on partial/ keeps apart those
// who make, finish and delete such packs. Evict takes packs that can be had again from stubs that nobody leases.
//
// The commit point of an import is the rename of its folder into snapshots/. Before it everything is in staging/, but for
// packs, which are moved to packs/ just before; the next writer deletes those that no snapshot names.
//
// # Trust
//
// SHA-256 is checked when pages enter and by Verify. While serving, the xxh64 of each page is checked the first time
// the page is used since the pack was opened (21 GB/s a core against 3.9 for SHA-256 of many pages, 2.0 of one after the other). The index is a hint: before a
// page counts as present, the digest in the pack's own table must agree. A hot file is a hint, too: each of its pages is compared, at
// its first use, with the sum that the pack has of that page of the image, and the first that differs ends the use of the file.
//
// What comes from afar is checked before it is let in: frames against nodes, nodes against the root that the stub has for the pack or the
// hot pages. That root is believed, as the manifest is, until the pack is complete and its tables give its name, or do not.
//
// # Lock order
//
//	the store's lock (flock)   writers, for the whole operation
//	Snapshot.mu                opening and closing an image
//	  Store.evicting           while room is made, which does not wait for the store's lock
//	  Store.finishing          while an ordinary pack is made of a partial one
//	    partial/ (flock)       making, finishing and deleting partial packs
//	      Store.mu             the open packs and streams of hot pages; held for look-ups in a map only
//	prefetcher.mu, dedup.mu, packSet.mu, pipeline.mu, line.mu, verifier.mu, hotStream.mu, RemoteHot.mu    nothing is locked below them
//
// Ready and Load of packs that are complete take no lock. verifier.mu is held while a progress callback runs, so that calls do not overlap.
//
// # Goroutines
//
// Import and Verify wait for those that they start. A Store starts one more with the first prefetch of packs, one with the first
// of a hot file, and four with the first of pages that may have to come from the origin. One runs for each snapshot whose hot pages are coming
// in, or getting to their packs, one while a partial pack is finished, and one while the bound of Options.RemoteBytes is looked at. Close ends them and waits.
package pagestore
