// Package describe has an app's own code say what it declares, in a process of its own that can change nothing.
//
// The module of the app is imported, and that may run anything. So it runs with the root file system that the app's instances will
// have, read-only, in namespaces of its own (mount, pid, network, IPC, host name), without any capability and without a network. The
// kernel takes all of that away with the process: nothing is left to clean up, however it ends.
//
// The program that uses this package is started again as the first process in there: its main calls [Main] when its first argument is
// [Command].
package describe
