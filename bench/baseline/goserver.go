package baseline

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"thaw/uffd"
)

// goServerLook is how often, in milliseconds, a server in Go that sleeps looks whether it is to end, and in how many vain reads one that
// does not sleep.
const goServerLook = 100

// A GoServer does in Go what the program of [StartServer] does in C for the faults of one process, on a thread of this process, and nothing
// else: what it takes longer is what any server does that is written in Go. It reads events and makes nothing of them, so the process must not change
// its mappings. Not safe for concurrent use.
type GoServer struct {
	fd     *uffd.FD
	source []byte
	base   uint64
	ending atomic.Bool
	done   chan error
}

// StartGoServer starts a thread that copies a page for each fault of fd: page i behind base has the content of page i of the source. It waits as
// Poll or Spin say. fd and source stay the caller's, who has to Close the server before them and after the process.
func StartGoServer(wait Wait, fd *uffd.FD, source []byte, base uint64) (*GoServer, error) {
	next := map[Wait]func(*GoServer, []uffd.Message) (int, error){Poll: (*GoServer).poll, Spin: (*GoServer).spin}[wait]
	if next == nil {
		return nil, fmt.Errorf("start server in Go: it cannot wait as %q", wait)
	}
	s := &GoServer{fd: fd, source: source, base: base, done: make(chan error, 1)}
	go func() { s.done <- s.serve(next) }()
	return s, nil
}

// Close ends the server.
func (s *GoServer) Close() error {
	s.ending.Store(true)
	return <-s.done
}

func (s *GoServer) serve(next func(*GoServer, []uffd.Message) (int, error)) error {
	runtime.LockOSThread()
	var msgs [16]uffd.Message // as many as the one in C takes
	for {
		n, err := next(s, msgs[:])
		if err != nil || n == 0 {
			return err
		}
		for i := range msgs[:n] {
			if msgs[i].Kind() != uffd.EventPagefault {
				continue
			}
			addr, _, _ := msgs[i].PageFault()
			if err := s.copy(addr &^ (uffd.PageSize - 1)); err != nil {
				return err
			}
		}
	}
}

// poll returns the next messages, and none if the server is to end.
func (s *GoServer) poll(msgs []uffd.Message) (int, error) {
	p := []unix.PollFd{{Fd: int32(s.fd.Fd()), Events: unix.POLLIN}}
	for !s.ending.Load() {
		if _, err := unix.Poll(p, goServerLook); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("server in Go: poll: %w", err)
		}
		if n, err := s.fd.ReadMessages(msgs); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// spin is poll without sleeping.
func (s *GoServer) spin(msgs []uffd.Message) (int, error) {
	for !s.ending.Load() {
		for range goServerLook {
			if n, err := s.fd.ReadMessages(msgs); n > 0 || err != nil {
				return n, err
			}
		}
	}
	return 0, nil
}

// copy brings the page at addr.
func (s *GoServer) copy(addr uint64) error {
	page := s.source[addr-s.base:][:uffd.PageSize]
	for {
		switch r := s.fd.Copy(addr, page, 0); r.Outcome {
		case uffd.Done, uffd.Gone:
			return nil
		case uffd.Exists:
			return s.fd.Wake(uffd.Range{Start: addr, End: addr + uffd.PageSize})
		case uffd.Again:
		default:
			return fmt.Errorf("server in Go: copy to %#x: %v", addr, r)
		}
	}
}
