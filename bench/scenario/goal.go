package scenario

import (
	"slices"

	"thaw/bench/result"
)

// A Side is one side of a ratio: a figure of a series.
type Side struct {
	Subject string
	Metric  string
	Figure  result.Figure
	// Params are the settings that make the side a fixed one; the others are those of the goal's case.
	Params result.Params
}

// A Limit is the best that Ours of a goal can be on the machine of the run, made of what was measured in that run. A goal that is beyond
// its limit cannot be reached there; one that is not, can be missed only by what we do.
type Limit struct {
	Of Side
	// Best says that the least of the repetitions counts, not their median: of something that is not always as fast as it can be, as a disk.
	Best bool
	// Less, if not nil, is taken off: what passes beside Of.
	Less *Side
	// Is says how the limit was measured.
	Is string
}

// A Goal is a figure to reach: a bound on the ratio of two sides, or on one.
type Goal struct {
	Name string
	// Case are the settings in which the goal applies: the sides' series have to have them. For each combination of the
	// settings named in Each there is a goal of its own.
	Case result.Params
	Each []string

	Ours Side
	// Floor is what Ours is divided by; nil if the bound is on Ours itself.
	Floor *Side
	// FloorIs says how the floor was measured.
	FloorIs string
	// Limit is what stands in the way of Ours; nil if that is not known. It is reported where the document has its series.
	Limit *Limit

	// Want is the bound, an upper one unless AtLeast is set.
	Want    float64
	AtLeast bool
}

// Judge returns the goals of a scenario with what the document says of them. Goals that the document has no series for are
// left out: they are neither met nor missed.
func Judge(d *result.Document, s *Scenario) []result.Goal {
	var out []result.Goal
	for _, g := range s.Goals {
		for _, params := range g.cases(d, s.Name) {
			if judged, ok := g.judge(d, s.Name, params); ok {
				out = append(out, judged)
			}
		}
	}
	return out
}

// cases returns the settings for which there is something to judge.
func (g *Goal) cases(d *result.Document, scenario string) []result.Params {
	if len(g.Each) == 0 {
		return []result.Params{g.Case}
	}
	var all []result.Params
	for _, s := range d.Series {
		if s.Scenario != scenario || s.Subject != g.Ours.Subject || s.Name != g.Ours.Metric || !s.Params.Has(g.Case) {
			continue
		}
		params := slices.Clone(g.Case)
		for _, name := range g.Each {
			params = params.With(name, s.Params.Get(name))
		}
		if !slices.ContainsFunc(all, func(p result.Params) bool { return slices.Equal(p, params) }) {
			all = append(all, params)
		}
	}
	return all
}

func (g *Goal) judge(d *result.Document, scenario string, params result.Params) (result.Goal, bool) {
	ours, unit, ok := g.Ours.of(d, scenario, params)
	out := result.Goal{Scenario: scenario, Name: g.Name, Params: params, Want: g.Want, AtLeast: g.AtLeast, Ours: ours, Unit: unit, FloorIs: g.FloorIs}
	if !ok {
		return out, false
	}
	over := 1.0
	if g.Floor != nil {
		floor, _, ok := g.Floor.of(d, scenario, params)
		if !ok || floor <= 0 {
			return out, false // a part of nothing says nothing
		}
		out.Floor, over = floor, floor
	}
	out.Reached = ours / over
	if limit, ok := g.Limit.of(d, scenario, params); ok {
		out.Limit, out.LimitIs = limit/over, g.Limit.Is
	}
	out.Met = out.Reached <= g.Want
	if g.AtLeast {
		out.Met = out.Reached >= g.Want
	}
	return out, true
}

// of returns the limit, unless it is not known or none.
func (l *Limit) of(d *result.Document, scenario string, params result.Params) (v float64, ok bool) {
	if l == nil {
		return 0, false
	}
	v, _, ok = l.Of.of(d, scenario, params)
	if ok && l.Best {
		v = slices.Min(l.Of.Figure.Of(l.Of.series(d, scenario, params)))
	}
	if ok && l.Less != nil {
		var less float64
		less, _, ok = l.Less.of(d, scenario, params)
		v -= less
	}
	return v, ok && v > 0
}

// of returns the median over the repetitions of the side's figure.
func (s *Side) of(d *result.Document, scenario string, params result.Params) (v float64, unit string, ok bool) {
	series := s.series(d, scenario, params)
	if series == nil {
		return 0, "", false
	}
	return result.Median(s.Figure.Of(series)), series.Unit, true
}

// series returns what the document has of the side, or nil.
func (s *Side) series(d *result.Document, scenario string, params result.Params) *result.Series {
	// A setting that the side fixes is not the case's.
	want := slices.Clone(s.Params)
	for _, p := range params {
		if s.Params.Get(p.Name) == "" {
			want = append(want, p)
		}
	}
	return d.Find(scenario, want, s.Subject, s.Metric)
}
