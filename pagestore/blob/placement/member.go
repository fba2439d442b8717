package placement

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// Member is a node that can be asked.
type Member struct {
	Name    string // as in its certificate
	Address string // where it serves its blobs, "host:port"
}

// Membership says who is a member. Implementations are safe for concurrent use.
type Membership interface {
	// Members returns who can be asked now, as far as is known, this node too. The caller must not change what it gets.
	Members() []Member
}

// Static are members that are the same as long as the process runs.
type Static []Member

// Members returns all of them.
func (s Static) Members() []Member { return s }

// ParseStatic reads members as "NAME=HOST:PORT", with commas between them.
func ParseStatic(list string) (Static, error) {
	var s Static
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(list, ",") {
		name, address, _ := strings.Cut(strings.TrimSpace(part), "=")
		if err := checkMember(name, address); err != nil {
			return nil, fmt.Errorf("%q is not NAME=HOST:PORT: %w", part, err)
		}
		if seen[name] {
			return nil, fmt.Errorf("node %s is there twice", name)
		}
		seen[name] = true
		s = append(s, Member{name, address})
	}
	return s, nil
}

// maxName is how many bytes a node's name may have, in a certificate and so here.
const maxName = 128

// checkMember says what is wrong with a member that somebody named.
func checkMember(name, address string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("the name of a node has 1 to %d bytes, not %d", maxName, len(name))
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "" || port == "" {
		return errors.New("an address has a host and a port")
	}
	return nil
}
