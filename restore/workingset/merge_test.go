package workingset

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// A naiveSet remembers all that was seen of each page, the last one first.
type naiveSet struct {
	pages, recordings, partial int
	seen                       map[string]map[uint64][]naiveTouch // by path and page
}

type naiveTouch struct {
	touched bool
	phase   Phase
	bucket  Bucket
	write   bool
}

const naiveFilePages = 6

func newNaive(pages int) *naiveSet {
	return &naiveSet{pages: pages, seen: map[string]map[uint64][]naiveTouch{"": {}, "/a": {}, "/b": {}}}
}

func (n *naiveSet) add(r *Recording) {
	if r.Partial {
		n.partial++
	} else {
		n.recordings++
	}
	hidden := make(map[uint64]bool)
	for _, h := range r.Hidden {
		for p := h.Page; p < h.Page+h.Pages; p++ {
			hidden[p] = true
		}
	}
	n.addObject("", n.pages, r.Image, func(p uint64) bool { return !r.Partial && !hidden[p] })
	for _, path := range []string{"/a", "/b"} {
		var touches []Touch
		for _, f := range r.Files {
			if f.Path == path {
				touches = append(touches, f.Touches...)
			}
		}
		n.addObject(path, naiveFilePages, touches, func(uint64) bool { return !r.Partial })
	}
}

func (n *naiveSet) addObject(path string, pages int, touches []Touch, observable func(uint64) bool) {
	for p := range uint64(pages) {
		var first *Touch
		write := false
		for i, t := range touches {
			if t.Page != p {
				continue
			}
			write = write || t.Write
			if first == nil || t.Time < first.Time || t.Time == first.Time && t.Phase < first.Phase {
				first = &touches[i]
			}
		}
		history := n.seen[path]
		switch {
		case first != nil:
			history[p] = slices.Insert(history[p], 0, naiveTouch{true, first.Phase, BucketOf(first.Time), write})
		case observable(p):
			history[p] = slices.Insert(history[p], 0, naiveTouch{})
		}
	}
}

// set returns what a Set has to be. Buckets and writes are those of all recordings since the page entered the set, which
// is the last time that it was not in the set before.
func (n *naiveSet) set() *Set {
	s := NewSet([32]byte{}, uint64(n.pages))
	s.Recordings, s.Partial = uint32(n.recordings), uint32(n.partial)
	for _, path := range slices.Sorted(maps.Keys(n.seen)) {
		o := Object{Path: path}
		pages := n.pages
		if path != "" {
			pages = naiveFilePages
		}
		for p := range uint64(pages) {
			history := n.seen[path][p]
			known := min(len(history), Depth)
			e := Entry{Page: p, Known: uint8(known), Bucket: LastBucket}
			missed := 0
			for i, t := range history {
				if missed++; !t.touched {
					if missed >= Depth {
						break // before, it was not in the set
					}
					continue
				}
				missed = 0
				e.Bucket, e.Write = min(e.Bucket, t.bucket), e.Write || t.write
				if i < known {
					*[]*uint32{&e.Start, &e.Request, &e.Later}[t.phase] |= 1 << i
				}
			}
			switch {
			case e.Seen() != 0:
				o.Entries = append(o.Entries, e)
			case path == "" && known < min(n.recordings, Depth):
				s.Hidden = appendHidden(s.Hidden, Hidden{p, 1, uint8(known)})
			}
		}
		if path == "" {
			s.Objects[0] = o
		} else if len(o.Entries) > 0 {
			s.Objects = append(s.Objects, o)
		}
	}
	return s
}

