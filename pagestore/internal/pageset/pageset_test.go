package pageset_test

import (
	"math/rand/v2"
	"testing"

	"thaw/pagestore/internal/pageset"
)

func TestRunsAreThoseOfASlice(t *testing.T) {
	const pages = 300
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		set, want := pageset.New(pages), make([]bool, pages)
		for range rng.IntN(4 * pages) {
			page := rng.Uint32N(pages)
			set.Add(page)
			want[page] = true
		}
		for page := range uint32(pages) {
			if set.Has(page) != want[page] {
				t.Fatalf("seed %d: Has(%d) is %v", seed, page, set.Has(page))
			}
			end := page + rng.Uint32N(pages-page+1)
			n := 0
			for page+uint32(n) < end && want[page+uint32(n)] {
				n++
			}
			if got := set.Run(page, end); got != n {
				t.Fatalf("seed %d: Run(%d, %d) is %d, want %d", seed, page, end, got, n)
			}
		}
	}
}
