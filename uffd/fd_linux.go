//go:build linux && (amd64 || arm64)

package uffd

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

// FD is an owned userfaultfd. It is safe for concurrent use.
//
// Every method but Fd holds the descriptor open while it runs; after Close they report Closed or ErrClosed.
type FD struct {
	fd       int      // immutable; valid between gate.enter and gate.leave
	features Features // immutable

	gate gate
}

// Open makes a userfaultfd for the address space of this process, and negotiates its API. It uses
// userfaultfd(2), and /dev/userfaultfd where the system call is refused.
//
// The descriptor does not survive exec, and is passed to whoever serves the faults; see the package comment
// for why that must be another process.
//
// Returns an error that matches ErrNotSupported if the kernel lacks userfaultfd or a feature, and one that
// matches fs.ErrPermission if this process may not use it.
func Open(opts *Options) (*FD, error) {
	if opts == nil {
		opts = &Options{}
	}
	fd, err := open(opts.UserModeOnly)
	if err != nil {
		return nil, err
	}
	if _, _, errno := negotiate(fd, opts.Features); errno != 0 {
		unix.Close(fd)
		return nil, negotiationError(errno, opts)
	}
	return &FD{fd: fd, features: opts.Features, gate: newGate()}, nil
}

// FromFD adopts a descriptor that a peer sent, or that an EventFork carried. The FD owns it from then on; on
// error it is closed.
//
// The peer has negotiated the API, so the features are not known. FromFD makes the descriptor non-blocking
// and close-on-exec: the former holds for the peer, too, if it kept a copy.
//
// Returns ErrNotUserfaultfd if fd is something else, ErrNotNegotiated if the peer forgot to negotiate.
func FromFD(fd int) (*FD, error) {
	if err := adopt(fd); err != nil {
		if !errors.Is(err, unix.EBADF) {
			unix.Close(fd)
		}
		return nil, err
	}
	return &FD{fd: fd, gate: newGate()}, nil
}

func adopt(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return fmt.Errorf("adopt descriptor %d: %w", fd, err)
	}
	// What the link says cannot be forged: a name in the file system begins with a slash. To try an ioctl
	// instead could do harm if a hostile peer sent some device.
	var link [64]byte
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), link[:])
	if err != nil {
		return fmt.Errorf("identify descriptor %d: %w", fd, err)
	}
	if got := string(link[:n]); got != "anon_inode:[userfaultfd]" {
		return fmt.Errorf("%w but %q", ErrNotUserfaultfd, got)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("make userfaultfd non-blocking: %w", err)
	}
	// poll reports an error on a userfaultfd only if it blocks or was not negotiated (fs/userfaultfd.c,
	// userfaultfd_poll).
	events := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(events, 0); err == nil && events[0].Revents&unix.POLLERR != 0 {
		return ErrNotNegotiated
	}
	return nil
}

// Features returns the features that Open negotiated, 0 if the FD comes from FromFD.
func (f *FD) Features() Features { return f.features }

// Fd returns the descriptor for poll and epoll. It stays owned by f, and its number may be another file's
// after Close.
func (f *FD) Fd() int { return f.fd }

// Close closes the descriptor once the calls that use it have returned. It is idempotent. If no other process
// holds a copy, all waiting threads of the target go on, and pages that are missing read as zeros from then
// on.
func (f *FD) Close() error {
	if !f.gate.shutAndWait() {
		return nil
	}
	return unix.Close(f.fd)
}

// ReadMessages reads up to len(buf) messages, and returns how many; 0 if none is queued. It never blocks: wait
// with poll or epoll on Fd. Faults come in the order in which they happened, and so do events; but a fault
// overtakes all events that are queued when it happens, and one that happens during the call may come after
// them. So the order between a fault and an event says nothing: apply the events of a batch first.
//
// A target that forks, remaps, unmaps or removes sleeps until its message is read. An EventFork brings a
// descriptor that the caller owns.
//
// Returns ErrClosed after Close; an error that matches unix.EMFILE if there was no room for the descriptor of
// an EventFork, which then stays queued.
func (f *FD) ReadMessages(buf []Message) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	if !f.gate.enter() {
		return 0, ErrClosed
	}
	defer f.gate.leave()

	n, errno := readMessages(f.fd, buf)
	switch {
	case errno == unix.EAGAIN:
		return 0, nil
	case errno != 0:
		return 0, fmt.Errorf("read userfaultfd: %w", errno)
	case n == 0 || n%messageSize != 0:
		return 0, fmt.Errorf("read userfaultfd: %d bytes: %w", n, io.ErrUnexpectedEOF)
	}
	return n / messageSize, nil
}
