// Package restore populates the address spaces of restored processes on demand.
//
// A [Session] is one restore: a few processes, each with a userfaultfd and a [Layout] that says which page of the
// snapshot's image belongs at which address. The session serves every page fault from a [PageSource], streams the
// rest behind the faults, follows what the processes do to their memory meanwhile, and lets go of each process when
// nothing is missing in it any more.
//
// # Words
//
//   - image: the snapshot's memory as one sequence of 4 KiB pages, counted from 0.
//   - home: the address a page had when the snapshot was taken. A page keeps its home when the process moves it.
//   - region: a registered range of the target. extent: a run of image pages at consecutive homes.
//   - piece: a range of current addresses whose pages have consecutive homes (see addressMap).
//   - settled: a home range that the stream is done with: installed, already there, or no longer mapped.
//
// # The state of a page
//
// The kernel alone knows which pages are present, and it tells us of each missing one that somebody touches. What we
// keep is only what a missing page has to contain. So the address map never shrinks when a page is installed, and
// there is no bookkeeping of presence that could be wrong:
//
//	            fault, or the stream            Copy: Done or Exists
//	missing ---------------------------> loading --------------------> present
//	   ^  \                                 | Copy: Again                 |
//	   |   \ REMOVE, UNMAP                  v                             | REMOVE, UNMAP
//	   |    `------------------> zero <-- looked up anew                  |
//	   `--- FORK: the child starts with a copy of the map      zero <-----'
//
// A page in no piece, and an image page with no content, reads as zero. REMOVE (madvise DONTNEED and FREE) and UNMAP
// take addresses out of the map, REMAP moves pieces, FORK copies the map. That is all that can change it.
//
// # Why a process never sees a wrong byte
//
//   - An event is applied before any page of that address space is installed: the reader holds the address space's
//     lock exclusively from before it reads a batch of messages until it has applied the events of the batch;
//     installing holds it shared, from looking the address up until the ioctl has returned.
//   - From the moment that the kernel raises an event until it has been read, installing fails with EAGAIN, so no page
//     arrives between the raising and the reading either. What failed is looked up again, not tried again.
//   - A userfaultfd is closed only when all of the layout is settled, or the process is gone, or every page that is
//     still missing has been poisoned: closing it earlier would turn the missing pages into zeros. Where a process can neither be
//     killed nor have its pages poisoned it stays open.
//
// BUG(thaw): if one thread unmaps a range and another moves different memory onto it before the first one's event has
// been queued, the kernel may queue the two events in the wrong order, and nothing in them tells. The moved pages
// that are still missing are then taken for zeros. Kernel: mm/mmap.c releases the lock before
// userfaultfd_unmap_complete. (That mremap(2) itself unmaps the old range, and tells of it late, is known from the move: see moves.)
//
// BUG(thaw): whether a forked child sees zeros in a range (MADV_WIPEONFORK) is read from /proc when the fork is read. Advice that
// another thread gives between the two counts wrongly; and for children of children, whose process is not known, what the
// snapshot said counts.
//
// # Goroutines and locks
//
// A [Server] owns its readers, each on a locked thread; a session belongs to one of them, which alone reads its messages, applies
// events and closes descriptors. [Session.Run] owns the session's other goroutines and returns when they have ended: loaders for
// faults that have to wait for storage, and stream workers.
//
//	Lock order: Session.mu -> addressSpace.mu -> streamState.mu
//
// No lock is held while a page source may wait for storage (PageSource.Load); no lock but addressSpace.mu, shared, is
// held across the copying ioctl.
package restore
