package criu

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/restore/criu/internal/heap"
)

func TestMappingsThatAdviceHasCutAreLookedAtTogether(t *testing.T) {
	anonymous := mapping{prot: protRead | protWrite, flags: mapPrivate | mapAnonymous, status: statusRegular | statusAnonPrivate}
	at := func(start, end uint64, change func(*mapping)) mapping {
		m := anonymous
		m.start, m.end = start, end
		if change != nil {
			change(&m)
		}
		return m
	}
	huge := func(m *mapping) { m.madvise = 1 << madvHugePage }
	for _, tt := range []struct {
		name     string
		mappings []mapping
		want     int
	}{
		{"one alone", []mapping{at(0x1000, 0x2000, nil)}, 1},
		{"huge pages behind the first page", []mapping{at(0x1000, 0x2000, nil), at(0x2000, 0x9000, huge)}, 2},
		{"three", []mapping{at(0x1000, 0x2000, nil), at(0x2000, 0x9000, huge), at(0x9000, 0xa000, nil), at(0xb000, 0xc000, nil)}, 3},
		{"a hole between", []mapping{at(0x1000, 0x2000, nil), at(0x3000, 0x9000, huge)}, 1},
		{"no access behind it", []mapping{at(0x1000, 0x2000, nil), at(0x2000, 0x9000, func(m *mapping) { m.prot = 0 })}, 1},
		{"a file behind it", []mapping{at(0x1000, 0x2000, nil), at(0x2000, 0x9000, func(m *mapping) { m.status = statusRegular | statusFilePrivate })}, 1},
		{"the brk heap behind it", []mapping{at(0x1000, 0x2000, nil), at(0x2000, 0x9000, func(m *mapping) { m.status |= statusHeap })}, 1},
		{"the brk heap first", []mapping{at(0x1000, 0x2000, func(m *mapping) { m.status |= statusHeap }), at(0x2000, 0x9000, nil)}, 1},
		{"advice that is not harmless", []mapping{at(0x1000, 0x2000, nil), at(0x2000, 0x9000, func(m *mapping) { m.madvise = 1 << madvWipeOnFork })}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := joined(tt.mappings); got != tt.want {
				t.Errorf("%d mappings, want %d", got, tt.want)
			}
		})
	}
}

func TestRangesAreCutAtTheBordersOfMappings(t *testing.T) {
	mappings := []mapping{{start: 0x1000, end: 0x2000}, {start: 0x2000, end: 0x9000}, {start: 0x9000, end: 0xc000}}
	got := split([]heap.Range{{Start: 0x2000, End: 0x5000}, {Start: 0x6000, End: 0xb000}}, mappings)
	want := []PageRange{{0x2000, 3}, {0x6000, 3}, {0x9000, 2}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
