package pagestore

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

func TestChunksInLineAreServedInOrderWhoeverAddsThem(t *testing.T) {
	const chunks = 1000
	var l line
	var got []uint64 // not protected: one at a time is what is tested
	var all sync.WaitGroup
	for _, number := range rand.Perm(chunks) {
		all.Go(func() {
			l.add(&chunk{number: uint64(number)})
			if err := l.serve(func(c *chunk) error { got = append(got, c.number); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(got) != chunks || !slices.IsSorted(got) {
		t.Errorf("%d chunks were served, in order: %v; want %d", len(got), slices.IsSorted(got), chunks)
	}
}

func TestNoChunkIsServedAfterAnError(t *testing.T) {
	var l line
	fault := errors.New("fault")
	l.add(&chunk{number: 0})
	l.add(&chunk{number: 1})
	served := 0
	step := func(*chunk) error { served++; return fault }
	if err := l.serve(step); !errors.Is(err, fault) {
		t.Errorf("error is %v, want %v", err, fault)
	}
	if err := l.serve(step); err != nil || served != 1 {
		t.Errorf("%d chunks were served, error %v", served, err)
	}
}
