// Package uffd is userfaultfd(2): one descriptor, its ioctls and its messages.
//
// It holds no policy and starts no goroutine. A server that populates the memory of another process opens
// a descriptor with [Open], or receives one from the process and adopts it with [FromFD]; it registers
// ranges, reads what happened with [FD.ReadMessages], and resolves faults with [FD.Copy], [FD.Zeropage],
// [FD.Continue], [FD.Move] or [FD.Poison]. Those return a [Result], an enumeration that the caller switches
// over, because most of what the kernel reports is expected: a page that is there already, an operation that
// must be tried again, a process that is gone.
//
// # Words
//
//   - target: the process whose memory the descriptor governs. Its addresses are plain uint64s here, since
//     they mean nothing in our own address space.
//   - missing fault: the page has no content; Copy, Zeropage, Move or Poison resolve it.
//   - minor fault: the page is in the page cache of a shared file, but not mapped; Continue resolves it.
//   - write-protect fault: the page is there and was write-protected with WriteProtect.
//   - event: a message about the address space (fork, remap, remove, unmap). The target sleeps in its system
//     call until the message is read, and until then the kernel refuses to install pages with EAGAIN.
//
// # Rules that the kernel does not enforce
//
// Never touch memory that is registered with a descriptor that this very process serves: the thread sleeps
// in the fault, the Go runtime waits for the thread, and nobody is left to resolve it. Real faults belong in
// a child process, such as package uffdtest makes.
//
// When the last descriptor of a target closes, every page that is still missing reads as zeros, and nobody
// is told. Kill the target first, or keep the descriptor.
//
// After fork(2) a message carries a descriptor for the child's address space, already open in this process:
// whoever reads the message owns it.
package uffd
