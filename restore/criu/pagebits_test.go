package criu

import "testing"

func TestPagesAreCountedAcrossWords(t *testing.T) {
	b := newPageBits(96)
	b.set(0, 2)
	b.set(62, 4)
	b.set(95, 1)
	b.set(7, 0)
	for _, tc := range []struct {
		page  uint64
		limit int
		want  int
	}{{0, 10, 2}, {0, 1, 1}, {1, 10, 1}, {2, 10, 0}, {7, 1, 0}, {62, 10, 4}, {62, 3, 3}, {64, 64, 2}, {95, 10, 1}, {96, 10, 0}, {1 << 40, 1, 0}} {
		if got := b.run(tc.page, tc.limit); got != tc.want {
			t.Errorf("from page %d, at most %d: %d, want %d", tc.page, tc.limit, got, tc.want)
		}
	}
	b = newPageBits(300)
	b.set(3, 290)
	if got := b.run(3, 300); got != 290 || b.run(2, 1) != 0 {
		t.Errorf("%d pages, want 290 from page 3 on", got)
	}
}
