package fleet

import (
	"slices"
	"strconv"

	"thaw/pagestore/blob/placement"
)

// ranked is how many of a chunk's homes are known beyond need, so that a death seldom makes all nodes be ranked anew.
const ranked = 6

// members is who is in the fleet, as the nodes believe: a death is known some time after it happened.
type members struct {
	all   []*node // whoever joined, each at its id; the dead among them have gone set
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
		h.list = m.rank(c, m.all, ranked)
	case h.known < len(m.all):
		// What is left is a true beginning of the ranking: whoever joined since belongs into it, or behind it.
		h.list = m.rank(c, slices.Concat(h.list, m.all[h.known:]), len(h.list))
	}
	h.known = len(m.all)
	return h.list[:min(n, len(h.list))]
}

// rank returns the first n homes of a chunk among those of the nodes that are not gone, the best first, as the nodes themselves find them.
func (m *members) rank(c chunk, nodes []*node, n int) []*node {
	named := make([]placement.Member, 0, len(nodes))
	for _, node := range nodes {
		if !node.gone {
			named = append(named, placement.Member{Name: strconv.Itoa(node.id)})
		}
	}
	best := make([]*node, 0, n)
	for _, member := range placement.Rank(keyOf(c), named, n) {
		id, _ := strconv.Atoi(member.Name) // it was made from one
		best = append(best, m.all[id])
	}
	return best
}

// keyOf is the key of a chunk as if it were an object of its own.
func keyOf(c chunk) placement.Key {
	return placement.KeyOf("fleet", strconv.Itoa(c.snapshot)+"/"+strconv.Itoa(c.part))
}
