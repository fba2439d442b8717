package cpu

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A Set is a set of features: sorted, each once. [New] makes one of any list; in JSON it is a list. A Set is not changed once made.
type Set []string

// New returns the set of the names.
func New(names ...string) Set {
	s := slices.Clone(names)
	slices.Sort(s)
	return slices.Compact(s)
}

// Has reports whether the feature is in s.
func (s Set) Has(feature string) bool {
	_, ok := slices.BinarySearch(s, feature)
	return ok
}

// HasAll reports whether all features of sub are in s.
func (s Set) HasAll(sub Set) bool { return len(sub.Minus(s)) == 0 }

// Minus returns the features of s that are not in other; nil if there are none.
func (s Set) Minus(other Set) Set {
	var out Set
	for _, f := range s {
		if !other.Has(f) {
			out = append(out, f)
		}
	}
	return out
}

// Plus returns the features of both.
func (s Set) Plus(other Set) Set { return New(slices.Concat(s, other)...) }

// Equal reports whether both hold the same features.
func (s Set) Equal(other Set) bool { return slices.Equal(s, other) }

// String returns the highest level in s and the features beyond it, as [Parse] reads them.
func (s Set) String() string {
	words := []string(s)
	for _, l := range levels {
		if s.HasAll(l.set) {
			words = append([]string{l.name}, s.Minus(l.set)...)
		}
	}
	return strings.Join(words, ",")
}

// Summary returns the highest level in s, and how many features there are beyond it.
func (s Set) Summary() string {
	words := strings.Split(s.String(), ",")
	if n := len(words) - 1; n > 0 {
		return fmt.Sprintf("%s and %d more", words[0], n)
	}
	return words[0]
}

// UnmarshalJSON implements json.Unmarshaler. It refuses what is no set.
func (s *Set) UnmarshalJSON(text []byte) error {
	var names []string
	if err := json.Unmarshal(text, &names); err != nil {
		return err
	}
	for i, name := range names {
		if !isName(name) {
			return fmt.Errorf("%q is no name of a feature of a CPU", name)
		}
		if i > 0 && names[i-1] >= name {
			return fmt.Errorf("features of the CPU are not sorted: %q before %q", names[i-1], name)
		}
	}
	*s = names
	return nil
}

// isName reports whether s can be the name of a feature.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 32
}

// MissingError says which features a host lacks that a process may use.
type MissingError struct {
	Missing Set
}

// Error names them.
func (e *MissingError) Error() string {
	return "this CPU lacks what the process may use: " + strings.Join(e.Missing, " ")
}

// Admit returns a [*MissingError] unless s, that of a host, has all features that a process may use.
func (s Set) Admit(process Set) error {
	if missing := process.Minus(s); len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}
