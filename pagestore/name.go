package pagestore

import (
	"fmt"
	"strings"
)

// DefaultNamespace is the namespace of a name that gives none.
const DefaultNamespace = "default"

// maxNameLen bounds each part of a name in bytes, so that a folder name with a suffix fits NAME_MAX (255).
const maxNameLen = 128

// Name names a snapshot. Both parts hold ASCII letters, digits, '.', '_' and '-', start with a letter or digit, and
// are 1 to 128 bytes long.
type Name struct {
	Namespace string
	Snapshot  string
}

// ParseName reads "namespace/snapshot", or "snapshot" in [DefaultNamespace]. Errors wrap [ErrName].
func ParseName(s string) (Name, error) {
	n := Name{Namespace: DefaultNamespace, Snapshot: s}
	if ns, snap, ok := strings.Cut(s, "/"); ok {
		n = Name{Namespace: ns, Snapshot: snap}
	}
	return n, n.Validate()
}

// String returns what [ParseName] reads: the namespace is left out if it is the default.
func (n Name) String() string {
	if n.Namespace == DefaultNamespace {
		return n.Snapshot
	}
	return n.Namespace + "/" + n.Snapshot
}

// Validate returns an error that wraps [ErrName] unless both parts are well formed.
func (n Name) Validate() error {
	if err := validatePart(n.Namespace); err != nil {
		return fmt.Errorf("%w: namespace %q %w", ErrName, n.Namespace, err)
	}
	if err := validatePart(n.Snapshot); err != nil {
		return fmt.Errorf("%w: snapshot %q %w", ErrName, n.Snapshot, err)
	}
	return nil
}

// MarshalText implements encoding.TextMarshaler; the zero Name is empty.
func (n Name) MarshalText() ([]byte, error) {
	if n == (Name{}) {
		return nil, nil
	}
	return []byte(n.String()), n.Validate()
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *Name) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*n = Name{}
		return nil
	}
	parsed, err := ParseName(string(text))
	if err != nil {
		return err
	}
	*n = parsed
	return nil
}

// nameError is what is wrong with a part of a name.
type nameError string

func (e nameError) Error() string { return string(e) }

func validatePart(s string) error {
	switch {
	case s == "":
		return nameError("is empty")
	case len(s) > maxNameLen:
		return nameError(fmt.Sprintf("is longer than %d bytes", maxNameLen))
	case !isAlnum(s[0]):
		return nameError("does not start with a letter or digit")
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '.' && c != '_' && c != '-' {
			return nameError(fmt.Sprintf("holds %q", c))
		}
	}
	return nil
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
