package tracer

import "errors"

var (
	// ErrNotPermitted is returned, wrapped, if this process may not use BPF as the tracer does. The message says what to
	// grant.
	ErrNotPermitted = errors.New("not permitted to trace: grant CAP_BPF and CAP_PERFMON, or run as root")

	// ErrNotSupported is returned, wrapped, if the kernel lacks something that the tracer needs. The message says what.
	ErrNotSupported = errors.New("this kernel cannot trace page faults")

	// ErrNoProcess is returned, wrapped, if there is no process with a pid that was named.
	ErrNoProcess = errors.New("no such process")

	// ErrTarget is returned, wrapped, if what is to be traced is named wrongly.
	ErrTarget = errors.New("nothing that can be traced")

	// ErrEnded is returned, wrapped, if a process is named for a recording that has ended.
	ErrEnded = errors.New("the recording has ended")

	// ErrGone is returned, wrapped, if the helper process ended before its recording did.
	ErrGone = errors.New("tracer process is gone")
)
