package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
)

// pool hands out the addresses of a subnet: not its first, which is the subnet's, nor its last, which is for broadcasts. It is safe for
// concurrent use.
type pool struct {
	subnet  netip.Prefix
	gateway netip.Addr // the second address; the bridge's

	mu sync.Mutex
	// protected by mu
	used map[netip.Addr]bool
	next uint32 // where the search begins, so that an address rests before somebody else has it: peers remember who had it
}

func newPool(subnet netip.Prefix) *pool {
	p := &pool{subnet: subnet.Masked(), used: make(map[netip.Addr]bool), next: 2}
	p.gateway = p.at(1)
	return p
}

// size returns the number of addresses in the subnet.
func (p *pool) size() uint32 { return 1 << (32 - p.subnet.Bits()) }

// at returns the address with a number.
func (p *pool) at(i uint32) netip.Addr {
	first := p.subnet.Addr().As4()
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(first[:])+i)))
}

// prefix returns an address with the subnet's length.
func (p *pool) prefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, p.subnet.Bits()) }

// take returns an address that is free. Returns an error that wraps [ErrNoAddress] if there is none.
func (p *pool) take() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.size() - 2
	for range last {
		i := p.next
		if p.next++; p.next > last {
			p.next = 2
		}
		if a := p.at(i); !p.used[a] {
			p.used[a] = true
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("subnet %v: %w", p.subnet, ErrNoAddress)
}

func (p *pool) release(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, a)
}
