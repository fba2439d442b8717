// Package fleet simulates many nodes that restore snapshots from each other and from an object store.
//
// It answers what four nodes on one machine cannot: what an object store is asked for by 10 to 5,000 nodes, which tier
// serves how much, and how long a first response takes, when all boot at once, when nodes come and go, when a zone is lost.
// It is a discrete-event simulation: no bytes move, and the same seed gives the same result. Its answers are as good as its
// inputs; each of them says whether it was measured or assumed, and so does the report.
//
// # Words
//
//   - chunk: what is asked for in one go: a snapshot's descriptor and skeleton (its meta), a part of its working set, what a request
//     touches outside of it (missed), or a part of the rest. Frames of 128 KiB are not simulated one by one.
//   - tier: where a chunk comes from: the node's own store, a peer, the object store.
//   - home: the nodes that rendezvous hashing gives a chunk to. The first of them reads it from the object store for those who ask it.
//   - hint: the news that a node has restored a snapshot lately.
//   - flight: one chunk on its way to one node; there is at most one of each.
//
// # What is left out
//
//   - A chunk arrives as a whole: a home passes it on when it has all of it, a node answers for it when it has all of it. Frames would flow
//     through sooner. So the first responses of a burst depend on the size of a chunk; that of the other scenarios hardly does.
//   - Links are shared equally between the streams on them, by weight, and what a stream cannot use for another reason is not given to the
//     others (max-min would). TCP's start, losses and switches between the nodes are not there.
//   - Links with more than 16 streams keep their rates while the number of streams changes by less than 5 %.
//   - Writing to the disk takes no time, nor does verifying. What is in the page cache is read from the disk all the same.
//   - Snapshots share no pages here. Real ones of one template do, and need less.
//   - The root file systems of containers are on the nodes.
//   - The object store never fails; over its rate it makes requests wait, where real ones answer 503.
package fleet
