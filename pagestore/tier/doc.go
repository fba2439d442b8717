// Package tier moves snapshots between a store and the places beyond it: peers and object stores, both [blob.Reader]s of one key space.
//
//   - A *name* is the only blob that ever changes. It says which descriptor a snapshot's name stands for, and is written last: before it nobody
//     sees anything of a snapshot that is being pushed.
//   - A *descriptor* names all that a snapshot is, by hash. So an old name leads to an old snapshot, and never to a mixture.
//   - The *meta* object is what a restore needs besides memory: manifest, skeleton, what is known of the working set.
//   - A *pack* is a framed object (pagestore/internal/frame) of the pages of a pack; a *hot object* one of the pages that a restore wants first.
//
// Whoever may write a name decides what it stands for; everything else is checked against a hash before it is used.
//
// [Push] brings a snapshot to a bucket, [Resolve] and [Pull] find one and make a stub of it in a store, [Origin] brings the pages of a stub when
// they are wanted. [Shelf] is a store seen as a place, for peers; [Shelf.Prepare] makes ahead of time what they will ask for. [Collect] deletes
// what no name leads to. Formats and the rules by which pushes and collections that run at the same time keep out of each other's way:
// docs/format/remote.md.
//
// # Goroutines
//
// An [Origin] has those of its fetcher, and one for a hot object that was asked for ahead, until it is taken, or given up after a while; Close
// waits for all of them. A [Shelf] has timers, and a Prepare one that works at a low priority, for which it waits. [Resolve], and the beginning of
// a hot object, ask several places: the goroutines of those that lose end with their contexts, and nobody waits for them. A push has one that
// renews its lease, and waits for it.
//
// # Lock order
//
//	offer.hotMu      while a hot object is made; it waits for pages
//	Shelf.mu         look-ups
//	Origin.mu, objects.mu and then object.mu, heldPack.mu, collector.mu, pusher.mu: look-ups, or the one callback of a progress
package tier
