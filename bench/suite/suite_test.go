package suite

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestScenarioRuns runs each scenario in its smallest form, against the real kernel, with its baselines.
func TestScenarioRuns(t *testing.T) {
	for _, s := range All() {
		t.Run(s.Name, func(t *testing.T) {
			testenv.NeedRoot(t)
			testenv.NeedUserfaultfd(t)
			testenv.NeedCC(t)
			opts := &scenario.Options{Quick: true, Dir: t.TempDir()}
			if s.Name == "fault" {
				opts.CRIU = testenv.CRIU(t)
			}
			d, err := scenario.Run(t.Context(), []scenario.Scenario{s}, opts)
			if err != nil {
				t.Fatal(err)
			}
			subjects := make(map[string]bool)
			metrics := make(map[string]bool)
			for _, series := range d.Series {
				subjects[series.Subject], metrics[series.Name] = true, true
				if len(series.Samples) != 1 {
					t.Errorf("%v of %s has %d samples, want 1", series.Name, series.Subject, len(series.Samples))
				}
			}
			if !subjects["thaw"] || len(subjects) < 2 {
				t.Errorf("subjects are %v: want the engine and a baseline", subjects)
			}
			for _, c := range s.Charts {
				if !metrics[c.Metric] {
					t.Errorf("chart %q shows %s, which nobody has measured", c.Title, c.Metric)
				}
			}
			for _, g := range s.Goals {
				for _, side := range []*scenario.Side{&g.Ours, g.Floor} {
					if side != nil && (!metrics[side.Metric] || !subjects[side.Subject]) {
						t.Errorf("figure %q is of %s of %s, which nobody has measured", g.Name, side.Metric, side.Subject)
					}
				}
			}
		})
	}
}

func TestNamesOfScenariosAreUniqueAndFitForGoBenchmarks(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range All() {
		if seen[s.Name] || s.Summary == "" || len(s.Charts) == 0 {
			t.Errorf("scenario %q is there twice, or says nothing of itself", s.Name)
		}
		seen[s.Name] = true
		for _, r := range s.Name {
			if (r < 'a' || r > 'z') && r != '-' {
				t.Errorf("scenario %q: %q is no lower-case letter or dash", s.Name, r)
			}
		}
	}
}

// Engine and baselines have to bring the same, or a comparison says nothing.
func TestLayoutsSayWhatPlacementsSay(t *testing.T) {
	im, err := newImage(64)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	for name, p := range map[string]placement{
		"one run": contiguous(40), "runs with gaps": inRuns(41, 3, 2), "single pages": inRuns(64, 1, 1), "one page and a gap": inRuns(9, 1, 8),
	} {
		t.Run(name, func(t *testing.T) {
			l := p.layout()
			if err := l.Validate(); err != nil {
				t.Fatal(err)
			}
			if l.Pages() != p.content() {
				t.Errorf("the layout has %d pages, the placement %d", l.Pages(), p.content())
			}
			got := make(map[uint64]uint64) // first words by page
			for _, e := range l.Extents {
				for i := range e.Pages {
					got[(e.Addr-base)/page+i] = im.word(e.Image + i)
				}
			}
			for i := range p.Pages {
				if want := p.word(im, i); got[i] != want {
					t.Errorf("page %d begins with %#x in the layout and %#x in the placement", i, got[i], want)
				}
			}
		})
	}
}

func TestScatteredImageUsesEachPageOnceAndHasNoNeighbors(t *testing.T) {
	const n = 256
	l := scattered(n)
	if err := l.Validate(); err != nil {
		t.Fatal(err)
	}
	used := make(map[uint64]bool)
	for i, e := range l.Extents {
		used[e.Image] = true
		if i > 0 && e.Image == l.Extents[i-1].Image+1 {
			t.Errorf("pages %d and %d are neighbors in the image", i-1, i)
		}
	}
	if len(used) != n {
		t.Errorf("%d pages of the image are used, want %d", len(used), n)
	}
}

func TestGridsHaveTheirRegionsAndFewEnoughMappings(t *testing.T) {
	for _, n := range []uint64{10, 1000, 4096, 100_000} {
		g := newGrid(n, 4096)
		l := g.layout()
		if err := l.Validate(); err != nil {
			t.Fatal(err)
		}
		if got := uint64(len(l.Regions)); got < n || got > n+4 {
			t.Errorf("grid of %d regions has %d", n, got)
		}
		if g.mappings > maxMappings {
			t.Errorf("grid of %d regions has %d mappings", n, g.mappings)
		}
		mappings := uint64(1)
		for i := 1; i < len(l.Regions); i++ {
			if l.Regions[i].Start != l.Regions[i-1].End {
				mappings++
			}
		}
		if mappings != g.mappings {
			t.Errorf("regions of grid %d make %d mappings, want %d", n, mappings, g.mappings)
		}
		w := g.walk(4096)
		if touched := (w.Range.Len() + w.Stride - 1) / w.Stride; touched < 4000 || touched > 3*4096 {
			t.Errorf("%d pages of grid %d are touched", touched, n)
		}
	}
}

func TestPartsOfAnImportWriteTheNewPagesOfAShare(t *testing.T) {
	for _, known := range []int{0, 50, 100} {
		c := importCase{known: known, data: make([]byte, 777*page)}
		fresh := uint64(0)
		for p := range c.pages() {
			if got := c.newBefore(p); got != fresh {
				t.Fatalf("%d%% known: %d new pages before page %d, want %d", known, got, p, fresh)
			}
			if p%100 >= uint64(known) {
				fresh++
			}
			fillPage(c.data[p*page:][:page], p)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "parts"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		const first = 3 * partsPages / 2 // the second share of two
		if err := c.share(f, first, c.pages(), make(chan struct{}, 1), make(chan span, 1)); err != nil {
			t.Fatal(err)
		}
		var want []byte
		for p := uint64(first); p < c.pages(); p++ {
			if p%100 >= uint64(known) {
				want = append(want, c.data[p*page:][:page]...)
			}
		}
		if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d%% known: %d bytes were written, want the %d new ones; %v", known, len(got), len(want), err)
		}
	}
}

func TestImageRepeatsItself(t *testing.T) {
	im, err := newImage(8)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	data, n := im.Ready(14, 5)
	if n != 2 || len(data) != 2*page {
		t.Errorf("%d pages behind page 14 of an image of 8", n)
	}
	if im.word(14) != im.word(6) || im.word(6) == im.word(7) {
		t.Error("pages 6 and 14 differ, or 6 and 7 do not")
	}
}

func TestCurvesAreThinnedAndEndWithTheWhole(t *testing.T) {
	points := make([]result.Point, 5000)
	if n := len(thin(points)); n > 220 || n < 150 {
		t.Errorf("%d points are left of 5000", n)
	}
}
