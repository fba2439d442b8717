package uffd

import (
	"fmt"
	"strconv"
	"syscall"
)

// Outcome says how an operation on a range ended.
type Outcome uint8

const (
	// Done: the whole range was processed.
	Done Outcome = iota

	// Exists: the page at Result.Bytes has content already. Nothing is lost, but a thread may still sleep on
	// the page if whoever installed it asked not to wake: call Wake. (EEXIST)
	Exists

	// Again: either an event is waiting to be read, or was read a moment ago and its system call has not
	// returned yet; or the operation stopped after Result.Bytes > 0 for a reason that only the next attempt
	// will tell. Read the messages, decide anew what the rest must contain, and try again. (EAGAIN)
	Again

	// NotRegistered: the range is not inside one registered range: not registered yet, unmapped, or it
	// crosses the border of two. (ENOENT)
	NotRegistered

	// Gone: the target's address space is gone, by exit, kill or exec. (ESRCH; ENOSPC before Linux 4.13)
	Gone

	// NoMemory: the target's memory cgroup, or the system, has no room for a page. (ENOMEM)
	NoMemory

	// Unreadable: the source could not be read; of a file mapping, because the file was truncated or its
	// storage failed. (EFAULT)
	Unreadable

	// Busy: a source page of Move is pinned, or shared with another process. (EBUSY)
	Busy

	// Closed: the FD was closed; nothing was tried.
	Closed

	// Invalid: anything else, which is a mistake of the caller. (EINVAL and the rest)
	Invalid
)

var outcomeNames = [...]string{
	Done: "done", Exists: "exists", Again: "again", NotRegistered: "not registered", Gone: "gone",
	NoMemory: "no memory", Unreadable: "unreadable", Busy: "busy", Closed: "closed", Invalid: "invalid",
}

// String returns the outcome in lower case.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "outcome " + strconv.Itoa(int(o))
}

// Result is what an operation on a range came to.
type Result struct {
	// Bytes were processed, from the start of the range, before Outcome stopped the operation.
	Bytes uint64

	// Outcome is Done if and only if Bytes is the whole length.
	Outcome Outcome

	// Errno is what the kernel said, 0 if the outcome is Done or Closed.
	Errno syscall.Errno
}

// Err returns nil if the outcome is Done, else an error that wraps Errno; ErrClosed if the FD was closed.
func (r Result) Err() error {
	switch r.Outcome {
	case Done:
		return nil
	case Closed:
		return ErrClosed
	}
	return fmt.Errorf("%v after %d bytes: %w", r.Outcome, r.Bytes, r.Errno)
}

// newResult decodes the end of an operation that wanted want bytes. errno is what ioctl(2) returned; field is
// the kernel's out field, a byte count or a negated errno, which the caller has preset to 0.
//
// Before Linux 6.15 the kernel left the field alone when it refused with EAGAIN because of a waiting event
// (fs/userfaultfd.c, userfaultfd_copy and its siblings). Hence the preset: an old value would pass for
// progress. Newer kernels store -EAGAIN, which read unsigned would pass for progress of nearly 2^64 bytes.
func newResult(errno syscall.Errno, field int64, want uint64) Result {
	switch {
	case field > 0 && uint64(field) < want:
		return Result{Bytes: uint64(field), Outcome: Again, Errno: syscall.EAGAIN}
	case errno == 0 && field < 0:
		errno = syscall.Errno(-field)
	case errno == 0 && uint64(field) == want:
		return Result{Bytes: want}
	case errno == 0:
		return Result{Outcome: Invalid, Errno: syscall.EIO}
	}
	return Result{Outcome: outcomeOf(errno), Errno: errno}
}

func outcomeOf(errno syscall.Errno) Outcome {
	switch errno {
	case 0:
		return Done
	case syscall.EEXIST:
		return Exists
	case syscall.EAGAIN:
		return Again
	case syscall.ENOENT:
		return NotRegistered
	case syscall.ESRCH, syscall.ENOSPC:
		return Gone
	case syscall.ENOMEM:
		return NoMemory
	case syscall.EFAULT:
		return Unreadable
	case syscall.EBUSY:
		return Busy
	}
	return Invalid
}
