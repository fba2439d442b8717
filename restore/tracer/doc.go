// Package tracer records which pages chosen processes touch first, with eBPF programs in the kernel.
//
// It works on any process: one whose memory comes lazily, by userfaultfd, one that was restored at once or from mapped
// files, and one that was never restored at all. [NewRecorder] records in this process, which takes CAP_BPF and
// CAP_PERFMON. [Start] has a helper process do it that has these two privileges and no others; the caller needs none.
// [Collect] makes a trace of either; package trace says what is in it.
//
// Processes are named at the start, or later: a recording takes tens of milliseconds to begin and microseconds to
// choose one more process, so that it can be ready before there is a process.
//
// # What is recorded
//
// Of each page of each chosen address space the first access that faulted, and, if that was a read, the first write. The
// kernel's part (bpf/tracer.c) remembers which pages those were, so that a page that is unmapped, dropped or swapped out
// and touched again is not reported again. An access that ends with a signal is a touch as well.
//
// A chosen process stays chosen until it has ended; children that it forks are chosen with it; a program that it executes
// has a new address space in the trace. A child that shares the memory of its parent until then (vfork) counts as having
// its own. Threads are told apart. With a cgroup, processes are chosen when they first
// fault.
//
// What processes that are not chosen pay at each of their faults is the kernel's way to the program, and there one bit.
// docs/architecture.md has figures.
//
// # Where it is noticed
//
// In order of preference: fentry on handle_mm_fault, which sees all faults and also pages that the kernel pins without
// one, of other processes, too; a kprobe in the same place, which cannot tell whose memory another process pins; the
// tracepoints exceptions:page_fault_user and page_fault_kernel, which see exceptions only; the former of these alone.
// Which of them a kernel offers depends on how it was built, so they are tried. [trace.Blind] names what the one that is
// used cannot see. None sees touches of pages that are mapped already.
//
// All need Linux 5.12, the tracepoints need tracefs, fentry needs BTF.
//
// # From the kernel to us
//
// Events go through a ring buffer. If it is full, they are counted and lost: the trace says so. Touches do not wake the
// reader, which looks every 20 ms, unless the buffer is a quarter full: waking up costs the thread that touches more than
// all the rest does.
//
// # The helper
//
// It is this program, run with the argument "tracer", which must then call [Main]. It drops all capabilities but the two,
// sets no_new_privs, and opens no files but those of tracefs and /proc. Its parent tells it by packets on a socketpair
// (message.go) what to record:
//
//	helper -> client   hello
//	client -> helper   start: sizes, pids                   or none, and then the descriptor of a cgroup's folder
//	helper -> client   started: the point, the time, spaces or refused: why
//	client -> helper   choose: pids                         while it records, any number of times
//	helper -> client   chosen: the time                     or refused: why
//	client -> helper   stop                                 not answered
//
// On a second socketpair comes what is recorded, so that no answer waits for a client that is slow to take it:
//
//	helper -> client   events, again and again
//	helper -> client   ended: why, and how much was lost    or refused: what failed
//
// If the client is gone the helper ends; with the helper gone, the kernel takes its programs away.
//
// BUG(thaw): pids are those of the initial pid namespace, as BPF programs see them: neither a Recorder nor a helper works
// in another one.
//
// BUG(thaw): before Linux 6.16 a process counts as ended with its first thread, though others may go on, or may be about to
// execute a program, which ends the first one. Before 6.10 the kernel's own touches of the stack of a new program count for
// the program before. Since then what other threads touch in the moment between an exec and their end counts for the new
// program.
package tracer
