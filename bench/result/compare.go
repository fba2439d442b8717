package result

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Change is how one figure of a trial differs between two documents.
type Change struct {
	Scenario string
	Params   Params
	Subject  string
	Metric   Metric
	Figure   Figure

	Before, After float64 // medians over the repetitions
	// Ratio is After over Before.
	Ratio float64
	// SpreadBefore and SpreadAfter are interquartile ranges over the medians.
	SpreadBefore, SpreadAfter float64
	// P is the probability of samples that differ so much if nothing had changed (Mann and Whitney's U test).
	P float64
	// Differs is set if that is too improbable to be noise.
	Differs bool
}

// alpha is the probability below which a difference counts as one: one in twenty comparisons of equal things is taken for
// a difference.
const alpha = 0.05

// Better reports whether the change is for the better. Of noise it says nothing.
func (c *Change) Better() bool { return c.Metric.Higher == (c.Ratio > 1) }

// Verdict is noise, better or worse.
func (c *Change) Verdict() string {
	switch {
	case !c.Differs:
		return "noise"
	case c.Better():
		return "better"
	}
	return "worse"
}

// Comparison is what two documents have in common, and what not.
type Comparison struct {
	Changes []Change
	// OnlyBefore and OnlyAfter name series that the other document lacks.
	OnlyBefore, OnlyAfter []string
	// Hosts say what is different about the machines: if they are not one, ratios say little.
	Hosts []string
}

// Compare compares two documents.
func Compare(before, after *Document) *Comparison {
	c := &Comparison{Hosts: differences(&before.Host, &after.Host)}
	for _, b := range before.Series {
		a := after.same(b)
		if a == nil {
			c.OnlyBefore = append(c.OnlyBefore, b.title())
			continue
		}
		figures := []Figure{Middle}
		if b.Many && a.Many {
			figures = append(figures, P99)
		}
		for _, f := range figures {
			c.Changes = append(c.Changes, change(b, a, f))
		}
	}
	for _, a := range after.Series {
		if before.same(a) == nil {
			c.OnlyAfter = append(c.OnlyAfter, a.title())
		}
	}
	return c
}

// same returns the series of d that measures what s does.
func (d *Document) same(s *Series) *Series {
	for _, o := range d.Series {
		if o.Scenario == s.Scenario && o.Subject == s.Subject && o.Metric == s.Metric && o.Params.String() == s.Params.String() {
			return o
		}
	}
	return nil
}

func (s *Series) title() string { return strings.TrimPrefix(benchName(s), "Benchmark") + " " + s.Name }

func change(b, a *Series, f Figure) Change {
	before, after := f.Of(b), f.Of(a)
	c := Change{
		Scenario: b.Scenario, Params: b.Params, Subject: b.Subject, Metric: b.Metric, Figure: f,
		Before: Median(before), After: Median(after), SpreadBefore: Spread(before), SpreadAfter: Spread(after),
		P: mannWhitney(before, after),
	}
	c.Ratio = c.After / c.Before
	c.Differs = c.P < alpha
	return c
}

// mannWhitney returns the two-sided p-value of the U test in its normal approximation, with corrections for ties and
// continuity. It is good from about eight values on each side on; with fewer than four nothing can be said, and it is 1.
func mannWhitney(a, b []float64) float64 {
	if len(a) < 4 || len(b) < 4 {
		return 1
	}
	type ranked struct {
		v     float64
		first bool
	}
	var all []ranked
	for _, v := range a {
		all = append(all, ranked{v, true})
	}
	for _, v := range b {
		all = append(all, ranked{v, false})
	}
	slices.SortFunc(all, func(x, y ranked) int {
		switch {
		case x.v < y.v:
			return -1
		case x.v > y.v:
			return 1
		}
		return 0
	})
	var sum, ties float64 // of a's ranks; of t^3-t over groups of t equal values
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].v == all[i].v {
			j++
		}
		rank, t := float64(i+j+1)/2, float64(j-i)
		ties += t*t*t - t
		for ; i < j; i++ {
			if all[i].first {
				sum += rank
			}
		}
	}
	m, n := float64(len(a)), float64(len(b))
	u := sum - m*(m+1)/2
	variance := m * n / 12 * (m + n + 1 - ties/((m+n)*(m+n-1)))
	if variance <= 0 {
		return 1 // all values are equal
	}
	z := max(math.Abs(u-m*n/2)-0.5, 0) / math.Sqrt(variance)
	return math.Erfc(z / math.Sqrt2)
}

// differences names what two hosts have different that changes results.
func differences(a, b *Host) []string {
	var out []string
	for _, f := range []struct{ name, a, b string }{
		{"CPU", a.CPU, b.CPU}, {"cores", fmt.Sprint(a.Cores), fmt.Sprint(b.Cores)}, {"kernel", a.Kernel, b.Kernel},
		{"file system", a.FileSystem, b.FileSystem}, {"Go", a.Go, b.Go}, {"C compiler", a.CC, b.CC}, {"CRIU", a.CRIU, b.CRIU},
	} {
		if f.a != f.b {
			out = append(out, fmt.Sprintf("%s: %s, then %s", f.name, f.a, f.b))
		}
	}
	return out
}

// WriteTable writes the comparison for people. With all it shows what is noise, too.
func (c *Comparison) WriteTable(w io.Writer, all bool) error {
	var b strings.Builder
	for _, h := range c.Hosts {
		fmt.Fprintf(&b, "not the same machine: %s\n", h)
	}
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "\ttrial\tmetric\tbefore\tafter\tratio\tspread\tp\t")
	noise := 0
	for i := range c.Changes {
		ch := &c.Changes[i]
		if !ch.Differs {
			noise++
			if !all {
				continue
			}
		}
		trial := ch.Scenario
		if len(ch.Params) > 0 {
			trial += " " + ch.Params.String()
		}
		metric := ch.Metric.Name
		if ch.Metric.Many {
			metric += " " + string(ch.Figure)
		}
		fmt.Fprintf(tab, "%s\t%s %s\t%s\t%s\t%s\t%.3f\t%s, %s\t%.3f\t\n", ch.Verdict(), trial, ch.Subject, metric,
			Format(ch.Before, ch.Metric.Unit), Format(ch.After, ch.Metric.Unit), ch.Ratio, Percent(ch.SpreadBefore), Percent(ch.SpreadAfter), ch.P)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "%d of %d figures differ; the others are within the noise of their repetitions (p >= %g).\n", len(c.Changes)-noise, len(c.Changes), alpha)
	for _, side := range []struct {
		name string
		list []string
	}{{"first", c.OnlyBefore}, {"second", c.OnlyAfter}} {
		if len(side.list) > 0 {
			fmt.Fprintf(&b, "only in the %s: %s\n", side.name, strings.Join(side.list, ", "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
