package uffd

import (
	"testing"
	"testing/synctest"
)

func TestShutWaitsForUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		for range 2 {
			if !g.enter() {
				t.Fatal("an open gate refuses")
			}
		}
		const closers = 3
		firsts := make(chan bool, closers)
		for range closers {
			go func() { firsts <- g.shutAndWait() }()
		}
		synctest.Wait()
		if g.enter() {
			t.Error("a gate that is being shut admits")
		}
		g.leave()
		synctest.Wait()
		if len(firsts) != 0 {
			t.Fatal("shut does not wait for the last user")
		}
		g.leave()
		synctest.Wait()
		if len(firsts) != closers {
			t.Fatalf("%d of %d closers have returned", len(firsts), closers)
		}
		n := 0
		for range closers {
			if <-firsts {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d closers were the first", n)
		}
		if g.shutAndWait() {
			t.Error("a late closer was the first")
		}
	})
}
