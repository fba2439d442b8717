package fleet

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A store beside a naive one: a list of snapshots by use.
func TestStoreEvictsTheLeastRecentlyUsedThatNobodyNeeds(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	const quota = 1000
	s := newStore(quota)
	type held struct {
		snapshot int
		parts    map[int]int64
		pins     int
	}
	var model []*held // the least recently used first
	find := func(snapshot int) int {
		return slices.IndexFunc(model, func(h *held) bool { return h.snapshot == snapshot })
	}
	use := func(snapshot int) *held {
		h := &held{snapshot: snapshot, parts: make(map[int]int64)}
		if i := find(snapshot); i >= 0 {
			h = model[i]
			model = slices.Delete(model, i, i+1)
		}
		model = append(model, h)
		return h
	}
	used := func() (sum int64) {
		for _, h := range model {
			for _, b := range h.parts {
				sum += b
			}
		}
		return sum
	}
	evictions := 0
	for range 50_000 {
		c := chunk{r.IntN(40), r.IntN(8)}
		bytes := int64(10 * (1 + c.part))
		switch r.IntN(6) {
		case 0:
			e, h := s.use(c.snapshot), use(c.snapshot)
			if h.pins < 2 {
				e.pins++
				h.pins++
			}
		case 1:
			e, h := s.use(c.snapshot), use(c.snapshot)
			if h.pins > 0 {
				e.pins--
				h.pins--
			}
		default:
			kept := s.admit(c, bytes) != nil
			h := use(c.snapshot)
			if h.parts[c.part] == 0 {
				for i := 0; i < len(model) && used()+bytes > quota; {
					if model[i] == h || model[i].pins > 0 {
						i++
						continue
					}
					model = slices.Delete(model, i, i+1)
					evictions++
				}
				if fits := used()+bytes <= quota; fits {
					h.parts[c.part] = bytes
				}
			}
			if kept != (h.parts[c.part] > 0) {
				t.Fatalf("chunk %v kept: %v, want %v", c, kept, !kept)
			}
		}
		if s.used != used() || s.used > quota {
			t.Fatalf("the store says that it holds %d bytes, it holds %d, and may hold %d", s.used, used(), quota)
		}
		if i := find(c.snapshot); s.has(c) != (i >= 0 && model[i].parts[c.part] > 0) {
			t.Fatalf("the store has chunk %v: %v", c, s.has(c))
		}
	}
	if evictions == 0 {
		t.Error("nothing was ever evicted")
	}
}
