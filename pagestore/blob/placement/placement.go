package placement

// Placement joins what is known of members and objects. It is safe for concurrent use.
type Placement struct {
	self    string
	members Membership
	hints   *Hints
	allow   func(node, namespace string) bool
}

// New returns the placement that the node of the name self sees. hints may be nil: there are none. allow says whether a node is a member of a namespace, as
// far as this node knows; others are not asked for its objects, and own none. nil: all are.
func New(self string, members Membership, hints *Hints, allow func(node, namespace string) bool) *Placement {
	if allow == nil {
		allow = func(string, string) bool { return true }
	}
	return &Placement{self, members, hints, allow}
}

// Owners returns the n nodes, this one may be among them, that have an object if somebody decides by that who has it.
func (p *Placement) Owners(namespace, object string, n int) []Member {
	return Rank(KeyOf(namespace, object), p.allowed(namespace), n)
}

// Sources returns at most n other nodes to ask for an object, the likeliest first: those of which there are hints, in an order that differs from node to node so
// that not all ask the same one; then the owners.
func (p *Placement) Sources(namespace, object string, n int) []Member {
	key := KeyOf(namespace, object)
	var hinted, others []Member
	said := make(map[string]bool)
	if p.hints != nil {
		for _, node := range p.hints.Holders(key) {
			said[node] = true
		}
	}
	for _, m := range p.allowed(namespace) {
		switch {
		case m.Name == p.self:
		case said[m.Name]:
			hinted = append(hinted, m)
		default:
			others = append(others, m)
		}
	}
	hinted = rank(append(key[:], p.self...), hinted, n)
	return append(hinted, rank(key[:], others, n-len(hinted))...)
}

func (p *Placement) allowed(namespace string) []Member {
	var all []Member
	for _, m := range p.members.Members() {
		if p.allow(m.Name, namespace) {
			all = append(all, m)
		}
	}
	return all
}
