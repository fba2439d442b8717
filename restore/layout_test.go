package restore

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestALayoutLeavesOutWhatSomebodyElseBrings(t *testing.T) {
	const pg = PageSize
	whole := Layout{
		Regions: []Region{{Start: 10 * pg, End: 50 * pg, Splittable: true}, {Start: 60 * pg, End: 70 * pg}},
		Extents: []Extent{{10 * pg, 20, 100}, {35 * pg, 10, 130}, {60 * pg, 10, 200}},
	}
	for _, tt := range []struct {
		name string
		out  []Extent
		want Layout
	}{
		{"nothing", nil, whole},
		{"a whole region", []Extent{{60 * pg, 10, 200}}, Layout{
			Regions: whole.Regions[:1], Extents: whole.Extents[:2],
		}},
		{"a whole extent", []Extent{{35 * pg, 10, 130}}, Layout{
			Regions: []Region{{Start: 10 * pg, End: 35 * pg, Splittable: true}, {Start: 45 * pg, End: 50 * pg, Splittable: true}, {Start: 60 * pg, End: 70 * pg}},
			Extents: []Extent{{10 * pg, 20, 100}, {60 * pg, 10, 200}},
		}},
		{"the ends of an extent", []Extent{{10 * pg, 5, 100}, {28 * pg, 2, 118}}, Layout{
			Regions: []Region{{Start: 15 * pg, End: 28 * pg, Splittable: true}, {Start: 30 * pg, End: 50 * pg, Splittable: true}, {Start: 60 * pg, End: 70 * pg}},
			Extents: []Extent{{15 * pg, 13, 105}, {35 * pg, 10, 130}, {60 * pg, 10, 200}},
		}},
		{"the middle of one, and all of the next", []Extent{{12 * pg, 3, 102}, {20 * pg, 1, 110}, {35 * pg, 10, 130}}, Layout{
			Regions: []Region{
				{Start: 10 * pg, End: 12 * pg, Splittable: true}, {Start: 15 * pg, End: 20 * pg, Splittable: true},
				{Start: 21 * pg, End: 35 * pg, Splittable: true}, {Start: 45 * pg, End: 50 * pg, Splittable: true}, {Start: 60 * pg, End: 70 * pg},
			},
			Extents: []Extent{{10 * pg, 2, 100}, {15 * pg, 5, 105}, {21 * pg, 9, 111}, {60 * pg, 10, 200}},
		}},
		{"all", whole.Extents, Layout{
			Regions: []Region{{Start: 30 * pg, End: 35 * pg, Splittable: true}, {Start: 45 * pg, End: 50 * pg, Splittable: true}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := whole.Without(tt.out)
			if err := got.Validate(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
