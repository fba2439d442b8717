package restore

import (
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	// streamNice is the nice value of stream workers. What the stream brings nobody has asked for; on a busy machine the
	// CPU belongs to the restored process and to its faults. Not the idle class: where the CPUs are always busy the
	// stream would never end, and the process would depend on us for ever.
	streamNice = 10
	// readerSlice is the reader's scheduling slice, in nanoseconds. A short slice means an early deadline, so a reader
	// that wakes up for a fault preempts threads with the default slice of 3 ms (EEVDF, Linux 6.12).
	readerSlice = 100_000
)

// asStreamWorker makes the calling goroutine's thread, for the rest of the goroutine's life, one that gives way. The
// thread ends with the goroutine: its nice value could not be lowered again without privilege.
func asStreamWorker() {
	runtime.LockOSThread()
	unix.Setpriority(unix.PRIO_PROCESS, 0, streamNice) // 0 is the calling thread; if it fails all else works
}

// asReader makes the calling goroutine's thread one that is woken up soon. It does nothing on older kernels.
func asReader() {
	runtime.LockOSThread()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return
	}
	attr.Runtime = readerSlice
	unix.SchedSetAttr(0, attr, 0)
}

// giveWay lets others run first: goroutines that wait for one of the Go runtime's few places, as a reader does that is back from
// its wait, and threads that wait for this CPU. Without it a thread that wakes up beside a busy one may wait for the next tick of
// the clock, up to 4 ms, whatever the nice values: its deadline counts, and the slice of the running one is protected.
func giveWay() {
	runtime.Gosched()
	unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
}
