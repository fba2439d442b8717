package version

import (
	"encoding/hex"
	"fmt"
)

// Digest is a SHA-256, in text hexadecimal.
type Digest [32]byte

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("%q is no SHA-256", text)
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// A Key names a version: the SHA-256 of what it is made of.
type Key Digest

// String returns 64 hexadecimal digits.
func (k Key) String() string { return Digest(k).String() }

// Short returns the first 12 digits, for people and for names in which the whole key has no room.
func (k Key) Short() string { return k.String()[:12] }

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) { return Digest(k).MarshalText() }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Key) UnmarshalText(text []byte) error { return (*Digest)(k).UnmarshalText(text) }

// ParseKey reads what String returns.
func ParseKey(text string) (k Key, err error) {
	err = k.UnmarshalText([]byte(text))
	return k, err
}
