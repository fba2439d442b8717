package pagestore

import (
	"os"
	"testing"
)

// TestIdlePacksStayOpen: with KeepPacks a pack that is used again has its pages checked already, and a pack that was
// deleted is not kept.
func TestIdlePacksStayOpen(t *testing.T) {
	dir := t.TempDir() + "/store"
	made, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	name := Name{Namespace: DefaultNamespace, Snapshot: "a"}
	if _, err := made.Import(t.Context(), name, seeds(1, 20).input(), nil); err != nil {
		t.Fatal(err)
	}
	made.Close()

	for _, keep := range []int{0, 4} {
		s, err := Open(dir, &Options{KeepPacks: keep})
		if err != nil {
			t.Fatal(err)
		}
		ready := func(load bool) int {
			t.Helper()
			snap, err := s.Snapshot(name)
			if err != nil {
				t.Fatal(err)
			}
			defer snap.Close()
			im, err := snap.Image()
			if err != nil {
				t.Fatal(err)
			}
			if load {
				if _, _, err := im.Load(0, 20); err != nil {
					t.Fatal(err)
				}
			}
			_, n := im.Ready(0, 20)
			return n
		}
		first := ready(true)
		if first == 0 {
			t.Fatal("nothing is ready after it was loaded")
		}
		want := 0
		if keep > 0 {
			want = first
		}
		if got := ready(false); got != want {
			t.Errorf("KeepPacks %d: %d pages are ready at once, want %d", keep, got, want)
		}
		if got := len(s.mu.idle); got != min(keep, 1) {
			t.Errorf("KeepPacks %d: %d packs are idle", keep, got)
		}
		if keep > 0 {
			for _, p := range s.mu.idle {
				if err := os.Rename(s.namespace(name.Namespace).pack(p.key.id), dir+"/gone"); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(dir + "/gone"); err != nil {
					t.Fatal(err)
				}
			}
			s.closeIdle(keep)
			if len(s.mu.idle) != 0 || len(s.mu.packs) != 0 {
				t.Error("a deleted pack is kept open")
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
