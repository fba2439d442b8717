package htmlreport

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"thaw/bench/result"
)

// A point of a line, in the chart's own units.
type point struct{ x, y float64 }

// A line is one series of a chart.
type line struct {
	name   string
	color  int // number of the color; 0 is the engine's
	points []point
	dots   []point // the single repetitions
}

// A scale maps values to [0, 1] and says where to put marks.
type scale struct {
	at    func(v float64) float64
	ticks []tick
}

type tick struct {
	v     float64
	label string
}

// A plot is a chart with its scales, ready to be drawn.
type plot struct {
	lines          []line
	x, y           scale
	xTitle, yTitle string
}

// build returns what a chart shows. ok is false if the document has nothing for it.
func build(d *result.Document, scenario string, c *result.Chart) (p plot, ok bool) {
	var chosen []*result.Series
	for _, s := range d.Series {
		if s.Scenario == scenario && s.Name == c.Metric && s.Params.Has(c.Only) {
			chosen = append(chosen, s)
		}
	}
	switch c.Kind {
	case result.Distribution:
		p = distribution(chosen, c)
	case result.OverParam:
		p = overParam(chosen, c)
	case result.OverTime:
		p = overTime(chosen, c)
	}
	return p, len(p.lines) > 0
}

// lineName names a series in a chart by what tells it from the others: its subject, and the settings that are neither
// the x axis nor the same for all.
func lineName(s *result.Series, c *result.Chart, all []*result.Series) string {
	parts := []string{s.Subject}
	for _, p := range s.Params {
		same := !slices.ContainsFunc(all, func(o *result.Series) bool { return o.Params.Get(p.Name) != p.Value })
		if p.Name != c.X && !same {
			parts = append(parts, p.Name+" "+p.Value)
		}
	}
	return strings.Join(parts, ", ")
}

// color gives each line a color of its own; the engine's first line always has the same one.
func color(lines []line) {
	next := 1
	engine := slices.IndexFunc(lines, func(l line) bool { return strings.HasPrefix(l.name, "thaw") })
	for i := range lines {
		if i == engine {
			lines[i].color = 0
			continue
		}
		lines[i].color = next
		next = next%(colors-1) + 1
	}
}

// distribution draws a latency against the part of the observations that are below it; the axis gives the tail room.
func distribution(chosen []*result.Series, c *result.Chart) plot {
	p := plot{xTitle: "percentile", x: percentileScale()}
	var low, high float64
	for _, s := range chosen {
		l := line{name: lineName(s, c, chosen)}
		seen, total := 0, 0
		for _, b := range s.Histogram {
			total += b.N
		}
		for _, b := range s.Histogram {
			seen += b.N
			part := min(float64(seen)/float64(total), 1-1e-4)
			l.points = append(l.points, point{part, b.Le})
			if part >= 0.999 {
				break
			}
		}
		if len(l.points) == 0 {
			continue
		}
		// Below the first bucket is nothing: the line begins at the left.
		l.points = append([]point{{0, l.points[0].y}}, l.points...)
		p.lines = append(p.lines, l)
		for _, pt := range l.points {
			if low == 0 || pt.y < low {
				low = pt.y
			}
			high = max(high, pt.y)
		}
		p.yTitle = s.Unit
	}
	p.y = logScale(low, high, 10, p.yTitle)
	color(p.lines)
	return p
}

// percentileScale spreads the tail: each nine takes as much room as the one before it.
func percentileScale() scale {
	const decades = 3 // up to 99.9
	return scale{
		at: func(v float64) float64 { return min(-math.Log10(1-v)/decades, 1) },
		ticks: []tick{
			{0, "0"}, {0.5, "50"}, {0.9, "90"}, {0.95, ""}, {0.99, "99"}, {0.995, ""}, {0.999, "99.9"},
		},
	}
}

