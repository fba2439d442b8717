// Package perfswitch keeps the kernel from waiting at each breakpoint that CRIU sets.
//
// CRIU stops a process that it restores or dumps at a hardware breakpoint. Linux makes that a performance event of the process, and when there
// has been none of any process for a second, turns their accounting on and waits for a grace period of RCU: 6 to 8 ms, a tenth of a small
// restore (measured on Linux 6.18 at 250 Hz; 0.02 ms while another process has such an event). An event of ours, of a kind that counts
// nothing, keeps it on.
//
// What that costs others is a look at an empty list at each switch from one process to another.
package perfswitch
