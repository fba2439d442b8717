package baseline

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"thaw/uffd"
)

// A Wait is how a server waits for faults.
type Wait string

const (
	// Poll sleeps in poll(2), as servers that share a machine do.
	Poll Wait = "poll"
	// Spin asks again and again, and takes a core for it: the floor of what a fault can cost.
	Spin Wait = "spin"
	// Example is the policy of the examples that servers are copied from: poll, read one message, copy one page.
	Example Wait = "example"
)

// Placement says what belongs where: runs of Run pages of the source, one after the other, with Gap zero pages behind
// each, over Pages pages from address Base on. Where the source ends it begins anew.
type Placement struct {
	Base, Pages, Run, Gap uint64
}

// ServerOptions say what a server of faults serves.
type ServerOptions struct {
	Wait Wait
	// Source is a file in memory with the content. It stays the caller's.
	Source *os.File
	// FDs are the userfaultfds, each of another process with the same memory. They stay the caller's.
	FDs       []*os.File
	Placement Placement
	// Bulk is the number of threads with which Fill copies, to the process of the first userfaultfd.
	Bulk int
}

// A Server is a minimal server of faults in C. Not safe for concurrent use.
type Server struct{ child *child }

// StartServer starts a server and returns when it serves. The caller has to Close it, after the processes that it
// serves: without a server they read zeros.
func StartServer(ctx context.Context, o ServerOptions) (*Server, error) {
	p := o.Placement
	if p.Base%uffd.PageSize != 0 || p.Run == 0 {
		return nil, fmt.Errorf("start server: bad placement %+v", p)
	}
	var args []string
	for _, n := range []uint64{p.Base, p.Pages, p.Run, p.Gap, uint64(o.Bulk), uint64(len(o.FDs))} {
		args = append(args, strconv.FormatUint(n, 10))
	}
	c, err := start("server", append([]*os.File{o.Source}, o.FDs...), append([]string{string(o.Wait)}, args...)...)
	if err != nil {
		return nil, err
	}
	s := &Server{c}
	if _, err := c.line(ctx); err != nil {
		return nil, fmt.Errorf("%w; %w", err, s.Close())
	}
	return s, nil
}

// PID returns the server's process number.
func (s *Server) PID() int { return s.child.cmd.Process.Pid }

// StartFill begins to copy everything.
func (s *Server) StartFill() error {
	_, err := io.WriteString(s.child.stdin, "\n")
	return err
}

// WaitFill waits until everything is copied.
func (s *Server) WaitFill(ctx context.Context) (Cost, error) {
	line, err := s.child.line(ctx)
	if err != nil {
		return Cost{}, err
	}
	return parseCost(line)
}

// Fill copies everything.
func (s *Server) Fill(ctx context.Context) (Cost, error) {
	if err := s.StartFill(); err != nil {
		return Cost{}, err
	}
	return s.WaitFill(ctx)
}

// Close ends the server.
func (s *Server) Close() error { return s.child.close() }
