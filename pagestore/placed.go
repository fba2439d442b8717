package pagestore

import (
	"hash/maphash"
	"math"
)

const (
	// placedBlock is how many entries of placedPages are allocated at a time.
	placedBlock = 1 << 10
	// At first there are slots for the pages that are expected, but no more than a full pack has: 1 MiB. Later there are more.
	minPlacedSlots = 1 << 6
	maxPlacedSlots = 1 << 17
)

// placedPages says where pages were placed. A map of digests would do; but nearly all pages that it is asked for are new, and of those it
// reads two lines from memory, which took half the time of placing them. Here it is one, of a table that the caches of a core hold for a
// pack full of pages. It is for one goroutine at a time.
type placedPages struct {
	seed maphash.Seed // so that nobody can make pages that all want the same slot
	// slots are a power of two, and at most half of them in use: the upper half of a hash, and the number of the entry counted from 1.
	slots  []uint64
	blocks []*[placedBlock]placedPage
	n      uint64 // entries
	// fetched is of no use, but that the compiler cannot leave out what is added to it.
	fetched uint64
}

type placedPage struct {
	digest Digest
	at     place
}

// newPlacedPages returns an empty one for some pages, or more.
func newPlacedPages(pages uint64) *placedPages {
	n := minPlacedSlots
	for n < maxPlacedSlots && uint64(n) < 2*pages {
		n *= 2
	}
	return &placedPages{seed: maphash.MakeSeed(), slots: make([]uint64, n)}
}

// expect returns the hash of a digest, for find and add, and begins to fetch its slot. A processor fetches several at the same time, but only if
// it need not know one to go on: so this is called for many pages before find is.
func (p *placedPages) expect(digest *Digest) (hash uint64) {
	hash = maphash.Bytes(p.seed, digest[:])
	p.fetched += p.slots[p.first(hash)]
	return hash
}

// find returns where the page with the digest is, if it was added.
func (p *placedPages) find(hash uint64, digest *Digest) (at place, ok bool) {
	for i := p.first(hash); p.slots[i] != 0; i = p.after(i) {
		if p.slots[i]>>32 != hash>>32 {
			continue
		}
		if e := p.entry(p.slots[i] & math.MaxUint32); e.digest == *digest {
			return e.at, true
		}
	}
	return place{}, false
}

// add adds a page, which must not have been added yet. Those beyond what a slot can number are not found: they will be stored again.
func (p *placedPages) add(hash uint64, digest *Digest, at place) {
	if p.n == math.MaxUint32 {
		return
	}
	if p.n%placedBlock == 0 {
		p.blocks = append(p.blocks, new([placedBlock]placedPage))
	}
	p.n++
	*p.entry(p.n) = placedPage{*digest, at}
	if 2*p.n > uint64(len(p.slots)) {
		p.grow()
		return
	}
	p.enter(hash, p.n)
}

// grow enters all into twice as many slots.
func (p *placedPages) grow() {
	p.slots = make([]uint64, 2*len(p.slots))
	for number := uint64(1); number <= p.n; number++ {
		p.enter(maphash.Bytes(p.seed, p.entry(number).digest[:]), number)
	}
}

func (p *placedPages) enter(hash, number uint64) {
	i := p.first(hash)
	for p.slots[i] != 0 {
		i = p.after(i)
	}
	p.slots[i] = hash>>32<<32 | number
}

func (p *placedPages) first(hash uint64) uint64 { return hash & uint64(len(p.slots)-1) }

func (p *placedPages) after(slot uint64) uint64 { return (slot + 1) & uint64(len(p.slots)-1) }

func (p *placedPages) entry(number uint64) *placedPage {
	return &p.blocks[(number-1)/placedBlock][(number-1)%placedBlock]
}
