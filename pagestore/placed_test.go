package pagestore

import (
	"encoding/binary"
	"testing"
)

func TestPlacedPagesAreFoundAfterTheTableHasGrown(t *testing.T) {
	const pages = 5 * placedBlock // in a table that is made for one
	digest := func(i int) (d Digest) {
		binary.NativeEndian.PutUint64(d[8:], uint64(i))
		return d
	}
	p := newPlacedPages(1)
	for i := range pages {
		d := digest(i)
		hash := p.expect(&d)
		if at, ok := p.find(hash, &d); ok {
			t.Fatalf("page %d is found at %v before it is added", i, at)
		}
		p.add(hash, &d, place{pack: uint32(i % 7), page: uint32(i)})
	}
	for i := range pages {
		d := digest(i)
		if at, ok := p.find(p.expect(&d), &d); !ok || at != (place{pack: uint32(i % 7), page: uint32(i)}) {
			t.Errorf("page %d is at %v, %v", i, at, ok)
		}
	}
}

func TestPlacedPagesWithEqualHashesAreToldApart(t *testing.T) {
	p := newPlacedPages(1)
	one, other := Digest{1}, Digest{2}
	p.add(7, &one, place{page: 1})
	if at, ok := p.find(7, &other); ok {
		t.Errorf("a page is found that was never added, at %v", at)
	}
	p.add(7, &other, place{page: 2})
	for want, digest := range map[uint32]*Digest{1: &one, 2: &other} {
		if at, ok := p.find(7, digest); !ok || at.page != want {
			t.Errorf("page %d is at %v, %v", want, at, ok)
		}
	}
}
