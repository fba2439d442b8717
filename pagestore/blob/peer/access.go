package peer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
)

// Access says which nodes are members of which namespaces, by a file that may change at any time:
//
//	{"namespaces": {"team-a": ["node-1", "node-2"], "public": ["*"]}}
//
// "*" stands for every node with a certificate. A namespace that is not listed has no members. Safe for concurrent use.
type Access struct{ w *watched[members] }

// members has the nodes of each namespace.
type members map[string]map[string]bool

// OpenAccess reads the file. log, if not nil, is told when a changed file is of no use; what it said before holds then.
func OpenAccess(path string, log *slog.Logger) (*Access, error) {
	w, err := watch([]string{path}, log, func(content [][]byte) (members, error) {
		m, err := parseMembers(content[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return m, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read who is a member of which namespace: %w", err)
	}
	return &Access{w}, nil
}

// Allows reports whether the node is a member of the namespace, as the file is now.
func (a *Access) Allows(node, namespace string) bool {
	m := a.w.get()[namespace]
	return m[node] || m["*"]
}

func parseMembers(b []byte) (members, error) {
	var file struct {
		Namespaces map[string][]string `json:"namespaces"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("there is more after the object")
	}
	m := make(members, len(file.Namespaces))
	for namespace, nodes := range file.Namespaces {
		if !validNamespace(namespace) {
			return nil, fmt.Errorf("%q cannot be a namespace", namespace)
		}
		m[namespace] = make(map[string]bool, len(nodes))
		for _, node := range nodes {
			if node != "*" {
				if err := CheckNode(node); err != nil {
					return nil, fmt.Errorf("namespace %s: %w", namespace, err)
				}
			}
			m[namespace][node] = true
		}
	}
	return m, nil
}
