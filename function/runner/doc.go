// Package runner talks to the Python runner that is the one process of an instance: JSON Lines, commands to its standard input, events
// from its standard output. What it says on its standard error is its log.
//
//	host     import  load  prepare  boot  call...  stop
//	runner   imported  loaded  prepared  ready  result...  stopped       or at any point: failed
//
// The commands before a call are made one at a time, each with an answer of its own. Calls have numbers, and their answers come in any
// order. A runner that was prepared waits in one plain read of its standard input; it may be frozen there, and a [Client] made anew for the
// restored one, whose next command is boot.
//
// A runner fails in one of three ways: it says so (a [*FailedError], of its author's making mostly), it ends without a word (an
// [*EndedError], with the last lines of its log), or it writes what is no event (an error that wraps [ErrProtocol]). After each of these the
// conversation is over, and every command returns that error.
package runner
