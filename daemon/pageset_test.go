package daemon

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPageSetAgreesWithAMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var s pageSet
		known := make(map[uint64]bool)
		for range rnd.IntN(12) {
			first, n := rnd.Uint64N(300), rnd.Uint64N(150)
			s = s.addRun(first, n)
			for p := first; p < first+n; p++ {
				known[p] = true
			}
		}
		for range 50 {
			first, n := rnd.Uint64N(500), rnd.Uint64N(300)
			var want uint64
			for p := first; p < first+n; p++ {
				if known[p] != s.has(p) {
					t.Fatalf("page %d is in the set: %v, want %v", p, s.has(p), known[p])
				}
				if known[p] {
					want++
				}
			}
			if got := s.count(first, n); got != want {
				t.Fatalf("%d of the %d pages from %d on are in the set, want %d", got, n, first, want)
			}
			var runs []pageRun
			for p := first; p < first+n; p++ {
				switch last := len(runs) - 1; {
				case !known[p]:
				case last >= 0 && runs[last].first+runs[last].n == p:
					runs[last].n++
				default:
					runs = append(runs, pageRun{p, 1})
				}
			}
			if diff := cmp.Diff(runs, s.runs(first, n), cmp.AllowUnexported(pageRun{})); diff != "" {
				t.Fatalf("runs among the %d pages from %d on (-want +got):\n%s", n, first, diff)
			}
		}
	}
}
