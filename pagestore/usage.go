package pagestore

import (
	"math/bits"

	"thaw/pagestore/internal/manifest"
)

// bitmap is a set of the pages of one pack.
type bitmap []uint64

func newBitmap(pages uint32) bitmap { return make(bitmap, (pages+63)/64) }

func (b bitmap) add(page, n uint32) {
	for p := page; p < page+n; p++ {
		b[p/64] |= 1 << (p % 64)
	}
}

// count counts the pages in the set.
func (b bitmap) count() (n uint64) {
	for _, w := range b {
		n += uint64(bits.OnesCount64(w))
	}
	return n
}

// common counts the pages in both sets.
func (b bitmap) common(other bitmap) (n uint64) {
	for i := range min(len(b), len(other)) {
		n += uint64(bits.OnesCount64(b[i] & other[i]))
	}
	return n
}

// packUse is who uses which pages of a pack.
type packUse struct {
	pages     uint32
	used      bitmap
	snapshots []string
}

// usage is the packs that snapshots name: 8 KiB for a full pack.
type usage map[PackID]*packUse

// add notes what the manifest of a snapshot uses. Packs of which two manifests give different sizes are an error: one of
// the manifests lies.
func (u usage) add(snapshot string, m *manifest.Manifest) error {
	uses := make([]*packUse, m.Packs())
	for i := range uses {
		p := m.Pack(i)
		use := u[p.ID]
		if use == nil {
			use = &packUse{pages: p.Pages, used: newBitmap(p.Pages)}
			u[p.ID] = use
		}
		if use.pages != p.Pages {
			return corruptf("pack %s has %d pages here and %d in another manifest", p.ID, p.Pages, use.pages)
		}
		if n := len(use.snapshots); n == 0 || use.snapshots[n-1] != snapshot {
			use.snapshots = append(use.snapshots, snapshot)
		}
		uses[i] = use
	}
	for i := range m.Extents() {
		e := m.Extent(i)
		uses[e.Pack].used.add(e.Page, e.Pages)
	}
	return nil
}

// of returns the used pages of a pack, none if nobody uses it.
func (u usage) of(id PackID) bitmap {
	if use := u[id]; use != nil {
		return use.used
	}
	return nil
}