// randomRecording has few pages, so that all that can happen to one does.
func randomRecording(r *rand.Rand, pages int) *Recording {
	out := &Recording{ImagePages: uint64(pages), Partial: r.IntN(6) == 0}
	touches := func(pages int) (out []Touch) {
		for range r.IntN(pages + 2) {
			// Low pages are touched more often.
			page := min(r.IntN(pages), r.IntN(pages), r.IntN(pages))
			out = append(out, Touch{
				Page: uint64(page), Time: time.Duration(r.Int64N(1e9) - 1e7), Phase: Phase(r.IntN(3)), Write: r.IntN(4) == 0,
			})
		}
		return out
	}
	out.Image = touches(pages)
	for range r.IntN(3) {
		out.Files = append(out.Files, FileTouches{[]string{"/a", "/b"}[r.IntN(2)], touches(naiveFilePages)})
	}
	for range r.IntN(4) {
		page := r.IntN(pages)
		out.Hidden = append(out.Hidden, Run{Page: uint64(page), Pages: uint64(r.IntN(pages - page + 1))})
	}
	return out
}

func mustMerge(t testing.TB, newer, older *Set) *Set {
	t.Helper()
	s, err := Merge(newer, older)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSetsAreWhatANaiveModelMakesOfAllRecordings(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, i))
		const pages = 24
		model, whole := newNaive(pages), NewSet([32]byte{}, pages)
		parts := []*Set{NewSet([32]byte{}, pages)}
		for n := range 20 + r.IntN(100) {
			rec := randomRecording(r, pages)
			if n > 60 {
				rec.Image = slices.DeleteFunc(rec.Image, func(t Touch) bool { return t.Page%5 == 0 }) // they leave
			}
			model.add(rec)
			mustAdd(t, whole, rec)
			if r.IntN(10) == 0 {
				parts = append(parts, NewSet([32]byte{}, pages))
			}
			mustAdd(t, parts[len(parts)-1], rec)
			if err := whole.check(); err != nil {
				t.Fatalf("after recording %d of round %d: %v", n, i, err)
			}
		}
		if diff := gocmp.Diff(model.set(), whole, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("round %d: (-model +set):\n%s", i, diff)
		}
		// Parts that follow each other can be merged in any grouping. Buckets and writes may be from before a page left.
		for len(parts) > 1 {
			at := r.IntN(len(parts) - 1)
			parts = slices.Replace(parts, at, at+2, mustMerge(t, parts[at+1], parts[at]))
		}
		same := gocmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Entry{}, "Bucket", "Write")}
		if diff := gocmp.Diff(whole, parts[0], same); diff != "" {
			t.Fatalf("round %d: merged: (-added +merged):\n%s", i, diff)
		}
	}
}

func TestRecordingsThatDoNotFitAreRefused(t *testing.T) {
	s := NewSet([32]byte{1}, 10)
	mustAdd(t, s, &Recording{Digest: [32]byte{1}, ImagePages: 10, Image: []Touch{{Page: 1}}})
	before := *s
	good := Recording{Digest: [32]byte{1}, ImagePages: 10}
	for name, tt := range map[string]struct {
		change  func(*Recording)
		foreign bool
	}{
		"of another snapshot":            {func(r *Recording) { r.Digest[31] = 1 }, true},
		"of another image":               {func(r *Recording) { r.ImagePages = 11 }, true},
		"of an image that is none":       {func(r *Recording) { r.ImagePages = MaxImagePages + 1 }, false},
		"of a page behind the image":     {func(r *Recording) { r.Image = []Touch{{Page: 10}} }, false},
		"in no phase":                    {func(r *Recording) { r.Image = []Touch{{Phase: 3}} }, false},
		"of hidden pages behind the end": {func(r *Recording) { r.Hidden = []Run{{Page: 5, Pages: 6}} }, false},
		"of hidden pages without an end": {func(r *Recording) { r.Hidden = []Run{{Page: 5, Pages: math.MaxUint64}} }, false},
		"of a file without a name":       {func(r *Recording) { r.Files = []FileTouches{{"", []Touch{{}}}} }, false},
		"of a file with too long a name": {func(r *Recording) { r.Files = []FileTouches{{string(make([]byte, 5000)), []Touch{{}}}} }, false},
		"of a page that no file has":     {func(r *Recording) { r.Files = []FileTouches{{"/a", []Touch{{Page: 1 << 51}}}} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			tt.change(&r)
			if err := s.Add(&r); err == nil || errors.Is(err, ErrForeign) != tt.foreign {
				t.Errorf("Add returns %v", err)
			}
			if diff := gocmp.Diff(&before, s); diff != "" {
				t.Errorf("the set has changed: %s", diff)
			}
		})
	}
}

