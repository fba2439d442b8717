package restore

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A waker is the reader's way to wait: an epoll set, and an eventfd in it by which others end the waiting.
type waker struct {
	epoll int // owned; immutable; the reader's

	mu     sync.Mutex
	event  int // owned; protected by mu
	closed bool
}

func newWaker() (*waker, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	ev, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(ep)
		return nil, err
	}
	w := &waker{epoll: ep, event: ev}
	if err := w.add(ev); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *waker) add(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// remove must come before the closing of fd: a descriptor that has a duplicate elsewhere stays in the set otherwise.
func (w *waker) remove(fd int) {
	unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, fd, nil)
}

// wake ends the current wait, or the next one.
func (w *waker) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		one := [8]byte{1}
		unix.Write(w.event, one[:]) // fails only when the counter is full: then the reader will wake anyway
	}
}

// wait blocks until a descriptor is ready, somebody calls wake, or timeout is over; a negative timeout is none. It
// returns the ready events in buf, and whether there was a wake-up, which it consumes.
func (w *waker) wait(buf []unix.EpollEvent, timeout time.Duration) (ready []unix.EpollEvent, woken bool, err error) {
	ms := -1
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(w.epoll, buf, ms)
	if err == unix.EINTR {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	ready = buf[:0]
	for _, e := range buf[:n] {
		if int(e.Fd) == w.event {
			var sink [8]byte
			unix.Read(w.event, sink[:])
			woken = true
			continue
		}
		ready = append(ready, e)
	}
	return ready, woken, nil
}

func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		unix.Close(w.event)
		unix.Close(w.epoll)
	}
}
