// Package durabletest is a file system that fails where a test wants it to.
//
// An [FS] counts the steps that change the disk and breaks one of them: before its effect, after it, half way, or by
// stopping dead, as a process does that is killed. [FS.PowerCut] goes further and takes back everything that was not
// synced, as far as a disk may after a power cut: content of files, and names made, moved or removed.
package durabletest
