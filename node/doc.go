// Package node makes one machine a member of a fleet: it joins a page store to the places beyond it, peers and an object store.
//
// A [Node] opens what it is made of, in this order, and closes it in the reverse one:
//
//	object store, keys, membership     places that are known
//	tier.Origin                        brings pages from them
//	pagestore.Store                    with that origin
//	tier.Shelf, peer.Server            what this store has, for peers; Run prepares and serves it
//
// # Who asks whom
//
// Each object of pages has owners, in an order that follows from its name and those of the members (package placement). The first that
// lives is the *owner*: it asks the object store, and whoever says that it has the object. All others ask the owner first; the owner
// brings for them what it does not hold, if it has a stub that names it, or is making one. So many nodes that restore one snapshot at the same time
// read it from the object store once. Whoever gets nothing from the owner, and from those that are said to have it, asks the object store.
//
// A node brings only for nodes that rank lower than itself as owners of that object. The waiting goes up this order and never around,
// whatever each node believes of who lives: so no two wait for each other.
//
// A node that cannot be reached is not asked, and owns nothing, for a while; the next owner takes its place.
//
// # How long a page may take
//
// [Config].PageDeadline. Then whoever waits gets an error, and it is for the restore's failure policy to say what becomes of the process.
//
// # Goroutines
//
// Run has those of the peer server and of gossip, one that pushes, and one that prepares what peers will ask for. A pull has one, for which the
// last of its callers waits. Others belong to the origin and the store, which Close waits for.
//
// # Lock order
//
//	Node.mu, health.mu, peers.mu, counts.mu, pushing.mu, preparing.mu, following.mu, restoring.mu, arrivals.mu   look-ups; none is taken with another
//	remoteBytes.mu                                                                                               while bytes are counted
package node
