package fleet

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestChunksAreSpreadEvenlyOverTheirHomes(t *testing.T) {
	const nodes, chunks = 50, 20_000
	m := membersOf(nodes)
	count := make(map[*node]int)
	for i := range chunks {
		count[m.of(chunk{i / 20, i % 20}, 1)[0]]++
	}
	// A count is nearly normal with a deviation of 20 around 400; five of them either way are seen once in a million.
	for _, n := range m.all {
		if count[n] < 300 || count[n] > 500 {
			t.Errorf("node %d is the home of %d chunks, want about %d", n.id, count[n], chunks/nodes)
		}
	}
}

func TestDeathMovesOnlyWhatTheDeadNodeHad(t *testing.T) {
	m := membersOf(50)
	before := make(map[chunk]*node)
	for i := range 5000 {
		c := chunk{i, 0}
		before[c] = m.of(c, 1)[0]
	}
	dead := m.all[7]
	dead.gone = true
	for i := range 5000 {
		c := chunk{i, 0}
		if now := m.of(c, 1)[0]; before[c] != dead && now != before[c] || now == dead {
			t.Fatalf("the home of chunk %v was node %d and is node %d", c, before[c].id, now.id)
		}
	}
}

// Nodes come and go at random; what is remembered of a ranking has to be what ranking all nodes anew gives.
func TestHomesAreTheFirstOfTheRankingWhoeverComesAndGoes(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	m := membersOf(5)
	for step := range 3000 {
		switch r.IntN(4) {
		case 0:
			m.all = append(m.all, &node{id: len(m.all)})
		case 1:
			m.all[r.IntN(len(m.all))].gone = true
		}
		c, n := chunk{r.IntN(10), 0}, 1+r.IntN(3)
		want := m.rank(c, m.all, n)
		if got := m.of(c, n); !slices.Equal(got, want) {
			t.Fatalf("step %d: %d homes of chunk %v, want %d others", step, len(got), c, len(want))
		}
	}
}

func membersOf(n int) *members {
	m := &members{homes: make(map[chunk]*homes)}
	for i := range n {
		m.all = append(m.all, &node{id: i})
	}
	return m
}
