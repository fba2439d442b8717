// Package lazypages is a stand-in for the program `criu lazy-pages`.
//
// It takes CRIU's arguments and configuration files, serves one `criu restore --lazy-pages` from a folder of images,
// a snapshot, or a page server, writes its log where CRIU's would be, signals readiness as CRIU does, and ends with
// CRIU's exit codes, so that container runtimes and CRIU's own tests can use it without noticing.
//
// What it does not do as CRIU does: a process that still misses pages when the program has to stop is killed, not left
// to read zeros; the socket is removed when CRIU has connected; and a socket that somebody listens on is left alone.
package lazypages
