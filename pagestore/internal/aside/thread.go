package aside

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// nice is the nice value of a thread that gives way. Not the idle class: where the CPUs are always busy it would never come to an end.
const nice = 10

// Of ioprio_set(2): one thread, and classes. The classes need a scheduler of the disk that knows them (mq-deadline, bfq).
const (
	whoProcess = 1
	noClass    = 0
	idleClass  = 3 << 13
)

// Thread is a thread that gives way. It belongs to the goroutine that made it, and ends with that.
type Thread struct {
	was     int // its nice value before
	hurries bool
}

// GiveWay has the calling goroutine's thread give way from here on. The thread is the goroutine's alone, and ends with it: it may lack the
// privilege to be what it was.
func GiveWay() *Thread {
	runtime.LockOSThread()
	t := &Thread{}
	if raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		t.was = 20 - raw // the system call has them the other way round, so that none is negative
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, max(nice, t.was)) // 0 is the calling thread; if it fails all else works
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, idleClass)
	return t
}

// Hurry ends the giving way: somebody waits for what the thread does. Without the privilege to raise its priority only the disk's part is undone.
// It is for the goroutine that called GiveWay, and may be called again.
func (t *Thread) Hurry() {
	if t.hurries {
		return
	}
	t.hurries = true
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, t.was)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, noClass)
}
