package fleet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// hubName is the bridge's, in the hub's namespace; nodeEnd is what each node's only interface is called.
const (
	hubName = "hub"
	nodeEnd = "eth0"
)

// subnet is the fleet's: namespaces of their own know no other.
var subnet = netip.MustParsePrefix("10.93.0.0/24")

// address returns the n-th address of the subnet.
func address(n int) netip.Addr {
	a := subnet.Addr().As4()
	a[3] = byte(n)
	return netip.AddrFrom4(a)
}

func onSubnet(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(subnet.Bits(), 32)}}
}

// makeHub makes the bridge, with addresses for whatever listens there.
func makeHub(hub *space, addresses ...netip.Addr) error {
	return hub.inside(func(h *netlink.Handle) error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		bridge.Name = hubName
		if err := h.LinkAdd(bridge); err != nil {
			return fmt.Errorf("make a bridge: %w", err)
		}
		for _, a := range addresses {
			if err := h.AddrAdd(bridge, onSubnet(a)); err != nil {
				return fmt.Errorf("address %v: %w", a, err)
			}
		}
		return h.LinkSetUp(bridge)
	})
}

// A link joins a namespace to the hub. Its methods are not safe for concurrent use.
type link struct {
	hub, space *space
	hubEnd     string
}

// join makes a pair of interfaces, one in the bridge and one in s.
func join(hub, s *space, name string, a netip.Addr) (*link, error) {
	l := &link{hub: hub, space: s, hubEnd: name}
	err := hub.inside(func(h *netlink.Handle) error {
		bridge, err := h.LinkByName(hubName)
		if err != nil {
			return err
		}
		pair := netlink.NewVeth(netlink.NewLinkAttrs())
		pair.Name, pair.MasterIndex = name, bridge.Attrs().Index
		pair.PeerName, pair.PeerNamespace = nodeEnd, netlink.NsFd(s.ns)
		pair.Flags = net.FlagUp
		return h.LinkAdd(pair)
	})
	if err != nil {
		return nil, fmt.Errorf("make link %s: %w", name, err)
	}
	return l, s.inside(func(h *netlink.Handle) error {
		eth, err := h.LinkByName(nodeEnd)
		if err != nil {
			return err
		}
		return errors.Join(h.AddrAdd(eth, onSubnet(a)), h.LinkSetUp(eth))
	})
}

// ends runs f on both interfaces of the link.
func (l *link) ends(f func(h *netlink.Handle, end netlink.Link) error) error {
	for _, side := range []struct {
		s    *space
		name string
	}{{l.hub, l.hubEnd}, {l.space, nodeEnd}} {
		err := side.s.inside(func(h *netlink.Handle) error {
			end, err := h.LinkByName(side.name)
			if err != nil {
				return err
			}
			return f(h, end)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// What the shaper lets through at once, and keeps: a millisecond's worth of the rate, but no less than some of the largest packets that a
// pair of interfaces passes on in one piece (64 KiB).
const (
	leastBurst  = 4 * 64 << 10
	burstsASec  = 1000
	queuedParts = 4
)

// shape bounds what passes in either direction, in bits a second; 0: no bound.
func (l *link) shape(bits int64) error {
	return l.ends(func(h *netlink.Handle, end netlink.Link) error {
		attrs := netlink.QdiscAttrs{LinkIndex: end.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
		if bits == 0 {
			all, err := h.QdiscList(end)
			if err != nil {
				return err
			}
			for _, q := range all {
				if q.Type() == "tbf" {
					return h.QdiscDel(q)
				}
			}
			return nil
		}
		rate := uint64(bits) / 8
		burst := max(leastBurst, rate/burstsASec)
		err := h.QdiscReplace(&netlink.Tbf{
			QdiscAttrs: attrs, Rate: rate, Limit: uint32(queuedParts * burst),
			// In the kernel's ticks: what the burst takes at that rate.
			Buffer: netlink.Xmittime(rate, uint32(burst)),
		})
		if err != nil {
			return fmt.Errorf("bound a link to %d bits a second: %w", bits, err)
		}
		return nil
	})
}

// cut takes the link away, or brings it back.
func (l *link) cut(off bool) error {
	return l.hub.inside(func(h *netlink.Handle) error {
		end, err := h.LinkByName(l.hubEnd)
		if err != nil {
			return err
		}
		if off {
			return h.LinkSetDown(end)
		}
		return h.LinkSetUp(end)
	})
}

// received returns how many bytes have come over the link to its namespace, with what packets are wrapped in.
func (l *link) received() (n uint64, err error) {
	err = l.space.inside(func(h *netlink.Handle) error {
		eth, err := h.LinkByName(nodeEnd)
		if err != nil {
			return err
		}
		n = eth.Attrs().Statistics.RxBytes
		return nil
	})
	return n, err
}
