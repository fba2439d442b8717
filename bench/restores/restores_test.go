package restores

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/bench/lab"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestOverheadIsFirstResponseLessWLessTheMedianFloor(t *testing.T) {
	d := &result.Document{}
	warm, cold := result.P("size", "small", "cache", "warm"), result.P("size", "small", "cache", "dropped")
	for _, floor := range []float64{0.1, 0.2, 0.9} {
		d.Add("restore", warm, "floor", observeRun(&lab.Run{Mode: lab.Floor, ToRunning: floor}))
	}
	for _, first := range []float64{0.5, 0.6, 0.7} {
		w := 0.05
		r := lab.Run{Mode: lab.Thaw, ToRunning: 0.3, ToFirstResponse: &first, WarmCall: &w}
		d.Add("restore", warm, "thaw", observeRun(&r))
		d.Add("restore", cold, "thaw", observeRun(&r)) // has no floor
	}
	deriveOverheads(d, "restore")
	d.Finish()
	s := d.Find("restore", warm, "thaw", overhead.Name)
	if s == nil {
		t.Fatal("there is no overhead")
	}
	approx := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1 })
	if diff := cmp.Diff([]float64{0.25e9, 0.35e9, 0.45e9}, s.Samples, approx); diff != "" {
		t.Errorf("overheads (-want +got):\n%s", diff)
	}
	if d.Find("restore", cold, "thaw", overhead.Name) != nil || d.Find("restore", warm, "floor", overhead.Name) != nil {
		t.Error("there is an overhead without a floor, or one of the floor")
	}
}

func TestARunHasOnlyTheMetricsOfItsMode(t *testing.T) {
	names := func(r *lab.Run) (out []string) {
		for _, o := range observeRun(r) {
			out = append(out, o.Name)
		}
		return out
	}
	if diff := cmp.Diff([]string{"to-running", "bytes-read"}, names(&lab.Run{Mode: lab.Floor})); diff != "" {
		t.Errorf("the floor's metrics (-want +got):\n%s", diff)
	}
	first, faults := 1.0, uint64(3)
	want := []string{"to-running", "bytes-read", "first-response", "w", "faults-served"}
	if diff := cmp.Diff(want, names(&lab.Run{ToFirstResponse: &first, WarmCall: &first, FaultsServed: &faults})); diff != "" {
		t.Errorf("a restore's metrics (-want +got):\n%s", diff)
	}
}

func TestCoreTimeIsWhatEachRestoreWouldTakeOneAfterTheOther(t *testing.T) {
	for _, tt := range []struct {
		restores, cores int
		want            float64
	}{{1, 2, 1e9}, {2, 2, 1e9}, {16, 2, 1e9 / 8}, {16, 8, 1e9 / 2}} {
		b := lab.Burst{ToFirstResponse: slices.Repeat([]float64{1}, tt.restores)}
		seen := observeBurst(&b, tt.cores)
		i := slices.IndexFunc(seen, func(o result.Observation) bool { return o.Name == coreTime.Name })
		if got := seen[i].Values; len(got) != tt.restores || got[0] != tt.want {
			t.Errorf("%d restores of a second on %d cores: %v, want %v", tt.restores, tt.cores, got, tt.want)
		}
	}
}

func TestAWaveTakesOneSnapshotOrAllInTurn(t *testing.T) {
	a, b := new(lab.Frozen), new(lab.Frozen)
	for _, tt := range []struct {
		wave wave
		want []*lab.Frozen
	}{
		{wave{snapshots: oneSnapshot, restores: 3}, []*lab.Frozen{a, a, a}},
		{wave{snapshots: differentSnapshots, restores: 3}, []*lab.Frozen{a, b, a}},
		{wave{snapshots: differentSnapshots, restores: 1}, []*lab.Frozen{a}},
	} {
		if got := tt.wave.pick([]*lab.Frozen{a, b}); !slices.Equal(got, tt.want) {
			t.Errorf("%+v picks %v, want %v", tt.wave, got, tt.want)
		}
	}
}

func TestAsManySnapshotsAreMadeAsTheWavesNeed(t *testing.T) {
	one, some, many := wave{snapshots: oneSnapshot, restores: 64}, wave{snapshots: differentSnapshots, restores: 4}, wave{snapshots: differentSnapshots, restores: 64}
	for _, tt := range []struct {
		waves []wave
		want  int
	}{{nil, 0}, {[]wave{one}, 1}, {[]wave{one, some}, 4}, {[]wave{many, some}, different}} {
		if got := snapshotsOf(tt.waves); got != tt.want {
			t.Errorf("%d snapshots for %+v, want %d", got, tt.waves, tt.want)
		}
	}
}

// A goal whose sides nothing measures would be left out in silence.
func TestGoalsSpeakOfWhatIsMeasured(t *testing.T) {
	env := &scenario.Env{}
	d := &result.Document{}
	second, n := 1.0, uint64(1)
	for _, s := range sizes(env) {
		for _, cache := range s.caches {
			for _, mode := range restoreModes {
				r := lab.Run{ToRunning: 0.1, ToFirstResponse: &second, WarmCall: new(float64), FaultsServed: &n}
				d.Add("restore", s.params(cache), string(mode), observeRun(&r))
			}
		}
	}
	for _, w := range waves(env) {
		for _, cache := range w.caches {
			for _, mode := range w.modes {
				b := lab.Burst{ToFirstResponse: slices.Repeat([]float64{1}, w.restores), BytesRead: 1}
				d.Add("burst", w.params(cache), string(mode), observeBurst(&b, 2))
			}
		}
	}
	deriveOverheads(d, "restore")
	for _, size := range []string{"small", "medium", "minilm"} {
		for _, subject := range []string{traced, untraced} {
			d.Add("tracer", result.P("size", size), subject, []result.Observation{one(wholeRun, 1)})
		}
	}
	d.Finish()
	for i, want := range []int{8, 3, 3} { // restore: four in two cache states; burst: one in two, one in one; tracer: one in each size
		s := All()[i]
		if got := scenario.Judge(d, &s); len(got) != want {
			t.Errorf("%d goals of %s are judged, want %d: %+v", len(got), s.Name, want, got)
		}
	}
}

func TestWithoutItsPartsAScenarioIsLeftOutAndSaysHowToGetThem(t *testing.T) {
	for _, variable := range []string{"THAW_CRIU", "THAW_ROOTFS"} {
		t.Setenv(variable, "")
	}
	dir := t.TempDir()
	t.Setenv("THAW_DEPS", dir)
	_, err := scenario.Run(t.Context(), All(), &scenario.Options{Repetitions: 1, Dir: dir})
	if !errors.Is(err, scenario.ErrLeftOut) || !strings.Contains(err.Error(), "make deps") {
		t.Errorf("Run says %v", err)
	}
}
