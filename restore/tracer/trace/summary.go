package trace

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A Count is how many pages were touched. Read and Write add up to Pages, and so do User and Kernel; Later is a part of Read.
type Count struct {
	Pages  uint64 `json:"pages"`         // each page of each space once
	Read   uint64 `json:"read_first"`    // pages whose first touch was a read
	Write  uint64 `json:"written_first"` // pages whose first touch was a write
	Later  uint64 `json:"written_later"` // pages that were read first and written later
	User   uint64 `json:"by_user"`       // pages that the program touched first
	Kernel uint64 `json:"by_kernel"`     // pages that the kernel touched first
}

func (c *Count) add(t *Touch, first bool) {
	if !first {
		c.Later++
		return
	}
	c.Pages++
	if t.Write {
		c.Write++
	} else {
		c.Read++
	}
	if t.Kernel {
		c.Kernel++
	} else {
		c.User++
	}
}

// A Bucket counts the touches until a time, from where the bucket before ends.
type Bucket struct {
	Until time.Duration `json:"until_ns"`
	Count
}

// A RegionCount counts the touches of all regions of a name.
type RegionCount struct {
	Name string `json:"name"` // "[anonymous]" for nameless memory, "[unknown]" outside of all regions
	Count
}

// A SpaceCount counts the touches of a space.
type SpaceCount struct {
	Space Space
	Count Count
}

// A Summary is what can be said of a trace in a page.
type Summary struct {
	Total   Count
	Times   []Bucket      // the first ends after 1 ms, each further one lasts until twice the time
	Regions []RegionCount // most pages first
	Spaces  []SpaceCount  // in the order of the trace
}

// Names of regions that have none.
const (
	nameAnonymous = "[anonymous]"
	nameUnknown   = "[unknown]"
)

// Summarize counts.
func Summarize(t *Trace) *Summary {
	type page struct {
		space uint32
		addr  uint64
	}
	s := &Summary{}
	spaces := make(map[uint32]int, len(t.Spaces))
	for i, space := range t.Spaces {
		spaces[space.ID] = i
		s.Spaces = append(s.Spaces, SpaceCount{Space: space})
	}
	regions := make(map[uint32][]Region)
	for _, r := range t.Regions {
		regions[r.Space] = append(regions[r.Space], r)
	}
	byName := make(map[string]*Count)
	seen := make(map[page]struct{}, len(t.Touches))
	for i := range t.Touches {
		touch := &t.Touches[i]
		_, again := seen[page{touch.Space, touch.Addr}]
		seen[page{touch.Space, touch.Addr}] = struct{}{}
		name := nameOf(find(regions[touch.Space], touch.Addr))
		if byName[name] == nil {
			byName[name] = &Count{}
		}
		for _, c := range []*Count{&s.Total, s.bucket(touch.Time), byName[name], &s.Spaces[spaces[touch.Space]].Count} {
			c.add(touch, !again)
		}
	}
	for name, c := range byName {
		s.Regions = append(s.Regions, RegionCount{name, *c})
	}
	slices.SortFunc(s.Regions, func(a, b RegionCount) int {
		return cmp.Or(cmp.Compare(b.Pages, a.Pages), cmp.Compare(a.Name, b.Name))
	})
	return s
}

// bucket returns the one for the time, which is not before that of the call before.
func (s *Summary) bucket(at time.Duration) *Count {
	for len(s.Times) == 0 || s.Times[len(s.Times)-1].Until < at {
		until := time.Millisecond
		if n := len(s.Times); n > 0 {
			until = s.Times[n-1].Until
			until += min(until, math.MaxInt64-until)
		}
		s.Times = append(s.Times, Bucket{Until: until})
	}
	return &s.Times[len(s.Times)-1].Count
}

func nameOf(r *Region) string {
	switch {
	case r == nil:
		return nameUnknown
	case r.Name == "":
		return nameAnonymous
	}
	return r.Name
}
