package main

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// wantFiles is how many descriptors thawd would like to have: a restore that runs into the limit loses the userfaultfd in
// the message, and the process it belonged to would read zeros.
const wantFiles = 1 << 20

// raiseFileLimit raises the limit of descriptors as far as we may, and returns it.
func raiseFileLimit() (uint64, error) {
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return 0, err
	}
	// Raising the hard limit takes a privilege that thawd may not have; the soft one may always follow it.
	if have.Max < wantFiles {
		more := unix.Rlimit{Cur: wantFiles, Max: wantFiles}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &more) == nil {
			return wantFiles, nil
		}
	}
	have.Cur = have.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return 0, err
	}
	return have.Cur, nil
}

// setProcs gives the scheduler more threads than there are CPUs: a session's reader and its workers spend their time in
// system calls (read, ioctl), and each that has to wait for a P there delays a fault. With as many Ps as CPUs a fault
// that arrives while two stream workers copy waits until the runtime's monitor takes a P from one of them.
func setProcs() int {
	n := max(4, runtime.NumCPU()+2)
	if runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
	return runtime.GOMAXPROCS(0)
}
