package workingset

import (
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// history returns an entry that was touched in the last seen of known recordings, all in one phase.
func history(page uint64, phase Phase, seen, known uint8) Entry {
	e := Entry{Page: page, Known: known, Bucket: 1}
	*e.masks()[phase].bits = uint32(1<<seen - 1)
	return e
}

func TestClasses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entry   Entry
		learned int
		want    Class
	}{
		{"half of the recordings touched it before the answer", history(0, PhaseRequest, 4, 8), 8, ClassMust},
		{"less than half did", history(0, PhaseRequest, 3, 8), 8, ClassLikely},
		{"less than an eighth did", history(0, PhaseRequest, 1, 9), 9, ClassTail},
		{"most touched it later", history(0, PhaseLater, 8, 8), 8, ClassLikely},
		{"less than half touched it later", history(0, PhaseLater, 3, 8), 8, ClassTail},
		{"one of two touched it", history(0, PhaseStart, 1, 2), 2, ClassMust},
		{"the first recording touched it later", history(0, PhaseLater, 1, 1), 1, ClassLikely},
		{"one of three touched it", history(0, PhaseStart, 1, 3), 3, ClassLikely},
		{"all touched it, but the last eight", Entry{Start: 0xffffff00, Known: 32}, 32, ClassTail},
		{"all touched it, but the last seven", Entry{Start: 0xffffff80, Known: 32}, 32, ClassMust},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Without a bound: the share alone decides.
			p := (&Policy{Unused: 1}).setDefaults()
			if got := p.classes([]Entry{tt.entry}, tt.learned)[0]; got != tt.want {
				t.Errorf("it is %v, want %v", got, tt.want)
			}
		})
	}
}

func TestOfLikelyPagesThoseWithTheGreatestShareAreTaken(t *testing.T) {
	var entries []Entry
	for page := range uint64(8) {
		entries = append(entries, history(page, PhaseStart, 10, 10)) // 8 pages are used
	}
	entries = append(entries, history(10, PhaseStart, 2, 10), history(11, PhaseStart, 4, 10), history(12, PhaseStart, 3, 10), history(13, PhaseStart, 4, 10))
	// Expected in vain are 1.4, 2.0, 2.7 and 3.5 of 9 to 12 pages.
	want := []Class{ClassTail, ClassLikely, ClassLikely, ClassLikely}
	p := (&Policy{Unused: 0.26}).setDefaults()
	if got := p.classes(entries, 10)[8:]; !slices.Equal(got, want) {
		t.Errorf("they are %v, want %v", got, want)
	}
}

func TestPlanHasItsPagesInBothOrders(t *testing.T) {
	s := NewSet([32]byte{9}, 100)
	s.Recordings = 4
	add := func(page uint64, seen uint8, bucket Bucket, write bool) {
		e := history(page, PhaseStart, seen, 4)
		e.Bucket, e.Write = bucket, write
		s.Objects[0].Entries = append(s.Objects[0].Entries, e)
	}
	add(3, 4, 2, false)
	add(4, 4, 1, false)
	add(5, 4, 1, false)
	add(6, 4, 1, true)
	add(7, 4, 1, true)
	add(8, 1, 0, false)
	add(20, 4, 1, true)
	s.Objects = append(s.Objects, Object{"/lib", []Entry{history(1, PhaseStart, 4, 4), history(2, PhaseLater, 4, 4), history(9, PhaseRequest, 4, 4)}})
	got := Cut(s, &Policy{Unused: 1})
	want := &Plan{
		Digest: [32]byte{9}, ImagePages: 100,
		Must: Part{
			Replay:    []Run{{3, 3, false}, {6, 2, true}, {20, 1, true}},
			Ascending: []Run{{3, 3, false}, {6, 2, true}, {20, 1, true}},
		},
		Likely: Part{Replay: []Run{{8, 1, false}}, Ascending: []Run{{8, 1, false}}},
		Files:  []FilePart{{"/lib", []Run{{1, 2, false}, {9, 1, false}}}},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if order := got.Order(); !slices.Equal(order, []uint64{3, 4, 5, 6, 7, 20, 8}) || got.Pages() != 7 {
		t.Errorf("the order is %d, of %d pages", order, got.Pages())
	}
}

func TestPlansOfRandomSetsAgreeWithTheirClasses(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, i))
		const pages = 200
		s := NewSet([32]byte{}, pages)
		for range 1 + r.IntN(40) {
			mustAdd(t, s, randomRecording(r, pages))
		}
		plan, sum := Cut(s, nil), Summarize(s, nil, 7)
		p := defaults
		classes := p.classes(s.Image(), s.Learned())
		want := map[Class][]uint64{}
		for j, c := range classes {
			want[c] = append(want[c], s.Image()[j].Page)
		}
		// The gaps are in the plan once: among the musts if both neighbors are.
		inGap := make(map[uint64]bool)
		for _, gap := range p.near(s.Image(), classes) {
			for page := gap.Page; page < gap.end(); page++ {
				inGap[page] = true
			}
		}
		for _, page := range pagesOf(plan.Near) {
			if !inGap[page] {
				t.Fatalf("round %d: page %d is in no gap that is filled, or twice in the plan", i, page)
			}
			delete(inGap, page)
		}
		for class, part := range []Part{ClassMust: plan.Must, ClassLikely: plan.Likely} {
			class := Class(class)
			ascending := pagesOf(part.Ascending)
			replay := pagesOf(part.Replay)
			ofClass := slices.DeleteFunc(slices.Clone(ascending), func(page uint64) bool {
				filled := class == ClassMust && inGap[page]
				if filled {
					delete(inGap, page)
				}
				return filled
			})
			if !slices.Equal(ofClass, want[class]) || uint64(len(ofClass)) != sum.Image.Of(class).Pages {
				t.Fatalf("round %d: %v pages are %d, want %d; the summary counts %d", i, class, ofClass, want[class], sum.Image.Of(class).Pages)
			}
			if class == ClassMust && len(inGap) > 0 {
				t.Fatalf("round %d: gaps are filled by nobody: %v", i, inGap)
			}
			if slices.Sort(replay); !slices.Equal(replay, ascending) {
				t.Fatalf("round %d: the orders of %v pages have other pages", i, class)
			}
		}
		var inPlaces, inBuckets, inObjects uint64
		for j := range sum.Places {
			inPlaces += sum.Places[j].Pages()
		}
		for j := range sum.Buckets {
			inBuckets += sum.Buckets[j].Pages()
		}
		for j := range sum.Objects {
			inObjects += sum.Objects[j].Pages()
		}
		if inPlaces != uint64(len(classes)) || inBuckets != inObjects || len(sum.Places) > 7 {
			t.Fatalf("round %d: %d places have %d of %d pages; buckets %d, objects %d", i, len(sum.Places), inPlaces, len(classes), inBuckets, inObjects)
		}
	}
}

