// Package guard holds the descriptors of restored processes for a memory server that may die, and ends the processes
// if it does.
//
// When the last userfaultfd of a process closes, every page that is still missing in it reads as zeros. A server that
// is killed closes its own without a chance to act first. So the server starts a second process, the guard, which
// does nothing but hold duplicates: [Start] runs it, [Guard.Hold] gives it a process, and [Main] is what it executes.
//
// # When the server is gone
//
// The guard notices by the end of its socket, whatever was the cause. Of each address space that it still holds and
// that still exists, it then
//
//   - kills the process by its pidfd, and closes the userfaultfd when the memory is gone and not earlier; or,
//   - where there is no pidfd (the kernel gives none for forked children), keeps the userfaultfd: threads that touch
//     a missing page wait, for ever, until somebody kills them. The guard looks every second, and ends with the last.
//
// A process that has executed another program since is left alone, for its restored memory is gone. Each process that
// was killed, or is left waiting, gets a line on standard error, after all have been killed: a log that nobody reads
// any more delays nothing.
//
// # When the guard is gone
//
// Nothing is lost yet: the server has descriptors of its own. It learns of it by [Guard.Done], or by [ErrGone] from
// Hold, and should start another guard, hand it what it serves, and take no new restores until that has worked.
//
// # What it cannot help against
//
//   - Both processes killed at once: by cgroup.kill, or by systemd, which ends what the server leaves behind, with
//     KillMode=mixed at once and with control-group after the stop timeout. A unit should have KillMode=process.
//     The OOM killer passes the guard over, also where it ends whole cgroups (memory.oom.group), if the guard may
//     lower its oom_score_adj, which takes CAP_SYS_RESOURCE.
//   - The init process of a pid namespace takes all of it along: the server must not be one, or the guard dies, too.
//
// # The protocol
//
// Packets on a socketpair, of a header of 12 bytes (see message.go) and a text of at most 256. Descriptors come with
// hold only: the userfaultfd and, if there is one, the pidfd.
//
//	guard -> server   hello               signals are ignored, limits are raised
//	server -> guard   hold n, name        guard -> server   answer n, "" or why it could not
//	server -> guard   release n           not answered
//
// Anything else is a broken server, and treated as a dead one.
//
// BUG(thaw): a forked child's userfaultfd exists in the server alone from the reading of the fork message until Hold has
// sent it, some microseconds later. If the server is killed in between, the child reads zeros. A child dies with its
// parent if that was the init process of its container.
package guard
