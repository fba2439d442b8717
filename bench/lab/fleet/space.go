package fleet

import (
	"context"
	"fmt"
	"net"
	"os/exec"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"thaw/internal/ownthread"
)

// A space is a network namespace without a name. It lives as long as the descriptor, and what runs in it.
type space struct {
	ns netns.NsHandle
}

// newSpace makes a namespace whose loopback interface is up.
func newSpace() (*space, error) {
	s := &space{}
	err := ownthread.Run(func() (err error) {
		s.ns, err = netns.New()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return s, s.inside(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
}

func (s *space) close() error { return s.ns.Close() }

// inside runs f with a handle on the namespace's interfaces.
func (s *space) inside(f func(h *netlink.Handle) error) error {
	h, err := netlink.NewHandleAt(s.ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

// run runs f on a thread that is in the namespace: sockets that it makes, and programs that it starts, belong there.
func (s *space) run(f func() error) error {
	return ownthread.Run(func() error {
		if err := netns.Set(s.ns); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// start starts a program in the namespace.
func (s *space) start(cmd *exec.Cmd) error {
	return s.run(cmd.Start)
}

// listen listens for TCP in the namespace.
func (s *space) listen(address string) (l net.Listener, err error) {
	err = s.run(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// dial connects from the namespace to an address, not a name.
func (s *space) dial(ctx context.Context, address string) (c net.Conn, err error) {
	err = s.run(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}
