// Package ownthread runs functions that change the namespaces of their thread.
package ownthread

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// errExit is returned for a function that ended its goroutine, as a test does that fails.
var errExit = errors.New("the function did not return")

// Run calls f on a thread that ends behind it, so that whatever f has done to the thread concerns nobody else, and waits for it.
//
// It is never the process's first thread. That one does not end before the process: it would stay as f has left it, keep namespaces alive, and be
// what /proc/PID shows of the process.
func Run(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Not unlocked: so the thread ends with the goroutine.
		runtime.LockOSThread()
		err := errExit
		defer func() { done <- err }()
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine holds the first thread, another one gets another.
			err = Run(f)
			runtime.UnlockOSThread()
			return
		}
		err = f()
	}()
	return <-done
}
