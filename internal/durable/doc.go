// Package durable changes folders so that a crash leaves either the state before a change or the state after it.
//
// The promise rests on one sequence of system calls, and every caller composes its changes from it:
//
//	openat(O_CREAT|O_EXCL)  write...  fsync  close     the bytes are on the disk, under a name nobody looks at
//	fsync(folder of that name)                         the name itself is on the disk
//	renameat(temporary, final)                         readers see all of it or nothing
//	fsync(folder of the final name)                    the rename is on the disk
//
// A rename without the first two steps may survive a power cut while the bytes do not; without the last one the
// change may silently be undone. rename(2) is atomic on every Linux file system that can hold a store; it replaces
// files and empty folders, and fails on a folder with content. Where nothing may be replaced, linkat takes its place,
// and the temporary name is removed afterwards.
//
// Errors of fsync are final: Linux may drop the dirty pages that it could not write (see fsync(2), and "Can
// applications recover from fsync failures?", Rebello et al., USENIX ATC 2020), so nothing here retries one.
//
// [FS] is the seam through which the store changes a disk; durabletest has one that fails at a chosen step. Reads do
// not go through it.
package durable
