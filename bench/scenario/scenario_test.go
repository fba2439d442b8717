package scenario

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/bench/result"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var speed = result.Metric{Name: "speed", Unit: "B/s", Higher: true}

// A stage is a scenario that notes what is done with it.
type stage struct {
	runs   []string
	closed int
	dir    string
	passes int
}

// scenario returns a scenario with a trial for each size and subject. fail names the trial that fails.
func (s *stage) scenario(fail string) Scenario {
	return Scenario{Name: "stage", Summary: "A play.", Prepare: func(_ context.Context, env *Env) (*Plan, error) {
		s.dir = env.Dir
		plan := &Plan{Notes: []string{"a note"}, Passes: s.passes, Close: func() error { s.closed++; return nil }}
		for _, size := range []string{"1", "2"} {
			for subject, v := range map[string]float64{"c": 100, "thaw": 90} {
				t := Trial{Params: result.P("size", size), Subject: subject}
				t.Run = func(context.Context) ([]result.Observation, error) {
					s.runs = append(s.runs, t.name())
					if t.name() == fail {
						return nil, errors.New("no luck")
					}
					return []result.Observation{{Metric: speed, Values: []float64{v}}}, nil
				}
				plan.Trials = append(plan.Trials, t)
			}
		}
		slices.SortFunc(plan.Trials, func(a, b Trial) int {
			if a.name() < b.name() {
				return -1
			}
			return 1
		})
		return plan, nil
	}, Goals: []Goal{{
		Name: "speed", Each: []string{"size"}, Ours: Side{Subject: "thaw", Metric: "speed", Figure: result.Middle},
		Floor: &Side{Subject: "c", Metric: "speed", Figure: result.Middle}, Want: 0.95, AtLeast: true,
	}}}
}

func TestTrialsAreInterleavedInAnotherOrderEachTime(t *testing.T) {
	var s stage
	d, err := Run(t.Context(), []Scenario{s.scenario("")}, &Options{Repetitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"size=1/c", "size=1/thaw", "size=2/c", "size=2/thaw"}
	if diff := cmp.Diff(want, s.runs[:4]); diff != "" {
		t.Errorf("the first repetition (-want +got):\n%s", diff)
	}
	if slices.Equal(want, s.runs[4:]) {
		t.Error("the second repetition has the same order")
	}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(s.runs[4:]))); diff != "" {
		t.Errorf("the second repetition (-want +got):\n%s", diff)
	}
	if len(d.Series) != 4 || len(d.Series[0].Samples) != 2 {
		t.Errorf("%d series, the first with %v", len(d.Series), d.Series[0].Samples)
	}
	if s.closed != 1 {
		t.Errorf("the plan was closed %d times", s.closed)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	if sc := d.Scenarios[0]; sc.Name != "stage" || len(sc.Notes) != 1 {
		t.Errorf("the scenario is told as %+v", sc)
	}
	goal := result.Goal{Scenario: "stage", Name: "speed", Params: result.P("size", "1"), Want: 0.95, AtLeast: true, Reached: 0.9, Ours: 90, Floor: 100, Unit: "B/s"}
	if len(d.Goals) != 2 {
		t.Fatalf("goals are %+v", d.Goals)
	}
	if diff := cmp.Diff(goal, d.Goals[0]); diff != "" {
		t.Errorf("goal (-want +got):\n%s", diff)
	}
}

