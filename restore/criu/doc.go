// Package criu reads CRIU's images and speaks CRIU's lazy-pages protocol.
//
// It stands between CRIU and [restore.Session], in both directions of a snapshot's life:
//
//   - Images: [Open] parses and checks a folder that `criu dump` or `runc checkpoint` wrote, says which pages of each
//     task can be restored lazily and where their bytes lie, and [Images.WriteSkeleton] writes the folder that a lazy
//     restore needs in its place: everything but the lazy pages.
//   - The socket: [Listen] and [Serve] take the place of `criu lazy-pages` for one `criu restore --lazy-pages`, and feed
//     its processes to a session.
//
// docs/protocol/criu.md describes both as we understand them. The package lazypages below has the program that takes
// CRIU's own command line.
//
// # Words
//
//   - task: a process of the dumped tree. It is named by its image pid: the pid it had when it was dumped, in its own
//     pid namespace.
//   - entry: one record of an image file. pagemap entry: a range of pages at consecutive addresses with the same flags.
//   - run: pages at consecutive addresses whose bytes are consecutive in one pages file.
//   - lazy: restored on demand. Which pages are lazy follows from the mapping they lie in, never from the flags in the
//     images: CRIU decides at restore, by the mapping, what it registers with userfaultfd, and its flags are known to
//     be wrong for stacks and shadow stacks.
//   - skeleton: a folder of images without the bytes of lazy pages.
package criu
