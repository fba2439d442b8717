package tier

import (
	"fmt"
	"strings"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// Kind is what a blob of the key space is.
type Kind uint8

// The kinds. Their folders are part of the format, do not change them.
const (
	KindName Kind = iota + 1
	KindDescriptor
	KindMeta
	KindPack
	KindHot
	KindLease
)

// keyRoot begins all keys, and is the version of the key space.
const keyRoot = "v1"

var folders = [...]string{KindName: "names", KindDescriptor: "descriptors", KindMeta: "meta", KindPack: "packs", KindHot: "hot", KindLease: "leases"}

// String returns the folder of the kind.
func (k Kind) String() string {
	if int(k) < len(folders) && folders[k] != "" {
		return folders[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Key is a key that has been taken apart.
type Key struct {
	Namespace string
	Kind      Kind
	// Name is the snapshot's for KindName, and whatever a lease is called.
	Name string
	// Digest is the ID of a pack, the digest of a descriptor or meta object, and of the manifest for a hot object.
	Digest pagestore.Digest
	// Root is that of a hot object.
	Root pagestore.Digest
}

// NameKey is where the name of a snapshot lies.
func NameKey(n pagestore.Name) Key {
	return Key{Namespace: n.Namespace, Kind: KindName, Name: n.Snapshot}
}

// DescriptorKey is where the descriptor with that digest lies.
func DescriptorKey(namespace string, d pagestore.Digest) Key {
	return Key{Namespace: namespace, Kind: KindDescriptor, Digest: d}
}

// MetaKey is where the meta object with that digest lies.
func MetaKey(namespace string, d pagestore.Digest) Key {
	return Key{Namespace: namespace, Kind: KindMeta, Digest: d}
}

// PackKey is where a pack lies.
func PackKey(namespace string, id pagestore.PackID) Key {
	return Key{Namespace: namespace, Kind: KindPack, Digest: id}
}

// HotKey is where the hot object of a manifest lies.
func HotKey(namespace string, manifest, root pagestore.Digest) Key {
	return Key{Namespace: namespace, Kind: KindHot, Digest: manifest, Root: root}
}

func leaseKey(namespace, name string) Key {
	return Key{Namespace: namespace, Kind: KindLease, Name: name}
}

// String returns the key as places know it.
func (k Key) String() string {
	name := k.Name
	switch k.Kind {
	case KindName, KindLease:
	case KindHot:
		name = k.Digest.String() + "-" + k.Root.String()
	default:
		name = k.Digest.String()
	}
	return prefix(k.Namespace, k.Kind) + name
}

// prefix is what the keys of a kind begin with.
func prefix(namespace string, k Kind) string {
	return keyRoot + "/" + namespace + "/" + k.String() + "/"
}

// ParseKey takes a key apart. The error wraps [blob.ErrKey] for one that the key space does not have.
func ParseKey(s string) (Key, error) {
	k, err := parseKey(s)
	if err == nil && k.String() != s { // a digest in capitals
		err = fmt.Errorf("it should be %s", k)
	}
	if err != nil {
		return Key{}, fmt.Errorf("%w: %.200q: %w", blob.ErrKey, s, err)
	}
	return k, nil
}

func parseKey(s string) (k Key, err error) {
	parts := strings.Split(s, "/")
	if len(parts) != 4 || parts[0] != keyRoot {
		return k, fmt.Errorf("want %s/NAMESPACE/KIND/NAME", keyRoot)
	}
	k = Key{Namespace: parts[1]}
	for kind, folder := range folders {
		if folder != "" && folder == parts[2] {
			k.Kind = Kind(kind)
		}
	}
	if err := (pagestore.Name{Namespace: k.Namespace, Snapshot: "any"}).Validate(); err != nil {
		return k, err
	}
	switch name := parts[3]; k.Kind {
	case 0:
		return k, fmt.Errorf("no kind is called %.50q", parts[2])
	case KindName, KindLease:
		k.Name = name
		return k, pagestore.Name{Namespace: k.Namespace, Snapshot: name}.Validate()
	case KindHot:
		manifest, root, _ := strings.Cut(name, "-")
		if err := k.Digest.UnmarshalText([]byte(manifest)); err != nil {
			return k, err
		}
		return k, k.Root.UnmarshalText([]byte(root))
	default:
		return k, k.Digest.UnmarshalText([]byte(name))
	}
}
