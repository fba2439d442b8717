// Package daemon is thawd: it holds the sessions of one node and joins the page store to them.
//
// A [Daemon] is the [control.Backend] behind thawd's API. For each session it opens the snapshot, which takes a lease so
// that the snapshot cannot be removed meanwhile, listens on lazy-pages.socket in the session's work folder, and runs two
// things until both have ended: the server of the runtime's connection (restore/criu) and the session that serves the
// processes' memory (package restore).
//
//	         Create          runtime connects     finish message       all memory in place
//	          |                    |                    |               or processes gone
//	control:  v     waiting        v     restoring      v    serving          v      complete
//	          |--------------------|--------------------|---------------------|
//	          `- Delete, drain: cancelled               |
//	          `- connect timeout, early close: failed --'
//
// Ended sessions stay visible until [Options.History] newer ones have ended.
//
// [Daemon.Run] owns all goroutines. Drain lets every session end by itself, at full speed; ending Run's context kills the
// processes that still miss memory, because without thawd they would read zeros in its place.
package daemon
