package fleet

import "slices"

// ranked is how many of a chunk's homes are known beyond need, so that a death seldom makes all nodes be ranked anew.
const ranked = 6

// members is who is in the fleet, as the nodes believe: a death is known some time after it happened.
type members struct {
	all   []*node // whoever joined, in that order; the dead among them have gone set
	homes map[chunk]*homes
}

// homes are the first nodes of a chunk's ranking, the best first.
type homes struct {
	list  []*node
	known int // how many of members.all were looked at
}

// of returns the first n homes of a chunk, fewer if there are no more nodes. The result is valid until the next call.
func (m *members) of(c chunk, n int) []*node {
	h := m.homes[c]
	if h == nil {
		h = &homes{}
		m.homes[c] = h
	}
	h.list = slices.DeleteFunc(h.list, func(n *node) bool { return n.gone })
	switch {
	case h.known == 0 || len(h.list) < n:
		h.list = rank(c, m.all, ranked)
	case h.known < len(m.all):
		// What is left is a true beginning of the ranking: whoever joined since belongs into it, or behind it.
		h.list = rank(c, slices.Concat(h.list, m.all[h.known:]), len(h.list))
	}
	h.known = len(m.all)
	return h.list[:min(n, len(h.list))]
}

// rank returns the first n homes of a chunk among the nodes that are not gone, the best first: rendezvous hashing, the highest score wins.
func rank(c chunk, nodes []*node, n int) []*node {
	best := make([]*node, 0, n+1)
	for _, node := range nodes {
		if node.gone {
			continue
		}
		s, at := score(node.id, c), len(best)
		for at > 0 && score(best[at-1].id, c) < s {
			at--
		}
		if at < n {
			best = slices.Insert(best, at, node)
			best = best[:min(len(best), n)]
		}
	}
	return best
}

// score says how much a node is a chunk's home.
func score(id int, c chunk) uint64 {
	return mix(mix(uint64(id)+0x9e3779b97f4a7c15) ^ mix(uint64(c.snapshot)<<8|uint64(c.part)))
}

// mix spreads the bits of x: the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