func pagesOf(runs []Run) []uint64 {
	var out []uint64
	for _, r := range runs {
		for p := r.Page; p < r.end(); p++ {
			out = append(out, p)
		}
	}
	return out
}

func TestNothingIsPlannedOfASetThatHasLearnedNothing(t *testing.T) {
	s := NewSet([32]byte{}, 0)
	if plan := Cut(s, nil); plan.Pages() != 0 || len(plan.Files) != 0 || plan.Order() != nil {
		t.Errorf("the plan is %+v", plan)
	}
	if sum := Summarize(s, nil, 10); len(sum.Places) != 0 || sum.Image.Pages() != 0 {
		t.Errorf("the summary is %+v", sum)
	}
}

func TestComparisonCountsPages(t *testing.T) {
	for _, tt := range []struct {
		name               string
		installed, touched []Run
		want               Comparison
	}{
		{"nothing at all", nil, nil, Comparison{Precision: 1, Recall: 1}},
		{"nothing was brought", nil, []Run{{Page: 4, Pages: 2}}, Comparison{Missed: 2, Precision: 1}},
		{"nothing was touched", []Run{{Page: 4, Pages: 2}}, nil, Comparison{Installed: 2, Unused: 2, Recall: 1}},
		{
			"some of both",
			[]Run{{Page: 10, Pages: 4}, {Page: 0, Pages: 4}},
			[]Run{{Page: 3, Pages: 8, Write: true}, {Page: 3, Pages: 1}},
			Comparison{Installed: 8, Used: 2, Unused: 6, Missed: 6, Precision: 0.25, Recall: 0.25},
		},
		{
			"runs that overlap count once",
			[]Run{{Page: 0, Pages: 4}, {Page: 2, Pages: 4}, {Page: 3, Pages: 0}},
			[]Run{{Page: 0, Pages: 3}, {Page: 0, Pages: 1}, {Page: 5, Pages: 1}},
			Comparison{Installed: 6, Used: 4, Unused: 2, Precision: 4.0 / 6, Recall: 1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := gocmp.Diff(tt.want, Compare(tt.installed, tt.touched)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestComparisonIsThatOfPagesOneByOne(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		random := func() ([]uint64, []Run) {
			var pages []uint64
			for range r.IntN(20) {
				pages = append(pages, r.Uint64N(30))
			}
			runs := RunsOf(pages)
			slices.Sort(pages)
			pages = slices.Compact(pages)
			if got := pagesOf(runs); !slices.Equal(got, pages) || Pages(runs) != uint64(len(pages)) {
				t.Fatalf("runs %v are of pages %d, want %d", runs, got, pages)
			}
			return pages, runs
		}
		a, runsA := random()
		b, runsB := random()
		got := Compare(runsA, runsB)
		var used uint64
		for _, p := range a {
			if slices.Contains(b, p) {
				used++
			}
		}
		if got.Used != used || got.Unused != uint64(len(a))-used || got.Missed != uint64(len(b))-used || got.Installed != uint64(len(a)) {
			t.Fatalf("%d and %d compare as %+v", a, b, got)
		}
	}
}

func TestShortGapsAreFilledAsFarAsThereIsRoom(t *testing.T) {
	learn := func(times int, more ...uint64) *Set {
		s := NewSet([32]byte{1}, 10000)
		for i := range times {
			r := &Recording{Digest: s.Digest, ImagePages: s.ImagePages}
			for p := range uint64(100) {
				if p != 50 && p != 70 && p != 71 {
					r.Image = append(r.Image, Touch{Page: p})
				}
			}
			for _, p := range []uint64{105, 106, 123, 124, 130} { // 5, 16 and 5 pages behind the one before
				r.Image = append(r.Image, Touch{Page: p})
			}
			for _, p := range more {
				if i%2 == 0 {
					r.Image = append(r.Image, Touch{Page: p})
				}
			}
			if err := s.Add(r); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	for _, tt := range []struct {
		name   string
		set    *Set
		policy *Policy
		want   []Run
	}{
		// 102 pages are brought, so there is room for 15.
		{"the shortest first", learn(3), nil, []Run{{50, 1, false}, {70, 2, false}, {100, 5, false}, {125, 5, false}}},
		{"as many as are asked for", learn(3), &Policy{Near: 0.03}, []Run{{50, 1, false}, {70, 2, false}}},
		{"none", learn(3), &Policy{Near: -1}, nil},
		{"one that is too long never", learn(3), &Policy{Near: 0.2, Unused: 0.9}, []Run{{50, 1, false}, {70, 2, false}, {100, 5, false}, {125, 5, false}}},
		{"none where much is in vain already", learn(4, 1001, 1003, 1005, 1007, 1009, 1011, 1013, 1015, 1017, 1019, 1021, 1023, 1025, 1027, 1029, 1031, 1033, 1035,
			1037, 1039, 1041, 1043, 1045, 1047, 1049, 1051, 1053, 1055, 1057, 1059, 1061, 1063, 1065, 1067, 1069, 1071, 1073, 1075, 1077, 1079, 1081, 1083, 1085,
			1087, 1089, 1091, 1093, 1095, 1097, 1099, 1101, 1103, 1105, 1107, 1109, 1111, 1113, 1115, 1117, 1119, 1121, 1123, 1125, 1127, 1129, 1131, 1133), nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan, p := Cut(tt.set, tt.policy), tt.policy.setDefaults()
			classes := p.classes(tt.set.Image(), tt.set.Learned())
			if diff := gocmp.Diff(tt.want, p.near(tt.set.Image(), classes)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			if n := uint64(len(plan.Order())); n != plan.Pages() {
				t.Errorf("%d pages in order, %d in all", n, plan.Pages())
			}
		})
	}
}

func TestGapsBetweenMustsComeWithThem(t *testing.T) {
	s := NewSet([32]byte{1}, 10000)
	s.Recordings = 8
	add := func(seen uint8, pages ...uint64) {
		for _, page := range pages {
			s.Objects[0].Entries = append(s.Objects[0].Entries, history(page, PhaseStart, seen, 8))
		}
	}
	add(8, 10, 11, 13)
	add(1, 15)
	add(8, 17)
	got := Cut(s, &Policy{Near: 1, Unused: 0.9})
	want := &Plan{
		Digest: s.Digest, ImagePages: s.ImagePages,
		Must:   Part{Replay: []Run{{10, 4, false}, {17, 1, false}}, Ascending: []Run{{10, 4, false}, {17, 1, false}}},
		Likely: Part{Replay: []Run{{15, 1, false}}, Ascending: []Run{{15, 1, false}}},
		Near:   []Run{{14, 1, false}, {16, 1, false}},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestALargeBucketIsBroughtBehindThoseBeforeIt(t *testing.T) {
	s := NewSet([32]byte{1}, 1<<20)
	s.Recordings = 4
	for page := range uint64(3 * stretchPages) {
		e := history(page, PhaseStart, 4, 4)
		e.Bucket = Bucket(3 - page/stretchPages) // the last pages are wanted first
		s.Objects[0].Entries = append(s.Objects[0].Entries, e)
	}
	got := Cut(s, nil).Must.Replay
	want := []Run{{2 * stretchPages, stretchPages, false}, {stretchPages, stretchPages, false}, {0, stretchPages, false}}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
