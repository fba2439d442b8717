package restore

import "time"

// directReads is how often a reader that is awake reads from one process before it asks epoll again. A fault of another process
// waits, and so does whoever calls, for so many reads and the copies of what they brought: with one thread that faults some 40 us.
const directReads = 4

// direct is the process that a reader reads from without asking epoll whether there is something. A thread that walks through
// missing pages faults again right after it got the last one, so asking is one system call of three for each fault.
//
// It is the one that faulted last, as long as that is the only one: among several epoll's order is what serves them evenly.
type direct struct {
	a     *addressSpace // nil: none
	reads int           // since epoll was asked last
}

// forget makes sure that a process is not read from any more.
func (d *direct) forget(a *addressSpace) {
	if d.a == a {
		d.a = nil
	}
}

// next returns the process to read from, nil if epoll is to be asked.
func (d *direct) next() *addressSpace {
	if d.a == nil || d.reads == directReads || d.a.shared() {
		return nil
	}
	d.reads++
	return d.a
}

// shared reports whether others than the reader install pages in the address space. A read takes the lock from them, in vain most
// often, and who has to wait for a lock waits for the Go scheduler besides.
func (a *addressSpace) shared() bool { return a.s.own.streamed || a.s.own.loading.Load() > 0 }

// readDirect reads from the process that faulted last, and reports false if epoll is to be asked instead.
func (r *reader) readDirect(now time.Time) bool {
	a := r.direct.next()
	if a == nil {
		return false
	}
	if r.serve(a, now) > 0 {
		r.patience.found(now)
	}
	return true
}
