package workingset

// A Count is how many pages there are, by when they are mostly touched first. The phases add up to Pages; Write is a part of it.
type Count struct {
	Pages   uint64 `json:"pages"`
	Start   uint64 `json:"start"`   // before the first request was made
	Request uint64 `json:"request"` // until the first answer
	Later   uint64 `json:"later"`
	Write   uint64 `json:"written"`
}

func (c *Count) add(e *Entry) {
	c.Pages++
	switch e.Phase() {
	case PhaseStart:
		c.Start++
	case PhaseRequest:
		c.Request++
	case PhaseLater:
		c.Later++
	}
	if e.Write {
		c.Write++
	}
}

// Counts are pages by class.
type Counts struct {
	Must   Count `json:"must"`
	Likely Count `json:"likely"`
	Tail   Count `json:"tail"`
}

// Of returns the pages of a class.
func (c *Counts) Of(class Class) *Count {
	switch class {
	case ClassMust:
		return &c.Must
	case ClassLikely:
		return &c.Likely
	}
	return &c.Tail
}

// Pages returns how many there are of all classes.
func (c *Counts) Pages() uint64 { return c.Must.Pages + c.Likely.Pages + c.Tail.Pages }

// An ObjectCount counts the pages of an object.
type ObjectCount struct {
	Path string `json:"path"` // empty for the image
	Counts
}

// A Summary is what can be said of a set in a page.
type Summary struct {
	Image   Counts        // pages of the image
	Buckets []Counts      // of the image and all files, by Bucket, up to the last one that has pages
	Objects []ObjectCount // in the order of the set: the image first
	// Places has the pages of the image by where they are in it: each of the parts is as long as the others, but for
	// the last one. PlacePages is how long. There are as few as there can be, and not more than were asked for.
	Places     []Counts
	PlacePages uint64
}

// Summarize counts the pages of a set by the classes of a policy; nil stands for the default one. The image is cut into at most
// places parts.
func Summarize(s *Set, policy *Policy, places int) *Summary {
	p := policy.setDefaults()
	sum := &Summary{PlacePages: 1}
	if places > 0 {
		sum.PlacePages = max((s.ImagePages+uint64(places)-1)/uint64(places), 1)
		sum.Places = make([]Counts, (s.ImagePages+sum.PlacePages-1)/sum.PlacePages)
	}
	for i := range s.Objects {
		o := &s.Objects[i]
		count := ObjectCount{Path: o.Path}
		for j, class := range p.classes(o.Entries, s.Learned()) {
			e := &o.Entries[j]
			for int(e.Bucket) >= len(sum.Buckets) {
				sum.Buckets = append(sum.Buckets, Counts{})
			}
			sum.Buckets[e.Bucket].Of(class).add(e)
			count.Of(class).add(e)
			if at := e.Page / sum.PlacePages; i == 0 && at < uint64(len(sum.Places)) {
				sum.Places[at].Of(class).add(e)
			}
		}
		sum.Objects = append(sum.Objects, count)
	}
	sum.Image = sum.Objects[0].Counts
	return sum
}
