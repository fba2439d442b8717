package network

import (
	"errors"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// natTable is a table of the bridge's own: removing it removes all that is in it, and nothing of anybody else's.
func natTable(bridge string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "thaw-" + bridge}
}

// masquerade gives packets that leave a bridge's subnet for another interface the host's address. It takes the place of what an earlier
// owner has left.
func masquerade(bridge string, subnet netip.Prefix) error {
	if err := unmasquerade(bridge); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(natTable(bridge))
	chain := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	first := subnet.Masked().Addr().As4()
	mask := ^uint32(0) << (32 - subnet.Bits())
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		// ip saddr SUBNET (the address lies at 12 in the header) oifname != BRIDGE masquerade
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.BigEndian.PutUint32(mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: first[:]},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: ifName(bridge)},
		&expr.Masq{},
	}})
	return c.Flush()
}

// unmasquerade removes a bridge's table, if there is one.
func unmasquerade(bridge string) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.DelTable(natTable(bridge))
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// ifName returns the name of an interface as the kernel compares it: padded with zeros.
func ifName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
