package network

import (
	"net/netip"
	"os"
	"strings"
)

// hostResolvConf is where the host says who resolves names for it.
const hostResolvConf = "/etc/resolv.conf"

// ResolvConf returns the text of a resolv.conf for an attached namespace: the network's name servers. Of the host's own those are left out
// that a container cannot reach, which are those on a loopback address.
func (n *Network) ResolvConf() string {
	servers := n.options.Nameservers
	if servers == nil {
		text, err := os.ReadFile(hostResolvConf)
		if err == nil {
			servers = nameservers(string(text))
		}
	}
	var b strings.Builder
	for _, s := range servers {
		b.WriteString("nameserver " + s.String() + "\n")
	}
	return b.String()
}

// nameservers returns the name servers of a resolv.conf that are not on a loopback address.
func nameservers(text string) []netip.Addr {
	var all []netip.Addr
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && !a.IsLoopback() {
			all = append(all, a)
		}
	}
	return all
}
