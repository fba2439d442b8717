package result

import (
	"math"
	"slices"
	"strings"
)

// A Param is one setting of a scenario. Neither part holds white space, '/' or '='.
type Param struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Params are the settings of a trial, in the order in which they are shown.
type Params []Param

// P makes Params of names and values in turn.
func P(namesAndValues ...string) Params {
	var p Params
	for i := 0; i+1 < len(namesAndValues); i += 2 {
		p = append(p, Param{namesAndValues[i], namesAndValues[i+1]})
	}
	return p
}

// Get returns the value of a setting, "" if there is none of that name.
func (p Params) Get(name string) string {
	for _, param := range p {
		if param.Name == name {
			return param.Value
		}
	}
	return ""
}

// With returns the params and one more.
func (p Params) With(name, value string) Params {
	return append(slices.Clone(p), Param{name, value})
}

// Has reports whether all of want are among the params.
func (p Params) Has(want Params) bool {
	for _, w := range want {
		if !slices.Contains(p, w) {
			return false
		}
	}
	return true
}

// String returns the params as name=value, joined with "/" as in names of Go benchmarks.
func (p Params) String() string {
	parts := make([]string, len(p))
	for i, param := range p {
		parts[i] = param.Name + "=" + param.Value
	}
	return strings.Join(parts, "/")
}

// A Metric is something that is measured.
type Metric struct {
	Name string `json:"metric"`
	// Unit is ns, s, B, B/s, or a word for what is counted.
	Unit string `json:"unit"`
	// Higher says that more is better.
	Higher bool `json:"higher_is_better,omitempty"`
	// Many says that one repetition observes many values: the metric is a distribution.
	Many bool `json:"distribution,omitempty"`
}

// A Point is a value at a time within a trial, in seconds since it began.
type Point struct {
	T float64 `json:"t"`
	V float64 `json:"v"`
}

// An Observation is what one repetition of a trial saw of one metric.
type Observation struct {
	Metric
	Values []float64
	// Curve says how the value came about over time; nil for most.
	Curve []Point
}

// A Bucket counts the observations in (the bound of the bucket before it, Le].
type Bucket struct {
	Le float64 `json:"le"`
	N  int     `json:"n"`
}

// A Series is all that was measured of one metric by one subject in one setting of a scenario.
type Series struct {
	Scenario string `json:"scenario"`
	Params   Params `json:"params"`
	Subject  string `json:"subject"`
	Metric

	// Samples holds a value for each repetition: what was observed or, of a distribution, its median.
	Samples []float64 `json:"samples"`
	// Median is that of the samples.
	Median float64 `json:"median"`
	// Spread is the interquartile range of the samples over their median.
	Spread float64 `json:"spread"`
	// Quantiles are those of all observations of all repetitions.
	Quantiles
	// Repetitions holds the quantiles of each repetition; of distributions only.
	Repetitions []Quantiles `json:"repetitions,omitempty"`
	// Histogram counts all observations; of distributions only.
	Histogram []Bucket `json:"histogram,omitempty"`
	// Curve is that of the first repetition; of few metrics.
	Curve []Point `json:"curve,omitempty"`

	observed []float64
}

// add takes in a repetition.
func (s *Series) add(o Observation) {
	if len(o.Values) == 0 {
		return
	}
	s.Samples = append(s.Samples, Median(o.Values))
	s.observed = append(s.observed, o.Values...)
	if s.Many {
		s.Repetitions = append(s.Repetitions, QuantilesOf(o.Values))
	}
	if s.Curve == nil {
		s.Curve = o.Curve
	}
}

// finish computes what follows from the observations.
func (s *Series) finish() {
	s.Median, s.Spread = Median(s.Samples), Spread(s.Samples)
	s.Quantiles = QuantilesOf(s.observed)
	if s.Many {
		s.Histogram = histogram(s.observed)
	}
	s.observed = nil
}

// bucketsPerOctave bounds the error of the histogram to a factor of 2^(1/8), 9 %.
const bucketsPerOctave = 8

// histogram counts values in buckets whose bounds grow by a constant factor. Empty buckets are left out.
func histogram(values []float64) []Bucket {
	counts := make(map[int]int)
	for _, v := range values {
		counts[bucketOf(v)]++
	}
	out := make([]Bucket, 0, len(counts))
	for i, n := range counts {
		out = append(out, Bucket{math.Exp2(float64(i) / bucketsPerOctave), n})
	}
	slices.SortFunc(out, func(a, b Bucket) int {
		if a.Le < b.Le {
			return -1
		}
		return 1
	})
	return out
}

// bucketOf returns the number of the bucket that holds v. What is below 1 counts as 1: latencies are in nanoseconds.
func bucketOf(v float64) int {
	return int(math.Ceil(math.Log2(max(v, 1)) * bucketsPerOctave))
}

// A Figure names a number that can be read off a series for each repetition.
type Figure string

// The figures. Those of a distribution's tail are taken for each repetition, and their median counts.
const (
	Middle Figure = "median"
	P99    Figure = "p99"
	P999   Figure = "p99.9"
)

// Of returns the figure's values, one for each repetition. A series that is no distribution has its samples only.
func (f Figure) Of(s *Series) []float64 {
	if f == Middle || len(s.Repetitions) == 0 {
		return s.Samples
	}
	var out []float64
	for _, r := range s.Repetitions {
		if f == P999 {
			out = append(out, r.P999)
		} else {
			out = append(out, r.P99)
		}
	}
	return out
}