func TestCountOfRecordingsStopsWhereItsNumberDoes(t *testing.T) {
	a, b := NewSet([32]byte{}, 1), NewSet([32]byte{}, 1)
	a.Recordings, b.Recordings = math.MaxUint32-1, 5
	if got := mustMerge(t, a, b).Recordings; got != math.MaxUint32 {
		t.Errorf("%d recordings", got)
	}
}

func TestPhaseIsTheMostFrequentOne(t *testing.T) {
	for _, tt := range []struct {
		start, request, later uint32
		want                  Phase
	}{
		{1, 0, 0, PhaseStart},
		{0, 0, 1, PhaseLater},
		{1, 2, 0, PhaseStart},
		{1, 6, 8, PhaseRequest},
		{1, 6, 0x38, PhaseLater},
		{0, 3, 12, PhaseRequest},
	} {
		t.Run(fmt.Sprintf("%b %b %b", tt.start, tt.request, tt.later), func(t *testing.T) {
			e := Entry{Start: tt.start, Request: tt.request, Later: tt.later, Known: 8}
			if got := e.Phase(); got != tt.want {
				t.Errorf("it is %v, want %v", got, tt.want)
			}
		})
	}
}

func TestBucketsDoubleAndHaveNoGaps(t *testing.T) {
	for at, want := range map[time.Duration]Bucket{
		-time.Second: 0, -1: 0, 0: 1, 250*time.Microsecond - 1: 1, 250 * time.Microsecond: 2, 499 * time.Microsecond: 2,
		time.Millisecond: 4, 3 * time.Second: LastBucket, math.MaxInt64: LastBucket,
	} {
		if got := BucketOf(at); got != want {
			t.Errorf("%v is in bucket %d, want %d", at, got, want)
		}
	}
	for b := Bucket(1); b <= LastBucket; b++ {
		if b > 1 && BucketOf(b.Until()-1) != b || cmp.Compare(b.Until(), (b-1).Until()) <= 0 {
			t.Errorf("bucket %d lasts until %v", b, b.Until())
		}
	}
}

func TestNumbersHaveNames(t *testing.T) {
	for p := PhaseStart; p <= lastPhase+1; p++ {
		if text, err := p.MarshalText(); err != nil || (string(text) == fmt.Sprintf("phase %d", p)) != (p > lastPhase) {
			t.Errorf("phase %d is called %q, %v", p, text, err)
		}
	}
	for c := ClassMust; c <= lastClass+1; c++ {
		if text, err := c.MarshalText(); err != nil || (string(text) == fmt.Sprintf("class %d", c)) != (c > lastClass) {
			t.Errorf("class %d is called %q, %v", c, text, err)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	const pages = 100000
	w := world{pages: 2 * pages}
	s := NewSet([32]byte{}, w.pages)
	r := w.recording(core(pages), nil)
	for b.Loop() {
		mustAdd(b, s, r)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pages, "ns/page")
}

func BenchmarkCut(b *testing.B) {
	const pages = 100000
	w := world{pages: 2 * pages}
	s := NewSet([32]byte{}, w.pages)
	for i := range 4 {
		mustAdd(b, s, w.recording(core(pages/uint64(i+1)), nil))
	}
	for b.Loop() {
		Cut(s, nil)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pages, "ns/page")
}

func BenchmarkDecode(b *testing.B) {
	const pages = 100000
	w := world{pages: 2 * pages}
	s := NewSet([32]byte{}, w.pages)
	for range 4 {
		mustAdd(b, s, w.recording(core(pages), nil))
	}
	data := mustEncode(b, s)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pages, "ns/page")
}
