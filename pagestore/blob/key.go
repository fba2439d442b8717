package blob

import (
	"fmt"
	"strings"
)

// Bounds of keys.
const (
	// MaxKey is how many bytes a key may have.
	MaxKey = 512

	maxParts = 16
	maxPart  = 255 // what a name may have on Linux's file systems
)

// ValidateKey returns ErrKey, with the reason, if no blob can have that key.
func ValidateKey(key string) error {
	if why := wrong(key); why != "" {
		return fmt.Errorf("%w %q: %s", ErrKey, shortened(key), why)
	}
	return nil
}

// ValidatePrefix returns ErrKey if no key begins with prefix. The empty one is a prefix of all.
func ValidatePrefix(prefix string) error {
	// What any key can go on with: a further letter makes a key of a prefix that ends within a part or before one.
	if prefix == "" {
		return nil
	}
	key := prefix
	if strings.HasSuffix(prefix, "/") {
		key += "a"
	}
	if why := wrong(key); why != "" {
		return fmt.Errorf("%w %q as a prefix: %s", ErrKey, shortened(prefix), why)
	}
	return nil
}

// wrong says what is wrong with a key, or nothing.
func wrong(key string) string {
	if key == "" {
		return "it is empty"
	}
	if len(key) > MaxKey {
		return fmt.Sprintf("it has %d bytes, and %d are the most", len(key), MaxKey)
	}
	parts := 0
	for part := range strings.SplitSeq(key, "/") {
		if parts++; parts > maxParts {
			return fmt.Sprintf("it has more than %d parts", maxParts)
		}
		if why := wrongPart(part); why != "" {
			return why
		}
	}
	return ""
}

func wrongPart(part string) string {
	switch {
	case part == "":
		return "a part of it is empty"
	case part[0] == '.':
		return "a part of it begins with a dot"
	case len(part) > maxPart:
		return fmt.Sprintf("a part of it has more than %d bytes", maxPart)
	}
	for i := range len(part) {
		if !allowed(part[i]) {
			return fmt.Sprintf("it has the byte %q", part[i])
		}
	}
	return ""
}

func allowed(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-@=", c) >= 0
}

// shortened bounds what an error quotes.
func shortened(key string) string {
	if len(key) > MaxKey {
		return key[:MaxKey] + "..."
	}
	return key
}