func TestTrialsAreGoneThroughSeveralTimesForEachRepetition(t *testing.T) {
	for _, tt := range []struct {
		opts Options
		want int // samples of each trial
	}{{Options{Repetitions: 2}, 6}, {Options{Quick: true}, 1}} {
		s := stage{passes: 3}
		d, err := Run(t.Context(), []Scenario{s.scenario("")}, &tt.opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, series := range d.Series {
			if len(series.Samples) != tt.want {
				t.Errorf("%+v: %s has %d samples, want %d", tt.opts, series.Subject, len(series.Samples), tt.want)
			}
		}
	}
}

func TestFilterChoosesTrials(t *testing.T) {
	var s stage
	d, err := Run(t.Context(), []Scenario{s.scenario("")}, &Options{Repetitions: 1, Filter: regexp.MustCompile(`size=2/thaw`)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"size=2/thaw"}, s.runs); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	if len(d.Goals) != 0 {
		t.Errorf("a goal without its floor is judged: %+v", d.Goals)
	}
	if _, err := Run(t.Context(), []Scenario{s.scenario("")}, &Options{Filter: regexp.MustCompile("nothing")}); !errors.Is(err, ErrNothing) {
		t.Errorf("a filter that matches nothing: %v, want ErrNothing", err)
	}
}

func TestATrialThatFailsEndsTheRunAndIsNamed(t *testing.T) {
	var s stage
	_, err := Run(t.Context(), []Scenario{s.scenario("size=1/thaw")}, &Options{Repetitions: 3})
	if err == nil || err.Error() != "scenario stage: size=1/thaw, repetition 1: no luck" {
		t.Errorf("Run says %v", err)
	}
	if s.closed != 1 || len(s.runs) != 2 {
		t.Errorf("closed %d times, after %v", s.closed, s.runs)
	}
}

func TestAQuickRunIsNotJudged(t *testing.T) {
	var s stage
	d, err := Run(t.Context(), []Scenario{s.scenario("")}, &Options{Quick: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.runs) != 4 || len(d.Goals) != 0 || !d.Settings.Quick {
		t.Errorf("%d runs, goals %v", len(s.runs), d.Goals)
	}
}

func TestAnEndedContextEndsTheRun(t *testing.T) {
	var s stage
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, []Scenario{s.scenario("")}, &Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run says %v", err)
	}
	if len(s.runs) > 1 {
		t.Errorf("%d trials were run", len(s.runs))
	}
}

func TestGoalsMayFixASettingAndHaveNoFloor(t *testing.T) {
	d := &result.Document{}
	many := result.Metric{Name: "latency", Unit: "ns", Many: true}
	for regions, v := range map[string]float64{"10": 10, "1000": 12} {
		d.Add("s", result.P("regions", regions), "thaw", []result.Observation{{Metric: many, Values: []float64{v, v, 5 * v}}})
	}
	d.Finish()
	side := func(n string, f result.Figure) Side {
		return Side{Subject: "thaw", Metric: "latency", Figure: f, Params: result.P("regions", n)}
	}
	few := side("10", result.Middle)
	s := &Scenario{Name: "s", Goals: []Goal{
		{Name: "growth", Ours: side("1000", result.Middle), Floor: &few, Want: 1.3},
		{Name: "tail", Ours: side("10", result.P99), Want: 20},
	}}
	got := Judge(d, s)
	if len(got) != 2 || got[0].Reached != 1.2 || !got[0].Met || got[1].Met || got[1].Floor != 0 {
		t.Errorf("goals are %+v", got)
	}
}

func TestAGoalIsReportedWithWhatStandsInItsWay(t *testing.T) {
	d := &result.Document{}
	add := func(subject, cache string, v float64) {
		d.Add("s", result.P("cache", cache), subject, []result.Observation{{Metric: result.Metric{Name: subject, Unit: "ns"}, Values: []float64{v}}})
	}
	for _, cache := range []string{"warm", "dropped"} {
		add("thaw", cache, 60)
		add("eager", cache, 100)
		add("start", cache, 30)
	}
	for _, v := range []float64{90, 80, 70} {
		add("disk", "dropped", v)
	}
	d.Finish()
	side := func(subject string) Side { return Side{Subject: subject, Metric: subject, Figure: result.Middle} }
	eager, start := side("eager"), side("start")
	goal := func(name string, floor *Side, limit *Limit) Goal {
		return Goal{Name: name, Each: []string{"cache"}, Ours: side("thaw"), Floor: floor, Limit: limit, Want: 0.25}
	}
	s := &Scenario{Name: "s", Goals: []Goal{
		goal("over eager's", &eager, &Limit{Of: side("disk"), Less: &start, Is: "the disk"}),
		goal("alone", nil, &Limit{Of: side("disk"), Is: "the disk"}),
		goal("at its best", nil, &Limit{Of: side("disk"), Best: true, Is: "the disk"}),
		goal("nothing left of it", &eager, &Limit{Of: side("start"), Less: &eager, Is: "less than nothing"}),
		goal("what is taken off is not there", &eager, &Limit{Of: side("disk"), Less: &Side{Subject: "other"}, Is: "half"}),
	}}
	got := make(map[string]float64)
	for _, g := range Judge(d, s) {
		if (g.Limit == 0) != (g.LimitIs == "") {
			t.Errorf("%s has the limit %v, %q", g.Name, g.Limit, g.LimitIs)
		}
		got[g.Name+", "+g.Params.Get("cache")] = g.Limit
	}
	want := map[string]float64{
		"over eager's, warm": 0, "over eager's, dropped": 0.5, "alone, warm": 0, "alone, dropped": 80, "at its best, warm": 0, "at its best, dropped": 70, "nothing left of it, warm": 0, "nothing left of it, dropped": 0,
		"what is taken off is not there, warm": 0, "what is taken off is not there, dropped": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}

func TestATrialWithABoundTakesPartInRepetitionsSpreadOverAll(t *testing.T) {
	for _, tt := range []struct {
		most, all int
		want      []int
	}{
		{0, 3, []int{0, 1, 2}}, {5, 3, []int{0, 1, 2}}, {1, 1, []int{0}}, {2, 10, []int{0, 5}}, {3, 10, []int{0, 4, 7}},
	} {
		trial := Trial{MaxRepetitions: tt.most}
		var got []int
		for rep := range tt.all {
			if trial.takesPart(rep, tt.all) {
				got = append(got, rep)
			}
		}
		if !slices.Equal(got, tt.want) || len(got) != trial.repetitions(tt.all) {
			t.Errorf("at most %d of %d: %v, want %v", tt.most, tt.all, got, tt.want)
		}
	}
}

func TestGroupsStayTogetherInEachOrder(t *testing.T) {
	trials := []Trial{{Group: "a"}, {Group: "b"}, {Group: "a"}, {Group: "b"}, {Group: "a"}, {Group: "b"}}
	first := make(map[string]bool)
	for rep := range 20 {
		got := order(trials, rep)
		changes := 0
		for i := 1; i < len(got); i++ {
			if trials[got[i]].Group != trials[got[i-1]].Group {
				changes++
			}
		}
		if changes != 1 || !slices.Equal(slices.Sorted(slices.Values(got)), []int{0, 1, 2, 3, 4, 5}) {
			t.Errorf("repetition %d: %v", rep, got)
		}
		first[trials[got[0]].Group] = true
	}
	if len(first) != 2 {
		t.Error("the same group is always the first")
	}
}

func TestAScenarioKnowsWhatIsWantedTellsItsStepsAndDerivesSeries(t *testing.T) {
	var s stage
	sc := s.scenario("")
	prepare := sc.Prepare
	var wanted []bool
	sc.Prepare = func(ctx context.Context, env *Env) (*Plan, error) {
		wanted = append(wanted, env.Wants(result.P("size", "2"), "thaw"), env.Wants(result.P("size", "1"), "thaw"))
		env.Step("a step")
		return prepare(ctx, env)
	}
	sc.Derive = func(d *result.Document) {
		d.Add("stage", result.P("size", "2"), "thaw", []result.Observation{{Metric: result.Metric{Name: "derived"}, Values: []float64{float64(len(d.Series))}}})
	}
	var told steps
	d, err := Run(t.Context(), []Scenario{sc}, &Options{Repetitions: 1, Filter: regexp.MustCompile(`size=2/`), Progress: &told})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(wanted, []bool{true, false}) || !slices.Equal(told, []string{"stage: a step"}) {
		t.Errorf("wanted %v, steps %v", wanted, told)
	}
	if derived := d.Find("stage", nil, "thaw", "derived"); derived == nil || derived.Median != 2 {
		t.Errorf("derived %+v", derived)
	}
}

// steps keeps what a run tells of its preparation.
type steps []string

func (s *steps) Step(scenario, name string)        { *s = append(*s, scenario+": "+name) }
func (*steps) Trial(string, string, int, int, int) {}

func TestWhatCannotRunHereIsNoErrorUnlessItIsAll(t *testing.T) {
	out := Scenario{Name: "out", Prepare: func(context.Context, *Env) (*Plan, error) {
		return &Plan{LeftOut: true, Notes: []string{"get a root file system"}}, nil
	}}
	var s stage
	d, err := Run(t.Context(), []Scenario{out, s.scenario("")}, &Options{Repetitions: 1})
	if err != nil || len(d.Scenarios) != 2 || len(d.Scenarios[0].Notes) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	_, err = Run(t.Context(), []Scenario{out}, &Options{Repetitions: 1})
	if !errors.Is(err, ErrLeftOut) || !strings.Contains(err.Error(), "get a root file system") {
		t.Errorf("Run says %v", err)
	}
}