// overParam draws a metric against a numeric setting.
func overParam(chosen []*result.Series, c *result.Chart) plot {
	p := plot{xTitle: c.X}
	index := make(map[string]int)
	var xs []float64
	labels := make(map[float64]string)
	var high, low float64
	for _, s := range chosen {
		x, err := number(s.Params.Get(c.X))
		if err != nil {
			continue
		}
		name := lineName(s, c, chosen)
		i, ok := index[name]
		if !ok {
			i = len(p.lines)
			index[name] = i
			p.lines = append(p.lines, line{name: name})
		}
		p.lines[i].points = append(p.lines[i].points, point{x, s.Median})
		for _, v := range s.Samples {
			p.lines[i].dots = append(p.lines[i].dots, point{x, v})
			high = max(high, v)
			if v > 0 && (low == 0 || v < low) {
				low = v
			}
		}
		xs = append(xs, x)
		labels[x] = s.Params.Get(c.X)
		p.yTitle = s.Unit
	}
	if len(xs) == 0 {
		return plot{}
	}
	for i := range p.lines {
		slices.SortFunc(p.lines[i].points, func(a, b point) int { return int(math.Copysign(1, a.x-b.x)) })
	}
	p.x = logScale(slices.Min(xs), slices.Max(xs), 2, "")
	p.x.ticks = nil
	for x, label := range labels {
		p.x.ticks = append(p.x.ticks, tick{x, label})
	}
	slices.SortFunc(p.x.ticks, func(a, b tick) int { return int(math.Copysign(1, a.v-b.v)) })
	if p.y = linearScale(high, p.yTitle); high > 30*low {
		p.y = logScale(low, high, 10, p.yTitle)
	}
	color(p.lines)
	return p
}

// overTime draws curves.
func overTime(chosen []*result.Series, c *result.Chart) plot {
	p := plot{xTitle: "time"}
	var far, high float64
	for _, s := range chosen {
		l := line{name: lineName(s, c, chosen)}
		for _, pt := range s.Curve {
			l.points = append(l.points, point{pt.T * 1e9, pt.V})
			far, high = max(far, pt.T*1e9), max(high, pt.V)
		}
		if len(l.points) > 1 {
			p.lines = append(p.lines, l)
		}
	}
	p.x, p.y = linearScale(far, "ns"), linearScale(high, "B")
	p.yTitle = "B"
	color(p.lines)
	return p
}

// linearScale goes from zero to high, with marks at round values.
func linearScale(high float64, unit string) scale {
	if high <= 0 {
		high = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(high/5)))
	for _, f := range []float64{1, 2, 5, 10} {
		if high/(f*step) <= 5.001 {
			step *= f
			break
		}
	}
	top := math.Ceil(high/step*0.999) * step
	s := scale{at: func(v float64) float64 { return v / top }}
	for v := 0.0; v <= top*1.001; v += step {
		s.ticks = append(s.ticks, tick{v, result.Format(v, unit)})
	}
	return s
}

// logScale goes from low to high, by powers of base.
func logScale(low, high, base float64, unit string) scale {
	if low <= 0 || high <= 0 {
		low, high = 1, base
	}
	log := func(v float64) float64 { return math.Log(v) / math.Log(base) }
	from, to := log(low), log(high)
	margin := max((to-from)*0.04, 0.02)
	from, to = from-margin, to+margin
	s := scale{at: func(v float64) float64 { return (log(max(v, low)) - from) / (to - from) }}
	dense := to-from < 2
	for e := math.Floor(from); e <= to; e++ {
		for _, f := range []float64{1, 2, 5} {
			v := math.Pow(base, e) * f
			if at := log(v); at < from || at > to {
				continue
			}
			if f == 1 || dense {
				s.ticks = append(s.ticks, tick{v, result.Format(v, unit)})
			} else {
				s.ticks = append(s.ticks, tick{v, ""})
			}
		}
	}
	if len(s.ticks) == 0 {
		s.ticks = []tick{{low, result.Format(low, unit)}}
	}
	return s
}

// number reads a setting that is a number, perhaps with a binary unit.
func number(s string) (float64, error) {
	factor := 1.0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			s, factor = rest, math.Exp2(float64(10*(i+1)))
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", s)
	}
	return v * factor, nil
}
