package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// bridge is the host's end of all attached namespaces. It is safe for concurrent use.
type bridge struct {
	link *netlink.Bridge
}

// aliasPrefix begins the alias of our bridges; the folder of the network follows.
const aliasPrefix = "thaw: "

// openBridge makes the bridge, or takes over the one that an earlier owner of the same folder has left.
func openBridge(name, dir string, addr netip.Prefix) (*bridge, error) {
	alias := aliasPrefix + dir
	old, err := netlink.LinkByName(name)
	switch {
	case err == nil && old.Attrs().Alias != alias:
		return nil, fmt.Errorf("bridge %s: %w", name, ErrBridgeTaken)
	case err == nil:
		// Anew rather than as it was left: half of it may be there.
		if err := netlink.LinkDel(old); err != nil {
			return nil, fmt.Errorf("remove old bridge %s: %w", name, err)
		}
	case !errors.As(err, new(netlink.LinkNotFoundError)):
		return nil, fmt.Errorf("look for bridge %s: %w", name, err)
	}
	if err := free(addr.Masked()); err != nil {
		return nil, fmt.Errorf("bridge %s: %w", name, err)
	}
	b := &bridge{link: &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}}
	b.link.Name = name
	if err := netlink.LinkAdd(b.link); err != nil {
		return nil, fmt.Errorf("make bridge %s: %w", name, err)
	}
	if err := b.configure(alias, addr); err != nil {
		return nil, errors.Join(fmt.Errorf("set up bridge %s: %w", name, err), b.remove())
	}
	return b, nil
}

// free returns an error if an interface has an address with a network that is the subnet or a part of it. A larger network around it is
// no harm: the kernel takes the narrower road.
func free(subnet netip.Prefix) error {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("look for addresses: %w", err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP.To4())
		ones, _ := a.Mask.Size()
		if ok && ones >= subnet.Bits() && subnet.Contains(ip) {
			return fmt.Errorf("%w: %v, as %v of interface %d", ErrSubnetTaken, subnet, a.IPNet, a.LinkIndex)
		}
	}
	return nil
}

func (b *bridge) configure(alias string, addr netip.Prefix) error {
	if err := netlink.LinkSetAlias(b.link, alias); err != nil {
		return fmt.Errorf("alias: %w", err)
	}
	if err := netlink.AddrAdd(b.link, &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	return netlink.LinkSetUp(b.link)
}

func (b *bridge) remove() error {
	if err := netlink.LinkDel(b.link); err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) {
		return fmt.Errorf("remove bridge %s: %w", b.link.Name, err)
	}
	return nil
}

// hostEnd returns the name of the host's end of a pair: that of the bridge is unique, and an address in it.
func (b *bridge) hostEnd(a netip.Addr) string {
	ip := a.As4()
	return fmt.Sprintf("tv%04x%02x%02x%02x%02x", uint16(b.link.Index), ip[0], ip[1], ip[2], ip[3])
}

// attach makes a pair of interfaces, one in the bridge and one in the namespace at path.
func (b *bridge) attach(path string, addr netip.Prefix, gateway netip.Addr) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	name := b.hostEnd(addr.Addr())
	pair := netlink.NewVeth(netlink.NewLinkAttrs())
	pair.Name, pair.MasterIndex = name, b.link.Index
	pair.PeerName, pair.PeerNamespace = "eth0", netlink.NsFd(ns)
	pair.Flags = net.FlagUp
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make interface: %w", err)
	}
	if err := configureInside(ns, addr, gateway); err != nil {
		return errors.Join(err, b.detach(addr.Addr()))
	}
	return nil
}

// configureInside sets up the namespace's end of a pair.
func configureInside(ns netns.NsHandle, addr netip.Prefix, gateway netip.Addr) error {
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	eth, err := inside.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("eth0: %w", err)
	}
	if err := inside.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
		return fmt.Errorf("address %v: %w", addr, err)
	}
	if err := inside.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set eth0 up: %w", err)
	}
	if err := inside.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// detach removes the pair of an address.
func (b *bridge) detach(a netip.Addr) error {
	link, err := netlink.LinkByName(b.hostEnd(a))
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) {
		return fmt.Errorf("remove the interface of %v: %w", a, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
