package placement

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Key stands for an object where others see it who may not know that it exists: it says nothing of it to who cannot guess its namespace and key. Keys of
// objects that are named by their content cannot be guessed.
type Key [16]byte

// KeyOf returns the key of an object. It is the same on all nodes; do not change it.
func KeyOf(namespace, object string) Key {
	h := sha256.New()
	h.Write([]byte("thaw placement 1\x00"))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(namespace))))
	h.Write([]byte(namespace))
	h.Write([]byte(object))
	return Key(h.Sum(nil)[:16])
}

// Rank returns the n members that own the object first of all, the first one first: those for which a hash of the key and the member's name is highest. All members
// weigh the same. It is the same on all nodes that see the same members, in whatever order; do not change it.
func Rank(key Key, members []Member, n int) []Member { return rank(key[:], members, n) }

func rank(salt []byte, members []Member, n int) []Member {
	type scored struct {
		Member
		score uint64
	}
	better := func(a, b scored) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.Name, b.Name)) }
	var best []scored // at most n, the best first
	buf := make([]byte, 0, len(salt)+maxName)
	for _, m := range members {
		buf = append(append(buf[:0], salt...), m.Name...)
		s := scored{m, xxhash.Sum64(buf)}
		at, _ := slices.BinarySearchFunc(best, s, better)
		if at >= n {
			continue
		}
		best = slices.Insert(best, at, s)
		best = best[:min(len(best), n)]
	}
	ranked := make([]Member, len(best))
	for i, s := range best {
		ranked[i] = s.Member
	}
	return ranked
}
